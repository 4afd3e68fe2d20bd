"""Pairs of pictures for translation, as one picture twice as wide: the input on the left, the target on the right.

So transforms of values, pictures and measures serve pairs unchanged. Sources of pairs have a field `paired`; without it
the training split holds the left pictures of one half of the pairs beside the right pictures of the other half, so that
nothing on one side has its counterpart anywhere on the other. The test split always holds true pairs.
"""

import dataclasses
from typing import ClassVar, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch, Key
from genjax.data.examples import Table
from genjax.data.source import Kind, check_split
from genjax.data.sources.digits import Digits
from genjax.data.transforms import Transform

A = TypeVar("A", np.ndarray, Array)


def halves(x: A) -> tuple[A, A]:
    """(left, right) of pictures [b, h, 2 w, c]."""
    width = x.shape[2] // 2
    return x[:, :, :width], x[:, :, width:]


def beside(left: Array, right: Array) -> Array:
    """Pictures [b, h, w, c] as one picture twice as wide."""
    return jnp.concatenate([left, right], axis=2)


def table(left: np.ndarray, right: np.ndarray, split: str, paired: bool) -> Table:
    """The pairs of a split; see the module."""
    if split == "train" and not paired:
        count = len(left) // 2
        left, right = left[: 2 * count : 2], right[1 : 2 * count : 2]
    return Table({"x": np.concatenate([left, right], axis=2)})


@dataclasses.dataclass(frozen=True)
class Both:
    """A transform of pictures, made of both pictures of a pair alike: `Flip` mirrors each in its place.

    Attributes:
        transform: must not mix or number channels; its randomness is shared by the two.
    """

    transform: Transform

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Pairs [b, h, 2 w, c]."""
        left, right = halves(batch["x"])
        stacked = self.transform.forward({**batch, "x": jnp.concatenate([left, right], axis=-1)}, key, train)
        return {**stacked, "x": beside(*jnp.split(stacked["x"], 2, axis=-1))}

    def inverse(self, x: A) -> A:
        """The transform's, of pixels each by itself."""
        return self.transform.inverse(x)

    def log_det(self, shape: tuple[int, ...]) -> float:
        """The transform's."""
        return self.transform.log_det(shape)


@dataclasses.dataclass(frozen=True)
class DigitOutlines:
    """Handwritten digits, enlarged, and their outlines: uint8 [size, 2 size, 1], 0 ... 16; outline left, digit right.

    The outline is where the brightness rises or falls by more than `slope` from a pixel's left to its right neighbour
    and from the upper to the lower one, taken together as a vector. Splits are those of `Digits`.

    Attributes:
        paired: see the module.
        size: of a picture, a multiple of 8; digits are enlarged by linear interpolation.
        slope: the threshold.
    """

    paired: bool = True
    size: int = 16
    slope: float = 7.0

    kind: ClassVar[Kind] = "image"
    dtype: ClassVar[str] = "uint8"
    classes: ClassVar[int] = 0
    levels: ClassVar[int] = 17
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, 2 size, 1)."""
        return (self.size, 2 * self.size, 1)

    def load(self, split: str) -> Table:
        """Makes the pairs of one split; see `Source.load`."""
        check_split(split, self.splits)
        if self.size < 8 or self.size % 8:
            raise UserError(f"size={self.size} must be a multiple of the digits' 8 pixels")
        examples = Digits().load(split)
        digits = enlarged(examples[np.arange(len(examples))]["x"], self.size // 8)
        return table(outlines(digits, self.slope), digits, split, self.paired)


def enlarged(x: UInt8[np.ndarray, "n h w c"], factor: int) -> UInt8[np.ndarray, "n H W c"]:
    """Interpolates linearly between the centres of pixels, and rounds; beyond the outermost they are constant."""
    y = x.astype(np.float64)
    for axis in (1, 2):
        size = y.shape[axis]
        at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        weight = (at - low).reshape([-1 if i == axis else 1 for i in range(y.ndim)])
        y = (1 - weight) * y.take(low, axis) + weight * y.take(low + 1, axis)
    return np.rint(y).astype(np.uint8)


def outlines(x: UInt8[np.ndarray, "n h w c"], slope: float) -> UInt8[np.ndarray, "n h w c"]:
    """16 where the central differences are longer than `slope`, and 0; outside the picture is 0."""
    y = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    down, across = y[:, 2:, 1:-1] - y[:, :-2, 1:-1], y[:, 1:-1, 2:] - y[:, 1:-1, :-2]
    return (16 * (np.hypot(down, across) > slope)).astype(np.uint8)
