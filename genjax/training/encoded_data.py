"""Data that bring their codes along: a frozen autoencoder's encodings, computed once instead of in every step.

`Data(Encoded(source, Pretrained(workdir)), transforms)` in place of `Data(source, transforms)` adds to each example
"z", its codes, and "z_of", a fingerprint of the parameters that made them. A `Latent` model takes "z" if the
fingerprint is that of the autoencoder it carries, and encodes otherwise. So nothing but speed depends on the cache: the
directory may be gone, or hold another run by now.

Codes only: real latents are drawn anew in every step. Where the transforms draw, the codes are those of one draw.
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
from genjax.data.source import Kind, Source
from genjax.training.experiment import CHECKPOINTS
from genjax.training.pretrained import Pretrained

TOGETHER = 256  # examples encoded at once


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Examples with more arrays beside them.

    Attributes:
        examples: the examples.
        more: name -> array whose first axis is theirs.
    """

    examples: Examples
    more: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {**self.examples[indices], **{name: rows[indices] for name, rows in self.more.items()}}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A source whose examples bring their codes along.

    Attributes:
        source: the data, as the autoencoder's run has them.
        weights: the autoencoder's run; its own transforms are applied before it encodes.
    """

    source: Source
    weights: Pretrained

    @property
    def kind(self) -> Kind:
        """The source's."""
        return self.source.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's."""
        return self.source.shape

    @property
    def dtype(self) -> str:
        """The source's."""
        return self.source.dtype

    @property
    def classes(self) -> int:
        """The source's."""
        return self.source.classes

    @property
    def levels(self) -> int:
        """The source's."""
        return self.source.levels

    @property
    def splits(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.splits

    def load(self, split: str) -> Examples:
        """The source's examples, with their codes if the autoencoder's run is there.

        Raises:
            UserError: as the source's `load`; or the run's objective has no codes.
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
    """The codes of a whole split, and the fingerprint of what made them, once for each example."""
    experiment = weights.experiment()
    coder, values = experiment.objective, weights.parameters()
    if not isinstance(coder, HasLatents) or not coder.values:
        raise UserError(f"{weights.workdir} holds a {type(coder).__name__}, whose latents are not codes")

    @jax.jit
    def encode(params: PyTree, extra: PyTree, batch: PyTree) -> Array:
        seen = experiment.data.forward(batch, jax.random.key(0), False)
        return coder.encode(params, extra, seen, jax.random.key(0))

    examples, codes = source.load(split), []
    for batch, count in sweep(examples, TOGETHER):
        codes.append(np.asarray(encode(*values, batch))[:count])
    mark = np.full(len(examples), np.asarray(fingerprint(values)))
    return {CODES: np.concatenate(codes), FINGERPRINT: mark}
