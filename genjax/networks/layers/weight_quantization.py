"""Matrices stored in fewer bytes: decoding is bound by reading them.

Stored as int8, column o of a matrix W [i, o] becomes round(W_io / a_o), a_o = max_i |W_io| / 127, with a in float32:
the error of each entry is at most a_o / 2. Products accumulate in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from genjax.core.types import Array, PyTree, record
from genjax.networks.layers.kv_cache import Kind

_FEW = 4  # maximum number of rows for which a CPU is faster without a float32 copy of the matrix


@record
class Packed:
    """A matrix, or a stack of them along the first axis; `scale` is None unless int8."""

    values: Shaped[Array, "*n i o"]
    scale: Float[Array, "*n o"] | None = None

    def multiply(self, x: Float[Array, "b *n i"]) -> Float[Array, "b *n o"]:
        """x W, for one matrix."""
        flat, wide = x.reshape(-1, x.shape[-1]), jnp.promote_types(x.dtype, jnp.float32)
        if jax.default_backend() == "cpu" and len(flat) <= _FEW:
            rows = [jnp.sum(row[:, None].astype(wide) * self.values.astype(wide), axis=0) for row in flat]
            y = jnp.stack(rows)
        else:
            y = jnp.matmul(flat, self.values.astype(x.dtype), preferred_element_type=wide)
        y = y if self.scale is None else y * self.scale[None]
        return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


def pack(matrix: Float[Array, "*n i o"], kind: Kind) -> Any:
    """Quantises a matrix: itself for "float32", else `Packed`."""
    if kind == "float32":
        return matrix
    if kind == "bfloat16":
        return Packed(matrix.astype(jnp.bfloat16))
    scale = jnp.maximum(jnp.max(jnp.abs(matrix), axis=-2), 1e-30) / 127.0
    return Packed(jnp.rint(matrix / scale[..., None, :]).astype(jnp.int8), scale)


def pack_kernels(params: PyTree, kind: Kind) -> PyTree:
    """Packs every leaf named "kernel"; all kernels of the network must be those of dense layers."""

    def one(path: tuple[Any, ...], leaf: Array) -> Any:
        return pack(leaf, kind) if path[-1] == jax.tree_util.DictKey("kernel") else leaf

    return jax.tree_util.tree_map_with_path(one, params)
