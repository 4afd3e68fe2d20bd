"""Pairs of images for translation, as one image twice as wide: the input on the left, the target on the right.

So elementwise transforms, image grids and metrics apply to pairs unchanged. Sources of pairs have a field `paired`.
If it is False, the training split joins the left images of one half of the pairs to the right images of the other
half, so that no image has its counterpart in the split. The test split always holds true pairs.
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
    """Splits images [b, h, 2 w, c] into (left, right), each [b, h, w, c]."""
    width = x.shape[2] // 2
    return x[:, :, :width], x[:, :, width:]


def side_by_side(left: Array, right: Array) -> Array:
    """Joins images [b, h, w, c] to [b, h, 2 w, c]."""
    return jnp.concatenate([left, right], axis=2)


def pair_table(left: np.ndarray, right: np.ndarray, split: str, paired: bool) -> Table:
    """The pairs of a split.

    Args:
        left: images [n, h, w, c].
        right: their counterparts [n, h, w, c].
        split: "train" or "test".
        paired: False joins, in the training split, left images of even rows to right images of odd rows.

    Returns:
        "x" [n, h, 2 w, c], or half as many examples if unpaired.
    """
    if split == "train" and not paired:
        count = len(left) // 2
        left, right = left[: 2 * count : 2], right[1 : 2 * count : 2]
    return Table({"x": np.concatenate([left, right], axis=2)})


@dataclasses.dataclass(frozen=True)
class Both:
    """Applies a transform to both images of a pair, with the same randomness: `Flip` mirrors each in its place.

    Attributes:
        transform: must treat channels alike and not mix them.
    """

    transform: Transform

    def forward(self, batch: Batch, key: Key, train: bool) -> Batch:
        """Pairs [b, h, 2 w, c] of any dtype. See `Transform.forward`."""
        left, right = halves(batch["x"])
        stacked = self.transform.forward({**batch, "x": jnp.concatenate([left, right], axis=-1)}, key, train)
        return {**stacked, "x": side_by_side(*jnp.split(stacked["x"], 2, axis=-1))}

    def inverse(self, x: A) -> A:
        """That of the transform."""
        return self.transform.inverse(x)

    def log_det(self, shape: tuple[int, ...]) -> float:
        """That of the transform."""
        return self.transform.log_det(shape)


@dataclasses.dataclass(frozen=True)
class DigitOutlines:
    """Outlines of handwritten digits (left) and the upsampled digits (right): uint8 [size, 2 size, 1], 0 ... 16.

    The outline is the set of pixels where the vector (lower minus upper, right minus left neighbour) is longer than
    `slope`. Splits are those of `Digits`.

    Attributes:
        paired: see the module's docstring.
        size: height and width of an image, a multiple of 8; digits are upsampled by linear interpolation.
        slope: threshold of the outline.
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
        """Computes the pairs of one split; see `Source.load`."""
        check_split(split, self.splits)
        if self.size < 8 or self.size % 8:
            raise UserError(f"size={self.size} must be a multiple of the digits' 8 pixels")
        examples = Digits().load(split)
        digits = enlarge(examples[np.arange(len(examples))]["x"], self.size // 8)
        return pair_table(outlines(digits, self.slope), digits, split, self.paired)


def enlarge(x: UInt8[np.ndarray, "n h w c"], factor: int) -> UInt8[np.ndarray, "n H W c"]:
    """Linear interpolation between pixel centres, rounded, with constant extrapolation at the border."""
    y = x.astype(np.float64)
    for axis in (1, 2):
        size = y.shape[axis]
        at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        weight = (at - low).reshape([-1 if i == axis else 1 for i in range(y.ndim)])
        y = (1 - weight) * y.take(low, axis) + weight * y.take(low + 1, axis)
    return np.rint(y).astype(np.uint8)


def outlines(x: UInt8[np.ndarray, "n h w c"], slope: float) -> UInt8[np.ndarray, "n h w c"]:
    """16 where the differences of opposite neighbours, as a vector, exceed `slope`, else 0; padded with 0."""
    y = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    down, across = y[:, 2:, 1:-1] - y[:, :-2, 1:-1], y[:, 1:-1, 2:] - y[:, 1:-1, :-2]
    return (16 * (np.hypot(down, across) > slope)).astype(np.uint8)
