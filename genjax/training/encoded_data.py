"""Data with precomputed codes of a frozen autoencoder, instead of encoding in every step.

`Data(Encoded(source, Pretrained(workdir)), transforms)` in place of `Data(source, transforms)` adds to each example
"z", its codes, and "z_of", a fingerprint of the autoencoder's parameters. A `Latent` model uses "z" if the
fingerprint is that of its own autoencoder, and encodes otherwise. So the cache affects speed only: the directory may
be deleted, or hold another run.

Discrete codes only: continuous latents are sampled anew in every step. If the transforms are random, the codes come
from one draw.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError
from genjax.core.objective import HasLatents
from genjax.core.types import Array, PyTree
from genjax.data import sweep
from genjax.data.codes import CODES, FINGERPRINT, fingerprint
from genjax.data.examples import Examples, Table
from genjax.data.source import Kind, OwnKind, Source
from genjax.training.experiment import CHECKPOINTS
from genjax.training.pretrained import Pretrained

BATCH_SIZE = 256  # examples encoded in one call


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Examples with additional arrays.

    Attributes:
        examples: the examples.
        more: name -> array [n, ...], n being the number of examples.
    """

    examples: Examples
    more: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {**self.examples[indices], **{name: rows[indices] for name, rows in self.more.items()}}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A source whose examples have precomputed codes.

    Attributes:
        source: the data, in the units of the autoencoder's run.
        weights: the autoencoder's run; its transforms are applied before encoding.
    """

    source: Source
    weights: Pretrained

    @property
    def kind(self) -> Kind | OwnKind:
        """See `Source.kind`; that of the wrapped source."""
        return self.source.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source.shape`; that of the wrapped source."""
        return self.source.shape

    @property
    def dtype(self) -> str:
        """See `Source.dtype`; that of the wrapped source."""
        return self.source.dtype

    @property
    def classes(self) -> int:
        """See `Source.classes`; that of the wrapped source."""
        return self.source.classes

    @property
    def levels(self) -> int:
        """See `Source.levels`; that of the wrapped source."""
        return self.source.levels

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Source.splits`; that of the wrapped source."""
        return self.source.splits

    def load(self, split: str) -> Examples:
        """Loads the source's examples, with their codes if the autoencoder's run exists.

        Raises:
            UserError: as the source's `load`; or the run's latents are not discrete codes.
        """
        examples = self.source.load(split)
        if not (Path(self.weights.workdir) / CHECKPOINTS).is_dir():
            return examples
        made = _encodings(self.source, self.weights, split)  # type: ignore[arg-type]  # sources are frozen
        if isinstance(examples, Table):
            return Table({**examples.arrays, **made})
        return Joined(examples, made)


@functools.lru_cache(maxsize=4)
def _encodings(source: Source, weights: Pretrained, split: str) -> dict[str, np.ndarray]:
    """The codes of a whole split, and for each example the fingerprint of the parameters that made them."""
    experiment = weights.experiment()
    coder, values = experiment.objective, weights.parameters()
    if not isinstance(coder, HasLatents) or not coder.values:
        raise UserError(f"{weights.workdir} holds a {type(coder).__name__}, whose latents are not codes")

    @jax.jit
    def encode(params: PyTree, extra: PyTree, batch: PyTree) -> Array:
        seen = experiment.data.forward(batch, jax.random.key(0), False)
        return coder.encode(params, extra, seen, jax.random.key(0))

    examples, codes = source.load(split), []
    for batch, count in sweep(examples, BATCH_SIZE):
        codes.append(np.asarray(encode(*values, batch))[:count])
    mark = np.full(len(examples), np.asarray(fingerprint(values)))
    return {CODES: np.concatenate(codes), FINGERPRINT: mark}
