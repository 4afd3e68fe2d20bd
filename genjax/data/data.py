"""A source and the transforms between its units and those of the model."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch, Key, named
from genjax.data.checks import check_domains, check_examples
from genjax.data.examples import Examples
from genjax.data.source import HasRate, Source, capability, integer_range
from genjax.data.transforms import Transform


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of an experiment.

    Attributes:
        source: the examples, in the data's own units.
        transforms: applied in order, from the data's units to the model's.
    """

    source: Source
    transforms: tuple[Transform, ...] = ()

    @property
    def kind(self) -> str:
        """Name of the kind of an example."""
        kind = self.source.kind
        return kind if isinstance(kind, str) else kind.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's "x", before and after the transforms."""
        return self.source.shape

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return self.source.classes

    @property
    def levels(self) -> int:
        """Number of integer values of the source's "x"; 0 for continuous data."""
        return self.source.levels

    @property
    def rate(self) -> int:
        """Sampling rate of audio, in Hz; 8000 if the source does not define one."""
        found = capability(self.source, HasRate)
        return found.rate if found else 8000

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return self.source.splits

    def load(self, split: str) -> Examples:
        """Loads one split in the data's own units; see `Source.load`.

        Raises:
            UserError: as the source's `load`; there are no examples; a label is not one of the classes; or the values
                of the training split are not in the units for which the transforms are made.
        """
        examples = self.source.load(split)
        check_examples(examples, split, self.classes)
        if split == "train":
            check_domains(examples, self.transforms, self.kind)
        return examples

    def forward(self, batch: Mapping[str, Array | np.ndarray], key: Key, train: bool) -> Batch:
        """Maps a batch from the data's own units to the model's. Pure; works under jit.

        Args:
            batch: "x" [b, *shape] in the source's dtype, and "label" int32 [b] if the source has labels.
            key: a typed PRNG key; the transform at position i uses `named(key, "transform i")`.
            train: whether to augment; static under jit.

        Returns:
            The batch with "x" as float32, or as int32 if the transforms keep integers.
        """
        out: Batch = {name: jnp.asarray(array) for name, array in batch.items()}
        for i, transform in enumerate(self.transforms):
            out = transform.forward(out, named(key, f"transform {i}"), train)
        discrete = jnp.issubdtype(out["x"].dtype, jnp.integer)
        return {**out, "x": out["x"].astype(jnp.int32 if discrete else jnp.float32)}

    def inverse(self, x: Array | np.ndarray) -> np.ndarray:
        """Maps samples, or inputs of the model, back to the data's own units.

        Discrete data are rounded (down if the transforms dequantize) and clipped to their range.

        Args:
            x: [b, *shape], any dtype.

        Returns:
            [b, *shape] in the source's dtype.

        Raises:
            UserError: values that become integers are NaN or infinite.
        """
        values = np.asarray(x).astype(np.float64)
        for transform in reversed(self.transforms):
            values = transform.inverse(values)
        if self.levels:
            if broken := int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum()):
                raise UserError(f"samples: {broken} of {len(values)} hold values that are NaN or infinite")
            values = np.clip(np.rint(values), *integer_range(self.source.dtype, self.levels))
        return values.astype(self.source.dtype)

    def log_det(self) -> float:
        """Sums the transforms' log |det df/dx|, in nats per example.

        Returns:
            The correction to add to the model's log-density for the log-density in the data's own units.
        """
        return sum((transform.log_det(self.shape) for transform in self.transforms), 0.0)
