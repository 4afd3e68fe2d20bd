"""Random access to examples: `examples[indices]` is one vectorised gather, for every kind of storage."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Integer

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.data.permutation import permutation


@runtime_checkable
class Examples(Protocol):
    """A finite, ordered collection of examples."""

    def __len__(self) -> int:
        """Counts the examples."""
        ...

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Gathers the examples at `indices`, in that order: name -> array whose first axis is b."""
        ...


@runtime_checkable
class Gatherable(Examples, Protocol):
    """Examples that consist of arrays, which can also reside on devices; see `resident`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The arrays of the examples, by name."""
        ...

    def gather(self, arrays: Mapping[str, Array], indices: Int[Array, " b"]) -> dict[str, Array]:
        """`self[indices]`, bit for bit, from `arrays` on a device. Pure; works under jit.

        Args:
            arrays: as `self.arrays`, but those of more than two axes as [n, -1].
            indices: in 0 ... len(self) - 1, unchecked.

        Returns:
            Name -> array [b, ...].
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Examples in memory, as arrays with a common first axis.

    Attributes:
        arrays: name -> array [n, ...].
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise UserError(f"the arrays of a table need one common length, got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def gather(self, arrays: Mapping[str, Array], indices: Int[Array, " b"]) -> dict[str, Array]:
        """See `Gatherable.gather`."""
        taken = {
            name: array.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)
            for name, array in arrays.items()
        }
        return {name: rows.reshape(len(rows), *self.arrays[name].shape[1:]) for name, rows in taken.items()}


@runtime_checkable
class Stream(Protocol):
    """Integer tokens [n] that are not a single array in memory; `numpy.asarray` reads them all."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        ...

    def __len__(self) -> int:
        """Counts the tokens."""
        ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All tokens."""
        ...

    def windows(self, starts: Int[np.ndarray, " b"], length: int) -> Integer[np.ndarray, "b length"]:
        """Reads tokens[start : start + length] for each start."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a token stream, not materialised: example i is stream[i stride : i stride + length].

    Attributes:
        stream: integer tokens [n], of any integer dtype.
        length: tokens in a window.
        stride: tokens from one window's start to the next: 1 gives all windows, `length` disjoint ones (an
            incomplete window at the end of the stream is left out).
    """

    stream: Integer[np.ndarray, " n"] | Stream
    length: int
    stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.length <= len(self.stream):
            raise UserError(
                f"length={self.length} must lie between 1 and the stream's {len(self.stream)} tokens"
            )
        if self.stride < 1:
            raise UserError(f"stride={self.stride} must be at least 1")

    def __len__(self) -> int:
        return (len(self.stream) - self.length) // self.stride + 1

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        starts = indices * self.stride
        if isinstance(self.stream, Stream):
            return {"x": self.stream.windows(starts, self.length).astype(np.int32)}
        windows = np.lib.stride_tricks.sliding_window_view(self.stream, self.length)
        return {"x": windows[starts].astype(np.int32)}

    @property
    def nbytes(self) -> int:
        """Bytes of the stream."""
        return self.stream.nbytes

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stream."""
        return {"stream": np.asarray(self.stream)}

    def gather(self, arrays: Mapping[str, Array], indices: Int[Array, " b"]) -> dict[str, Array]:
        """See `Gatherable.gather`."""
        return slice_windows(arrays["stream"], indices * self.stride, self.length)


def slice_windows(stream: Integer[Array, " n"], starts: Int[Array, " b"], length: int) -> dict[str, Array]:
    """The windows stream[start : start + length], on a device.

    Args:
        stream: integer tokens.
        starts: first token of each window, unchecked.
        length: tokens in a window.

    Returns:
        {"x": int32 [b, length]}.
    """
    window = lambda start: jax.lax.dynamic_slice(stream, (start,), (length,))
    return {"x": jax.vmap(window)(starts).astype(jnp.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """A fixed random subset of examples: entries start ... start + num - 1 of a fixed permutation.

    Attributes:
        examples: the data set.
        num: size of the subset, at most what is left after `start`.
        start: offset in the permutation; subsets of disjoint ranges are disjoint.
    """

    examples: Examples
    num: int
    start: int = 0

    def __len__(self) -> int:
        return max(min(self.num, len(self.examples) - self.start), 0)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return self.examples[self._chosen[indices]]

    @functools.cached_property
    def _chosen(self) -> Int[np.ndarray, " num"]:
        return permutation(len(self.examples))[self.start : self.start + self.num]


def is_in_memory(examples: Examples) -> bool:
    """Whether the examples are arrays in memory: fast to access, and slow to send to another process."""
    return isinstance(examples, Table) or (
        isinstance(examples, Windows) and isinstance(examples.stream, np.ndarray)
    )


def in_memory(examples: Examples, batch_size: int) -> Table:
    """Reads all examples into memory, `batch_size` at a time."""
    chunks = np.split(np.arange(len(examples)), range(batch_size, len(examples), batch_size))
    parts = [examples[chunk] for chunk in chunks]
    return Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
