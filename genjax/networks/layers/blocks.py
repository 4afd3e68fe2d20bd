"""Parts that several networks share: the conditioning vector, the residual block, attention.

Conditioning is one vector per example, made of time and of the condition,

    e = W2 silu(W1 features(t) + b1) + b2 + C cond,

and each block gets P silu(e), without a bias. So cond = 0 is exactly the same as no cond.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import ops, resample, time_features
from genjax.networks.layers.linen import (
    Activation,
    Conv,
    Dense,
    GroupNorm,
    Initializer,
    activate,
    lecun,
    zeros,
)

Embedding = Float[Array, "b e"] | None
TimeFeatures = Literal["sinusoidal", "fourier"]


class Conditioning(nn.Module):
    """The conditioning vector e of time and cond; None without either.

    Attributes:
        features: number of time features.
        width: size of e.
        kind: kind of time features.
        scale: `time_scale` of the sinusoidal features, standard deviation of the Fourier frequencies.
    """

    features: int
    width: int
    kind: TimeFeatures = "sinusoidal"
    scale: float = 1000.0

    @nn.compact
    def __call__(self, t: Float[Array, " b"] | None, cond: Float[Array, "b k"] | None) -> Embedding:
        """Returns e, float32 [b, width]."""
        e = None
        if t is not None:
            waves = time_features.sinusoidal if self.kind == "sinusoidal" else time_features.fourier
            hidden = Dense(self.width, name="time_in")(waves(t, self.features, self.scale))
            e = Dense(self.width, name="time_out")(jax.nn.silu(hidden))
        if cond is not None:
            # Unit normal rows, as in an embedding table: one-hot labels select rows.
            unit = nn.initializers.normal(1.0)
            label = Dense(self.width, use_bias=False, kernel_init=unit, name="cond")(cond.astype(jnp.float32))
            e = label if e is None else e + label
        return e


class Modulation(nn.Module):
    """Modulates features by e: h (1 + s) + m ("scale_shift", Perez et al. 2018) or h + m ("add")."""

    kind: Literal["scale_shift", "add"] = "scale_shift"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, h: Float[Array, "b *n c"], e: Embedding) -> Float[Array, "b *n c"]:
        """Returns h modulated by P silu(e); h itself if e is None."""
        if e is None:
            return h
        parts = 2 if self.kind == "scale_shift" else 1
        modulation = Dense(parts * h.shape[-1], use_bias=False, dtype=self.dtype, name="project")(
            jax.nn.silu(e)
        )
        modulation = modulation.reshape(h.shape[0], *(1,) * (h.ndim - 2), parts * h.shape[-1])
        wide, modulation = (
            h.astype(jnp.float32),
            modulation.astype(jnp.float32),
        )  # the backward pass sums over space
        if self.kind == "add":
            return (wide + modulation).astype(h.dtype)
        scale, shift = jnp.split(modulation, 2, axis=-1)
        return (wide * (1 + scale) + shift).astype(h.dtype)


class ResBlock(nn.Module):
    """Residual block (He et al. 2016, in the form of Ho et al. 2020): x + f(x, e), f two convolutions.

        f: norm - activation - conv - norm - modulation by e - activation - dropout - conv

    Attributes:
        features: output channels; the skip gets a 1x1 convolution if the input has another number.
        norm: "group", or "none" for networks that must not normalise.
        modulation: form of the modulation by e, see `Modulation`.
        rescale: divide the sum by sqrt(2), so that the variance does not grow (Song et al. 2021).
        zero: initialise the last convolution to zero, so that the block starts as its skip.
        padding: of the 3x3 convolutions.
        change: halve or double space, in f after the first activation and on the skip (Brock et al. 2019).
        filter: resampling filter, see `resample`.
        project: always give the skip a 1x1 convolution.
    """

    features: int
    norm: Literal["group", "none"] = "group"
    activation: Activation = "silu"
    modulation: Literal["scale_shift", "add"] = "scale_shift"
    rescale: bool = False
    zero: bool = True
    padding: ops.Padding = "SAME"
    dropout: float = 0.0
    dtype: str = "float32"
    change: Literal["none", "down", "up"] = "none"
    filter: resample.Filter = "box"
    project: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *n i"], e: Embedding = None, train: bool = False
    ) -> Float[Array, "b *m o"]:
        """Maps channels i to `features`; computed and returned in `dtype`."""
        size = (3,) * (x.ndim - 2)

        def normalise(h: Array) -> Array:
            return GroupNorm()(h) if self.norm == "group" else h

        def conv(features: int, size: tuple[int, ...], init: Initializer = lecun) -> Conv:
            return Conv(features, size, padding=self.padding, dtype=self.dtype, kernel_init=init)

        def resized(h: Array) -> Array:
            if self.change == "none":
                return h
            return (resample.down if self.change == "down" else resample.up)(h, self.filter, self.padding)

        x = x.astype(self.dtype)
        h = resized(activate(self.activation, normalise(x)))
        x = resized(x)
        h = conv(self.features, size)(h)
        h = Modulation(self.modulation, self.dtype)(normalise(h), e)
        h = activate(self.activation, h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(self.features, size, zeros if self.zero else lecun)(h)
        kept = x.shape[-1] == self.features and not self.project
        skip = x if kept else conv(self.features, (1,) * (x.ndim - 2))(x)
        return (skip + h) * (0.5**0.5 if self.rescale else 1.0)


class SelfAttention(nn.Module):
    """Residual self-attention over all positions (Ho et al. 2020): x + W attention(norm(x)).

    Attributes:
        heads: number of heads; divides the channels.
        rescale: divide the sum by sqrt(2).
    """

    heads: int = 1
    rescale: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
        """Mixes positions; computed and returned in `dtype`.

        Raises:
            UserError: `heads` does not divide the channels.
        """
        b, c = x.shape[0], x.shape[-1]
        if c % self.heads:
            raise UserError(f"heads={self.heads} must divide the {c} channels of the attention")
        h = GroupNorm()(x).reshape(b, -1, c)
        qkv = Dense(3 * c, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.moveaxis(qkv.reshape(b, -1, 3, self.heads, c // self.heads), 2, 0)
        h = Dense(c, dtype=self.dtype, kernel_init=zeros, name="out")(
            ops.attention(q, k, v).reshape(b, -1, c)
        )
        return (x + h.reshape(x.shape)) * (0.5**0.5 if self.rescale else 1.0)
