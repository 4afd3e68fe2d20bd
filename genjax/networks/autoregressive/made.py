"""MADE, the masked autoencoder (Germain et al. 2015, arXiv:1502.03509): output i depends on inputs before i only.

Input i has degree i (1 ... d), output i degree i, hidden unit j degree 1 + (j mod (d - 1)). Weights connect
degree m to degrees m' >= m only (eq. 8), at the outputs m' > m (eq. 9). All hidden layers have the same degrees, so
residual blocks preserve the order (as in Durkan et al. 2019, arXiv:1906.04032):

    h <- h + M_2 act(M_1 act(h) + P e),       e from time and cond, for every output.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.blocks import Conditioning, TimeFeatures
from genjax.networks.layers.linen import Activation, Dense, Initializer, activate, lecun, zeros
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


def degrees(inputs: int, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of the inputs (and outputs) and of a hidden layer's units, integers."""
    return np.arange(inputs) + 1, 1 + np.arange(units) % max(inputs - 1, 1)


class MaskedDense(nn.Module):
    """An affine map whose kernel is multiplied by a mask of 0 and 1.

    Attributes:
        mask: (inputs, features), as nested tuples.
    """

    mask: tuple[tuple[bool, ...], ...]
    dtype: str = "float32"
    kernel_init: Initializer = lecun

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Maps [b, in] to [b, features], computed and returned in `dtype`."""
        mask = np.asarray(self.mask, np.float32)
        kernel = self.param("kernel", self.kernel_init, mask.shape, jnp.float32) * mask
        bias = self.param("bias", zeros, mask.shape[1:], jnp.float32)
        y = ops.dense(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + ops.along_last(bias, y.ndim).astype(self.dtype)


def _mask(before: np.ndarray, after: np.ndarray, strict: bool = False) -> tuple[tuple[bool, ...], ...]:
    seen = (after[None] > before[:, None]) if strict else (after[None] >= before[:, None])
    return tuple(tuple(bool(value) for value in row) for row in seen)


class MADE(ConditionalNetwork):
    """Masked residual network, autoregressive in the order of its inputs.

    Attributes:
        width: units of the hidden layers; at least as many as inputs, so that each degree occurs.
        depth: residual blocks, each of two layers.
        activation: the non-linearity.
        time: kind of the time features, if t is given.
        time_scale: see `blocks.Conditioning.scale`.
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a hidden feature, in training.
        dtype: dtype of the computation.
    """

    width: int = 64
    depth: int = 2
    activation: Activation = "silu"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = True
    dropout: float = 0.0
    dtype: str = "float32"

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps each dimension to features that depend on the dimensions before it.

        Args:
            x: inputs.
            t: times, or None.
            cond: conditioning vector, or None.
            out: k (or (d, k)): features of each dimension.
            train: whether dropout is on.

        Returns:
            [b, d, k], float32 at least.

        Raises:
            UserError: `out` has another number of dimensions.
        """
        shape = (x.shape[1], out) if isinstance(out, int) else out
        if shape[0] != x.shape[1]:
            raise UserError(f"MADE has an output for each of the {x.shape[1]} inputs, not for {shape[0]}")
        each = math.prod(shape[1:])
        inputs, units = degrees(x.shape[1], self.width)
        e = Conditioning(self.width - self.width % 2, self.width, self.time, self.time_scale)(t, cond)
        e = None if e is None else jax.nn.silu(e)

        def add(h: Array, name: str) -> Array:
            """Adds P e, without a bias, so that e = 0 is no condition."""
            if e is None:
                return h
            return h + Dense(h.shape[-1], use_bias=False, name=name)(e).astype(h.dtype)

        h = add(MaskedDense(_mask(inputs, units), self.dtype, name="in")(x), "cond_in")
        for index in range(self.depth):
            r = MaskedDense(_mask(units, units), self.dtype)(activate(self.activation, h))
            r = activate(self.activation, add(r, f"cond_{index}"))
            r = nn.Dropout(self.dropout, deterministic=not train)(r)
            h = h + MaskedDense(_mask(units, units), self.dtype)(r)
        init = zeros if self.zero_out else lecun
        last = MaskedDense(_mask(units, np.repeat(inputs, each), strict=True), self.dtype, init, name="out")
        y = last(activate(self.activation, h))
        if e is not None:
            y = y + Dense(y.shape[-1], use_bias=False, kernel_init=init, name="cond_out")(e).astype(y.dtype)
        return ops.wide(y).reshape(x.shape[0], *shape)
