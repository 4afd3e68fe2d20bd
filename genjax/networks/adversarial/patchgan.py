"""PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2): a discriminator of patches.

A convolutional network whose outputs are "real" logits of overlapping squares of r pixels, where

    r = 1 after the last layer,      r <- k + s (r - 1) before a layer of kernel k and stride s:

70 for k = 4, three layers of stride 2 and two of stride 1.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array
from genjax.networks.adversarial.translators import Layer, PlaneNorm
from genjax.networks.layers.blocks import Conditioning, TimeFeatures
from genjax.networks.layers.linen import Conv


class PatchGAN(nn.Module):
    """Discriminator of patches.

    Attributes:
        channels: of the hidden layers; all but the last halve space.
        size: k, of all kernels.
        norm: see `translators.Layer`, in all hidden layers but the first. With "none" a logit depends on its patch
            alone.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: of the computations in all but the last layer.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    size: int = 4
    norm: PlaneNorm = "instance"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    dtype: str = "float32"

    @property
    def patch(self) -> int:
        """r, in pixels."""
        r = 1
        for stride in (1, 1, *(2,) * (len(self.channels) - 1)):
            r = self.size + stride * (r - 1)
        return r

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int = 1,
        train: bool = False,
    ) -> Float[Array, "b _ _ o"]:
        """Classifies patches.

        Args:
            x: images [b, h, w, c].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: number of logits per patch.
            train: ignored.

        Returns:
            float32 logits [b, h', w', out], sizes halved len(channels) - 1 times, rounding up.
        """
        first = self.channels[0]
        e = Conditioning(first - first % 2, 4 * first, self.time, self.time_scale, name="embed")(t, cond)
        h, last = x, len(self.channels) - 1
        for level, c in enumerate(self.channels):
            layer = Layer(
                c,
                self.size,
                "down" if level < last else "none",
                self.norm if level else "none",
                "leaky_relu",
                dtype=self.dtype,
                name=f"layer_{level}",
            )
            h = layer(h, e)
        return Conv(out, (self.size, self.size), name="out")(h.astype(jnp.float32))
