"""Random access to examples: `examples[indices]` is one vectorised gather, whatever holds the data."""

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
from genjax.data.permutation import shuffled


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
    """Examples that are made of arrays, which can lie on a device as well; see `resident`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What the examples are made of."""
        ...

    def gather(self, arrays: Mapping[str, Array], indices: Int[Array, " b"]) -> dict[str, Array]:
        """What `self[indices]` is, bit for bit, from its `arrays` on a device. Pure; works under jit.

        Args:
            arrays: as `self.arrays`, but those of more than two axes as [n, -1].
            indices: 0 ... len(self) - 1, unchecked.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Examples that lie in memory as arrays with a common first axis.

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
    """Integer tokens [n] that are not one array in memory; `numpy.asarray` reads them all."""

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
    """The windows of a token stream, never materialised: example i is stream[i stride : i stride + length].

    Attributes:
        stream: integer tokens [n], of any integer dtype.
        length: tokens in a window.
        stride: tokens from one window's start to the next: 1 gives every window, `length` disjoint ones
            (what is left over at the end of the stream belongs to no window).
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
        return cut(arrays["stream"], indices * self.stride, self.length)


def cut(stream: Integer[Array, " n"], starts: Int[Array, " b"], length: int) -> dict[str, Array]:
    """Windows stream[start : start + length] as "x", int32 [b, length], on a device."""
    window = lambda start: jax.lax.dynamic_slice(stream, (start,), (length,))
    return {"x": jax.vmap(window)(starts).astype(jnp.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class Some:
    """A fixed random choice of examples, the same always.

    Attributes:
        examples: what is chosen from.
        num: how many are chosen; at most all of them.
        start: how many of the random order come before: those of another choice.
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
        return shuffled(len(self.examples))[self.start : self.start + self.num]


def is_in_memory(examples: Examples) -> bool:
    """Whether access is a matter of microseconds, and sending the examples to another process is not."""
    return isinstance(examples, Table) or (
        isinstance(examples, Windows) and isinstance(examples.stream, np.ndarray)
    )


def in_memory(examples: Examples, together: int) -> Table:
    """Gathers all examples, so many at once."""
    chunks = np.split(np.arange(len(examples)), range(together, len(examples), together))
    parts = [examples[chunk] for chunk in chunks]
    return Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
