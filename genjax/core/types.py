"""Type aliases, and `record`: a frozen dataclass that is also a pytree.

Shapes are written with jaxtyping; `b` is the batch, `h w c` an image, `n` positions of a sequence.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast, dataclass_transform

import jax
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from genjax.core.errors import UserError

PyTree = Any
Key = PRNGKeyArray
Params = Mapping[str, PyTree]  # player's name -> the parameters that only this player updates
Extra = Mapping[str, PyTree]  # state that is not trained by gradients: codebooks, batch statistics, teachers
Batch = Mapping[str, Array]  # "x": modelled data; "label": integer classes, if the data has them
Metrics = Mapping[str, Array]  # name -> scalar

C = TypeVar("C", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: C) -> C:
    """Makes `cls` a frozen dataclass and a pytree whose children are its fields."""
    frozen = cast(C, dataclasses.dataclass(frozen=True)(cls))
    jax.tree_util.register_dataclass(frozen)
    return frozen


@record
class Condition:
    """What a network is given beside x; each part or None.

    Attributes:
        vector: [b, k], for adaptive normalisation (FiLM, adaLN).
        context: [b, n, d], a sequence for cross-attention or joint attention.
        mask: bool [b, n], the valid elements of `context`.
        aligned: [b, *space, c], concatenated to the channels of x.
        residuals: arrays added to the network's features, by level.
    """

    vector: PyTree = None
    context: PyTree = None
    mask: PyTree = None
    aligned: PyTree = None
    residuals: PyTree = None


def root_key(seed: int, impl: Any = None) -> Key:
    """The key of a seed of up to 63 bits; different seeds have different keys.

    Args:
        seed: 0 ... 2^63 - 1. `jax.random.key` alone would take the lower 32 bits, or overflow.
        impl: of the generator, as for `jax.random.key`.

    Returns:
        A typed PRNG key, shape (): `jax.random.key(seed)` for seeds below 2^32.

    Raises:
        UserError: the seed is out of range.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed={seed} must be in 0 ... 2^63 - 1")
    key = jax.random.key(np.uint32(seed & 0xFFFFFFFF), impl=impl)
    return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def named(key: Key, name: str) -> Key:
    """Derives the key of one named use of randomness: `fold_in(key, crc32(name))`.

    Every random draw of the library depends on (seed, step, name) and on no earlier draw, so that a
    resumed run continues with the same random numbers.

    Args:
        key: a typed PRNG key, shape ().
        name: purpose of the random draw, e.g. "noise".

    Returns:
        A typed PRNG key, shape ().
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


__all__ = [
    "Array",
    "Batch",
    "Condition",
    "Extra",
    "Key",
    "Metrics",
    "Params",
    "PyTree",
    "named",
    "record",
    "root_key",
]
