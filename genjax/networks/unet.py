"""The U-Net of diffusion models (Ronneberger et al. 2015; Ho et al. 2020; "DDPM++" of Song et al. 2021).

Level l has space n / 2^l and channels * multipliers[l] channels. Going down, each level applies `blocks`
residual blocks and halves space; going up, each level applies `blocks` + 1, every one of which first
joins the features that the way down left at the same place.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from genjax.errors import UserError
from genjax.networks.blocks import (
    Conditioning,
    Downsample,
    Embedding,
    ResBlock,
    SelfAttention,
    TimeFeatures,
    Upsample,
)
from genjax.networks.layers import Conv, GroupNorm, activate, lecun, zeros
from genjax.types import Array


class UNet(nn.Module):
    """U-Net over any number of spatial axes, conditioned on time and on a vector.

    Attributes:
        channels: channels of the finest level.
        multipliers: factor on `channels` for each level; their number is that of the levels.
        blocks: residual blocks for each level on the way down.
        attention: levels with self-attention after each residual block, 0 being the finest. If there are
            any, the middle of the network attends too.
        heads: attention heads; divides the channels of the levels that attend.
        modulation: how time and cond act: "scale_shift" (ADM) or "add" (DDPM).
        skip_rescale: divide residual sums by sqrt(2) (DDPM++).
        resample: how space is halved: a strided convolution or the mean of 2x2 blocks.
        padding: "SAME" with zeros, or "CIRCULAR" for data on a torus.
        time: kind of the time features; there are `channels` of them.
        time_scale: see `blocks.Conditioning.scale`: 1000 for sinusoidal features of t in [0, 1].
        zero_out: start the output layer at zero.
        dropout: probability of dropping a feature inside each residual block, in training.
        dtype: in which all but conditioning, statistics and the output layer compute.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    heads: int = 4
    modulation: Literal["scale_shift", "add"] = "scale_shift"
    skip_rescale: bool = True
    resample: Literal["conv", "pool"] = "conv"
    padding: Literal["SAME", "CIRCULAR"] = "SAME"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = True
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *n i"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b *n o"]:
        """Maps [b, *n, i] to float32 [b, *n, out]; a tuple `out` must have the spatial shape n.

        Raises:
            UserError: space is not divisible by 2^(levels - 1), or `out` or `attention` do not fit.
        """
        features = self._check(x.shape[1:-1], out)
        size = (3,) * (x.ndim - 2)
        e = Conditioning(self.channels, 4 * self.channels, self.time, self.time_scale, name="embed")(t, cond)
        h = Conv(self.channels, size, padding=self.padding, dtype=self.dtype, name="in")(x)
        passed = [h]
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            for i in range(self.blocks):
                h = self._block(h, e, level, f"down{level}_{i}", train)
                passed.append(h)
            if level < last:
                h = Downsample(self.resample, self.padding, self.dtype, name=f"down{level}")(h)
                passed.append(h)
        h = self._block(h, e, last, "middle_0", train, attend=bool(self.attention))
        h = self._block(h, e, last, "middle_1", train, attend=False)
        for level in reversed(range(last + 1)):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, passed.pop()], axis=-1)
                h = self._block(h, e, level, f"up{level}_{i}", train)
            if level > 0:
                h = Upsample(h.shape[-1], self.padding, self.dtype, name=f"up{level}")(h)
        h = activate("silu", GroupNorm(name="out_norm")(h)).astype(jnp.float32)
        init = zeros if self.zero_out else lecun
        return Conv(features, size, padding=self.padding, kernel_init=init, name="out")(h)

    def _block(
        self, h: Array, e: Embedding, level: int, name: str, train: bool, attend: bool | None = None
    ) -> Array:
        """One residual block, and attention where the level (or `attend`) says so."""
        h = ResBlock(
            self.channels * self.multipliers[level],
            modulation=self.modulation,
            rescale=self.skip_rescale,
            padding=self.padding,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )(h, e, train)
        if level in self.attention if attend is None else attend:
            h = SelfAttention(self.heads, self.skip_rescale, self.dtype, name=f"{name}_attention")(h)
        return h

    def _check(self, spatial: tuple[int, ...], out: int | tuple[int, ...]) -> int:
        """Returns the number of output channels, after refusing what does not fit."""
        levels = len(self.multipliers)
        step = 2 ** (levels - 1)
        if any(n % step for n in spatial):
            fits = " x ".join(str(-(-n // step) * step) for n in spatial)
            raise UserError(
                f"a U-Net of {levels} levels halves space {levels - 1} times, which {spatial} forbids: "
                f"use fewer multipliers, or pad the data to {fits}"
            )
        if any(not 0 <= level < levels for level in self.attention):
            raise UserError(f"attention={self.attention} names levels, which are 0 to {levels - 1}")
        if isinstance(out, tuple) and out[:-1] != spatial:
            raise UserError(
                f"a U-Net keeps the spatial shape {spatial}, so out={out} should be {(*spatial, out[-1])}"
            )
        return out if isinstance(out, int) else out[-1]
