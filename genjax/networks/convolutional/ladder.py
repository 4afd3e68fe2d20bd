"""Ladder of image latents: a bottom-up and a shared top-down pass (VDVAE, Child 2021, arXiv:2011.10650, figure 3).

Bottom-up, residual blocks compute features a_s of x at each scale s. Top-down, from a learned constant at the coarsest
scale, each block l of scale s computes

    p(z_l | z_<l)    = N of P(h),            q(z_l | z_<l, x) = N of Q([h, a_s]),
    h <- h + F(h) + W z_l,     h <- residual block(h),

and h is upsampled (nearest neighbour) from one scale to the next. The same top-down pass samples, with z_l from p, and
infers, with z_l from q: the caller's `draw` chooses z_l given the two distributions.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.blocks import Conditioning, Embedding, ResBlock
from genjax.networks.layers.linen import Conv, GroupNorm, activate, zeros
from genjax.networks.layers.resample import Downsample


class Moments(NamedTuple):
    """Mean and log standard deviation of a Gaussian over a map of latents, each [b, h, w, c]."""

    mean: Array
    log_std: Array


Draw = Callable[[int, Moments, Moments | None], Array]  # (level, prior, posterior) -> z


class Ladder(nn.Module):
    """Hierarchical encoder and decoder of images.

    Attributes:
        channels: of all features.
        latent: channels of each block's latents.
        blocks: stochastic blocks at each scale, coarsest first; their number is that of the scales.
        dtype: of the computations in residual blocks.
    """

    channels: int = 32
    latent: int = 4
    blocks: tuple[int, ...] = (1, 2, 2)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"] | None,
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: tuple[int, ...],
        draw: Draw,
        num: int = 0,
        train: bool = False,
    ) -> Float[Array, "_ _ _ o"]:
        """The top-down pass, with the posteriors of x or from the priors alone.

        Args:
            x: images [b, h, w, c], or None to sample.
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: (h, w, o) of the output; h and w divisible by 2^(scales - 1).
            draw: (level, prior, posterior) -> z, called at each block, top first; posterior is None without
                x.
            num: batch size, if x is None.
            train: ignored: there is no dropout.

        Returns:
            float32 [b, *out].

        Raises:
            UserError: h or w is not divisible by 2^(scales - 1).
        """
        scales, (height, width) = len(self.blocks), out[:2]
        if height % 2 ** (scales - 1) or width % 2 ** (scales - 1):
            raise UserError(
                f"a ladder of {scales} scales cannot halve {height} x {width} images {scales - 1} times"
            )
        e = Conditioning(self.channels, 4 * self.channels, name="embed")(t, cond)
        up = None if x is None else self._bottom_up(x, e)
        b, factor = num if x is None else len(x), 2 ** (scales - 1)
        shape = (height // factor, width // factor, self.channels)
        start = self.param("start", nn.initializers.normal(0.1), shape, jnp.float32)
        h, level = jnp.broadcast_to(start[None], (b, *shape)), 0
        for scale, count in enumerate(self.blocks):
            h = ops.upsample(h) if scale else h
            for _ in range(count):
                h = self._step(h, None if up is None else up[scale], e, level, draw)
                level += 1
        h = activate("silu", GroupNorm(name="out_norm")(h)).astype(jnp.float32)
        return Conv(out[-1], name="out")(h)

    def _block(self, name: str, zero: bool = True) -> ResBlock:
        return ResBlock(self.channels, rescale=True, zero=zero, dtype=self.dtype, name=name)

    def _bottom_up(self, x: Array, e: Embedding) -> list[Array]:
        """Features of each scale, coarsest first."""
        h, features = Conv(self.channels, dtype=self.dtype, name="in")(x), []
        for scale in reversed(range(len(self.blocks))):
            h = self._block(f"up{scale}", zero=False)(h, e)
            features.append(h)
            h = Downsample("pool")(h) if scale else h
        return features[::-1]

    def _step(self, h: Array, seen: Array | None, e: Embedding, level: int, draw: Draw) -> Array:
        """One block of the top-down pass."""
        read = self._block(f"prior{level}", zero=False)(h, e)
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        both = Conv(2 * self.latent, (1, 1), kernel_init=zeros, name=f"prior{level}_out")(read)
        prior, posterior = Moments(*jnp.split(both.astype(jnp.float32), 2, axis=-1)), None
        if seen is not None:
            features = self._block(f"posterior{level}", zero=False)(jnp.concatenate([h, seen], axis=-1), e)
            both = Conv(2 * self.latent, (1, 1), kernel_init=small, name=f"posterior{level}_out")(features)
            posterior = Moments(*jnp.split(both.astype(jnp.float32), 2, axis=-1))
        z = draw(level, prior, posterior)
        h = h + Conv(self.channels, (1, 1), kernel_init=zeros, name=f"more{level}")(read)
        h = h + Conv(self.channels, (1, 1), name=f"z{level}")(z)
        return self._block(f"down{level}")(h, e)
