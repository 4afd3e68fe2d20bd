"""What a source of data is: it knows its shapes before it loads, and loads by split.

The data come in their own units and dtype; changing them is the business of transforms. Discrete data take
`levels` integer values: 0 ... levels - 1, or all values of a signed dtype that has just so many (int16 audio
with 65,536 levels).
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Examples
from genjax.data.permutation import shuffled

Kind = Literal["image", "points", "text", "audio"]


@runtime_checkable
class Source(Protocol):
    """Where examples come from. Implemented by frozen dataclasses."""

    @property
    def kind(self) -> Kind:
        """What one example is."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's "x": (h, w, c) images, (2,) points, (n,) text, (n, c) audio.

        A source of audio says its `rate`, samples in a second; one of text has the `vocabulary` that decodes it.
        """
        ...

    @property
    def dtype(self) -> str:
        """NumPy's name of the dtype of "x"."""
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
        """What `load` accepts: always "train" and "test", the same examples in each on every call."""
        ...

    def load(self, split: str) -> Examples:
        """Loads one split: arrays "x" in the data's own units and, if `classes` > 0, "label" int32.

        Raises:
            UserError: the split is none of `splits`, or the data cannot be read.
        """
        ...


def check_split(split: str, splits: tuple[str, ...]) -> None:
    """Refuses a split that a source does not have.

    Raises:
        UserError: names the nearest split.
    """
    if split not in splits:
        raise UserError(f"no split '{split}': {nearest(split, splits)}")


def integer_range(dtype: str, levels: int) -> tuple[int, int]:
    """Gives the smallest and the largest value of discrete data (see the module's docstring).

    Args:
        dtype: an integer dtype's name.
        levels: number of values.

    Returns:
        (low, high), both included; high - low = levels - 1.
    """
    info = np.iinfo(dtype)
    low = info.min if levels == 2**info.bits else 0
    return int(low), int(low) + levels - 1


def dtype_levels(dtype: str, what: str) -> int:
    """Counts the values of a dtype, for data of which nothing else is said.

    Args:
        dtype: a dtype's name.
        what: whose dtype it is, for the error.

    Returns:
        256 or 65,536 for integers of 8 or 16 bits, 0 for floating point.

    Raises:
        UserError: wider integers, which no data fill.
    """
    if np.issubdtype(dtype, np.floating):
        return 0
    bits = np.iinfo(dtype).bits
    if bits > 16:
        raise UserError(f"{what} is {dtype}: say how many values it takes, with values=")
    return 2**bits


def split_rows(num: int, test: float, split: str) -> Int[np.ndarray, " rows"]:
    """Splits 0 ... num - 1 at random, the same way always, for data that come without a split.

    Args:
        num: how many examples, at least 2.
        test: fraction of the test split, which gets at least one; so does the training split.
        split: "train" or "test".

    Returns:
        The indices of one split, ascending.

    Raises:
        UserError: there are not enough examples for two splits.
    """
    if num < 2:
        raise UserError(f"{num} examples cannot be split into train and test")
    count = min(max(1, round(test * num)), num - 1)
    order = shuffled(num)
    return np.sort(order[:count] if split == "test" else order[count:])
