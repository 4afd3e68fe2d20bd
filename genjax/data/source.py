"""The protocol of data sources: shapes are known before loading, and data are loaded by split.

Data are loaded in their own units and dtype; transforms convert them. Discrete data take `levels` integer values:
0 ... levels - 1, or all values of a signed dtype with that many (int16 audio with 65,536 levels).
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Examples
from genjax.data.permutation import permutation

Kind = Literal["image", "points", "text", "audio"]


@runtime_checkable
class Source(Protocol):
    """A source of examples. Implemented by frozen dataclasses."""

    @property
    def kind(self) -> Kind:
        """Kind of an example."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's "x": (h, w, c) images, (2,) points, (n,) text, (n, c) audio.

        A source of audio also has a `rate`, in Hz; one of text has the `vocabulary` that decodes it.
        """
        ...

    @property
    def dtype(self) -> str:
        """NumPy name of the dtype of "x"."""
        ...

    @property
    def classes(self) -> int:
        """Number of values of "label" [int32, 0 ... classes - 1]; 0 without labels."""
        ...

    @property
    def levels(self) -> int:
        """Number of integer values that "x" can take; 0 for continuous data."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, "train" and "test" among them; every call of `load` returns the same examples."""
        ...

    def load(self, split: str) -> Examples:
        """Loads one split: arrays "x" in the data's own units and, if `classes` > 0, "label" int32.

        Raises:
            UserError: the split is not one of `splits`, or the data cannot be read.
        """
        ...


class OfSource:
    """What stands around a source and has the same examples: forwards the source's properties."""

    source: Source

    @property
    def kind(self) -> Kind:
        """Kind of an example."""
        return self.source.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's "x", also after the transforms."""
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
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return self.source.splits


def check_split(split: str, splits: tuple[str, ...]) -> None:
    """Checks that a source has a split.

    Raises:
        UserError: it has not; suggests the nearest name.
    """
    if split not in splits:
        raise UserError(f"no split '{split}': {nearest(split, splits)}")


def integer_range(dtype: str, levels: int) -> tuple[int, int]:
    """The smallest and the largest value of discrete data (see the module's docstring).

    Args:
        dtype: an integer dtype's name.
        levels: number of values.

    Returns:
        (low, high), both inclusive; high - low = levels - 1.
    """
    info = np.iinfo(dtype)
    low = info.min if levels == 2**info.bits else 0
    return int(low), int(low) + levels - 1


def dtype_levels(dtype: str, what: str) -> int:
    """Number of values of a dtype, the default of `levels`.

    Args:
        dtype: a dtype's name.
        what: description of the array, for the message.

    Returns:
        256 or 65,536 for integers of 8 or 16 bits, 0 for floating point.

    Raises:
        UserError: integers are wider than 16 bits.
    """
    if np.issubdtype(dtype, np.floating):
        return 0
    bits = np.iinfo(dtype).bits
    if bits > 16:
        raise UserError(f"{what} is {dtype}: set the number of its values with values=")
    return 2**bits


def split_rows(num: int, test: float, split: str) -> Int[np.ndarray, " rows"]:
    """Splits 0 ... num - 1 by a fixed permutation, for data without predefined splits.

    Args:
        num: number of examples, at least 2.
        test: fraction of the test split; both splits get at least one example.
        split: "train" or "test".

    Returns:
        The indices of one split, ascending.

    Raises:
        UserError: there are not enough examples for two splits.
    """
    if num < 2:
        raise UserError(f"{num} examples cannot be split into train and test")
    count = min(max(1, round(test * num)), num - 1)
    order = permutation(num)
    return np.sort(order[:count] if split == "test" else order[count:])
