"""Batches as a pure function of (seed, step, process): resuming needs no iterator state.

The training stream concatenates one permutation of all examples per epoch. Global item p = step * batch_size + i is
entry p mod len of permutation p // len: a batch may span two epochs, no example is dropped, and each occurs exactly
once per epoch. Process k of n takes the k-th of n equal consecutive slices of each batch: the global batch does not
depend on n.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError
from genjax.data.examples import Examples
from genjax.data.permutation import permutation, permutation_at

LARGEST_TABLE = 2**20  # examples; larger permutations are evaluated entry by entry, as sorting takes seconds


def process_rows(batch_size: int, process_index: int, process_count: int) -> Int[np.ndarray, " local"]:
    """The rows of a global batch that one process holds.

    Args:
        batch_size: rows of the global batch.
        process_index: the process, 0 ... process_count - 1.
        process_count: number of processes; must divide `batch_size`.

    Returns:
        Consecutive row indices, int64 [batch_size / process_count].

    Raises:
        UserError: `batch_size` is not a positive multiple of `process_count`, or `process_index` is out of range.
    """
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size={batch_size} must be a positive multiple of the {process_count} processes"
        )
    if not 0 <= process_index < process_count:
        raise UserError(f"process_index={process_index} must lie in 0 ... {process_count - 1}")
    local = batch_size // process_count
    return np.arange(process_index * local, (process_index + 1) * local)


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The endless stream of training batches; `batches(step)` is this process's part of batch `step`.

    Attributes:
        examples: the data set.
        batch_size: examples in the global batch, over all processes.
        seed: of the permutations, 0 ... 2^64 - 1.
        process_index: this process.
        process_count: number of processes.
    """

    examples: Examples
    batch_size: int
    seed: int = 0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        process_rows(self.batch_size, self.process_index, self.process_count)
        if len(self.examples) == 0:
            raise UserError("there are no examples to draw batches from")

    @functools.cached_property
    def rows(self) -> Int[np.ndarray, " local"]:
        """This process's rows of the global batch."""
        return process_rows(self.batch_size, self.process_index, self.process_count)

    @functools.cached_property
    def _permutation(self) -> Callable[[int], np.ndarray]:
        """Epoch -> its permutation; the last two are cached, since a batch may span two epochs."""
        return functools.lru_cache(maxsize=2)(functools.partial(permutation, len(self.examples), self.seed))

    def _permuted(self, places: np.ndarray, epoch: int) -> np.ndarray:
        if len(self.examples) > LARGEST_TABLE:
            return permutation_at(places, len(self.examples), self.seed, epoch)
        return self._permutation(epoch)[places]

    def indices(self, step: int) -> Int[np.ndarray, " local"]:
        """Indices of this process's examples at `step` (0, 1, ...), int64."""
        epochs, places = np.divmod(step * self.batch_size + self.rows, len(self.examples))
        first, last = int(epochs[0]), int(epochs[-1])
        if first == last:
            return self._permuted(places, first)
        return np.concatenate(
            [self._permuted(places[epochs == epoch], epoch) for epoch in range(first, last + 1)]
        )

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Gathers this process's rows of global batch `step`: [batch_size / process_count, ...]."""
        return self.examples[self.indices(step)]


def sweep(
    examples: Examples, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Iterates once over all examples in order, in batches of one size: for evaluation with static shapes.

    Args:
        examples: the data set.
        batch_size: examples in the global batch.
        process_index: this process.
        process_count: number of processes.

    Yields:
        (batch, count): this process's rows of the global batch, and the number of leading rows of the *global* batch
        that are valid; the last batch is padded to full size by repeating the last example.

    Raises:
        UserError: as `process_rows`.
    """
    rows = process_rows(batch_size, process_index, process_count)
    total = len(examples)
    for start in range(0, total, batch_size):
        yield examples[np.minimum(start + rows, total - 1)], min(batch_size, total - start)
