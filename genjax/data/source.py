"""The protocol of data sources: shapes are known before loading, and data are loaded by split.

Data are loaded in their own units and dtype; transforms convert them. Discrete data take `levels` integer values:
0 ... levels - 1, or all values of a signed dtype with that many (int16 audio with 65,536 levels).
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Examples
from genjax.data.permutation import permutation

Kind = Literal["image", "points", "text", "audio"]
C = TypeVar("C")


@runtime_checkable
class OwnKind(Protocol):
    """A kind of data beside the four: a record that also says how it is evaluated and drawn.

    It satisfies `evaluation.kinds.Evaluates` and `reports.kinds.Draws`, which have the records of the four.
    """

    @property
    def name(self) -> str:
        """Word for the kind, for messages."""
        ...


@runtime_checkable
class Source(Protocol):
    """A source of examples. Implemented by frozen dataclasses."""

    @property
    def kind(self) -> Kind | OwnKind:
        """Kind of an example: one of the four by name, or a record."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's "x": (h, w, c) images, (2,) points, (n,) text, (n, c) audio."""
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


@runtime_checkable
class Codec(Protocol):
    """Maps text to tokens and back. Implementations: `data.text`."""

    def __len__(self) -> int: ...

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """The tokens of UTF-8 text."""
        ...

    def decode(self, tokens: Any) -> str:
        """The text of tokens [n]."""
        ...


@runtime_checkable
class PromptCodec(Codec, Protocol):
    """A codec whose special tokens frame what a model is given, and what it answers."""

    def encode_prompt(self, text: str) -> Integer[np.ndarray, " n"]:
        """The tokens of a prompt, with special tokens where the text spells them or the tokenizer adds them."""
        ...

    def decode_completion(self, tokens: Any) -> str:
        """The text of tokens [n], without the special ones."""
        ...

    def trim(self, tokens: Any) -> Any:
        """The tokens of a sample [n] without special ones at both ends."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """A source of text with its own tokens; without one, tokens are bytes."""

    @property
    def vocabulary(self) -> Codec:
        """The map between text and tokens."""
        ...


@runtime_checkable
class HasDocuments(Protocol):
    """A source of whole documents."""

    def documents(self, split: str) -> Sequence[str]:
        """The documents of a split."""
        ...


@runtime_checkable
class HasRate(Protocol):
    """A source of audio."""

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        ...


@runtime_checkable
class HasClassNames(Protocol):
    """A source whose classes have names."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label; empty without classes."""
        ...


@runtime_checkable
class Describes(Protocol):
    """A source of files, which says what it has read of them."""

    def describe(self) -> str:
        """One line: numbers of examples and classes, their shape and range, and what is left out."""
        ...


@runtime_checkable
class MaybePaired(Protocol):
    """A source of image pairs."""

    @property
    def paired(self) -> bool:
        """Whether the two images of a training pair belong together."""
        ...


@runtime_checkable
class Named(Protocol):
    """A source of one of many data sets."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        ...


@runtime_checkable
class FromDisk(Protocol):
    """A source on disk, whose large splits stay there."""

    @property
    def memory_mib(self) -> int:
        """MiB of examples up to which a split is read into memory."""
        ...


@runtime_checkable
class Wrapper(Protocol):
    """A source that adds something to another one, whose capabilities are its own."""

    @property
    def source(self) -> Source:
        """The wrapped source."""
        ...


def capability(source: Source, kind: type[C]) -> C | None:
    """The source, or the one that it wraps, as one that has a capability.

    Args:
        source: any source.
        kind: the capability, such as `HasVocabulary`.

    Returns:
        The innermost source that has it, None if there is none.
    """
    if isinstance(source, Wrapper):
        return capability(source.source, kind)
    return source if isinstance(source, kind) else None


def innermost(source: Source) -> Source:
    """The source without its wrappers."""
    return innermost(source.source) if isinstance(source, Wrapper) else source


def is_paired(source: Source) -> bool:
    """Whether training pairs belong together; True unless the source says otherwise."""
    found = capability(source, MaybePaired)
    return found is None or found.paired


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
