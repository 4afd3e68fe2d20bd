"""The U-Net of diffusion models (Ronneberger et al. 2015; Ho et al. 2020), with published variants as options.

Level l has space n / 2^l and channels * multipliers[l] channels. On the way down, each level applies `blocks` residual
blocks and halves space; on the way up, each level applies `blocks` + 1, each after concatenating the features of the
corresponding block of the way down.

DDPM++ and NCSN++ are those of Song et al. 2021 (arXiv:2011.13456, appendix H), ADM that of Dhariwal & Nichol 2021
(arXiv:2105.05233, appendix A and table 11). NCSN++ divides its output by sigma; here that is left to the objective's
parameterization.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import resample
from genjax.networks.layers.blocks import Conditioning, Embedding, ResBlock, SelfAttention, TimeFeatures
from genjax.networks.layers.linen import Conv, GroupNorm, activate, lecun, zeros
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector, kept
from genjax.networks.layers.resample import Downsample, Filter, Upsample

Progressive = Literal["none", "skip", "residual"]


class UNet(ConditionalNetwork):
    """U-Net over any number of spatial axes, conditioned on time and on a vector.

    Attributes:
        channels: channels of the finest level.
        multipliers: factor on `channels` for each level; their number is that of the levels.
        blocks: residual blocks per level on the way down.
        attention: levels with self-attention after each residual block, 0 being the finest. If not empty, the middle of
            the network has self-attention too.
        heads: attention heads; divides the channels of the levels with attention.
        modulation: how time and cond act: "scale_shift" (ADM) or "add" (DDPM).
        skip_rescale: divide residual sums by sqrt(2) (DDPM++).
        resample: downsampling: a strided convolution, the mean of 2x2 blocks, or the filter [1, 3, 3, 1], which is also
            used for upsampling ("fir"); see `resample`.
        padding: "SAME" with zeros, or "CIRCULAR" for data on a torus.
        time: kind of the time features; there are `channels` of them.
        time_scale: see `blocks.Conditioning.scale`: 1000 for sinusoidal features of t in [0, 1].
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a feature inside each residual block, in training.
        dtype: of the computations in all but conditioning, statistics and the output layer.
        updown: resampling by one "layer", by a residual "block" (ADM), or by one whose skip has a 1x1 convolution
            ("projected", DDPM++).
        attend_up: on the way up, self-attention after "each" residual block of a level or after the "last".
        head_channels: channels of each attention head; 0 to use `heads`.
        time_features: number of time features; 0 for `channels`.
        inputs: progressive input on the way down: none, the downsampled image through a 1x1 convolution ("skip"), or a
            residual path of the image ("residual").
        outputs: the output: from the finest level, as the sum of an upsampled image of each level ("skip"), or from the
            finest level with a residual path through all levels ("residual").
        remat: recompute the inside of each residual block in the backward pass instead of storing activations.
    """

    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    heads: int = 4
    modulation: Literal["scale_shift", "add"] = "scale_shift"
    skip_rescale: bool = True
    resample: Literal["conv", "pool", "fir"] = "conv"
    padding: Literal["SAME", "CIRCULAR"] = "SAME"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = True
    dropout: float = 0.0
    dtype: str = "float32"
    updown: Literal["layer", "block", "projected"] = "layer"
    attend_up: Literal["each", "last"] = "each"
    head_channels: int = 0
    time_features: int = 0
    inputs: Progressive = "none"
    outputs: Progressive = "none"
    remat: bool = False

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Applies the network.

        Args:
            x: [b, *n, i].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: o, or (*n, o).
            train: whether dropout is on.

        Returns:
            float32 [b, *n, o].

        Raises:
            UserError: n is not divisible by 2^(levels - 1), or `out` or `attention` do not fit.
        """
        features = self._check(x.shape[1:-1], out)
        waves = self.time_features or self.channels
        e = Conditioning(waves, 4 * self.channels, self.time, self.time_scale, name="embed")(t, cond)
        h = self._conv(self.channels, "in", x)
        skips, image = [h], x.astype(self.dtype)
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            for i in range(self.blocks):
                h = self._block(h, e, level, f"down{level}_{i}", train, level in self.attention)
                skips.append(h)
            if level < last:
                h = self._resize(h, e, level, "down", train)
                h, image = self._add_input(h, image, level)
                skips.append(h)
        h = self._block(h, e, last, "middle_0", train, attend=bool(self.attention))
        h = self._block(h, e, last, "middle_1", train, attend=False)
        made: Array | None = None
        for level in reversed(range(last + 1)):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                attend = level in self.attention and (self.attend_up == "each" or i == self.blocks)
                h = self._block(h, e, level, f"up{level}_{i}", train, attend)
            h, made = self._add_output(h, made, level, features)
            if level > 0:
                h = self._resize(h, e, level, "up", train)
        return self._out(h, features, "out") if made is None or self.outputs != "skip" else made

    @property
    def _filter(self) -> Filter:
        return "fir" if self.resample == "fir" else "box"

    def _conv(self, features: int, name: str, h: Array) -> Array:
        return Conv(features, (3,) * (h.ndim - 2), padding=self.padding, dtype=self.dtype, name=name)(h)

    def _out(self, h: Array, features: int, name: str) -> Array:
        """Norm, activation and convolution to an image, in float32."""
        h = activate("silu", GroupNorm(name=f"{name}_norm")(h)).astype(jnp.float32)
        init = zeros if self.zero_out else lecun
        return Conv(features, (3,) * (h.ndim - 2), padding=self.padding, kernel_init=init, name=name)(h)

    def _sum(self, a: Array, b: Array) -> Array:
        return (a + b) * (0.5**0.5 if self.skip_rescale else 1.0)

    def _add_input(self, h: Array, image: Array, level: int) -> tuple[Array, Array]:
        """Progressive input: adds the downsampled image to h."""
        if self.inputs == "none":
            return h, image
        if self.inputs == "skip":
            image = resample.down(image, self._filter, self.padding)
            size = (1,) * (h.ndim - 2)
            return h + Conv(h.shape[-1], size, dtype=self.dtype, name=f"read{level}")(image), image
        half = Downsample(
            "fir" if self.resample == "fir" else "conv",
            self.padding,
            self.dtype,
            h.shape[-1],
            name=f"read{level}",
        )
        h = self._sum(half(image), h)
        return h, h

    def _add_output(
        self, h: Array, made: Array | None, level: int, features: int
    ) -> tuple[Array, Array | None]:
        """Progressive output: adds this level's output to the upsampled output of the coarser levels."""
        name = f"write{level}"
        if self.outputs == "none":
            return h, None
        if self.outputs == "skip":
            new = self._out(h, features, name)
            return h, new if made is None else new + resample.up(made, self._filter, self.padding)
        if made is None:
            return h, self._conv(h.shape[-1], name, activate("silu", GroupNorm(name=f"{name}_norm")(h)))
        h = self._sum(Upsample(h.shape[-1], self.padding, self.dtype, self._filter, name=name)(made), h)
        return h, h

    def _resize(
        self, h: Array, e: Embedding, level: int, change: Literal["down", "up"], train: bool
    ) -> Array:
        """Halves or doubles space after the blocks of a level."""
        name = f"{change}{level}"
        if self.updown != "layer":
            return self._residual(level, name, change)(h, e, train)
        if change == "down":
            return Downsample(self.resample, self.padding, self.dtype, name=name)(h)
        return Upsample(h.shape[-1], self.padding, self.dtype, self._filter, name=name)(h)

    def _residual(self, level: int, name: str, change: Literal["none", "down", "up"] = "none") -> ResBlock:
        block = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock  # 3: train
        return block(
            self.channels * self.multipliers[level],
            modulation=self.modulation,
            rescale=self.skip_rescale,
            padding=self.padding,
            dropout=self.dropout,
            dtype=self.dtype,
            change=change,
            filter=self._filter,
            project=change != "none" and self.updown == "projected",
            name=name,
        )

    def _block(self, h: Array, e: Embedding, level: int, name: str, train: bool, attend: bool) -> Array:
        """One residual block, optionally followed by self-attention."""
        h = self._residual(level, name)(h, e, train)
        if not attend:
            return h
        heads = h.shape[-1] // self.head_channels if self.head_channels else self.heads
        return SelfAttention(heads, self.skip_rescale, self.dtype, name=f"{name}_attention")(h)

    def _check(self, spatial: tuple[int, ...], out: int | tuple[int, ...]) -> int:
        """Validates the arguments; returns the number of output channels."""
        levels = len(self.multipliers)
        step = 2 ** (levels - 1)
        if any(n % step for n in spatial):
            fits = " x ".join(str(-(-n // step) * step) for n in spatial)
            raise UserError(
                f"a U-Net of {levels} levels halves space {levels - 1} times, but {spatial} is not divisible by "
                f"{step}: use fewer multipliers, or pad the data to {fits}"
            )
        if any(not 0 <= level < levels for level in self.attention):
            raise UserError(f"attention={self.attention} must list levels from 0 to {levels - 1}")
        return kept(spatial, out)


def ddpmpp(dtype: str = "float32") -> UNet:
    """DDPM++ for CIFAR-10: 62 million parameters (Song et al. 2021, appendix H)."""
    return UNet(
        channels=128,
        multipliers=(1, 2, 2, 2),
        blocks=4,
        attention=(1,),
        heads=1,
        modulation="add",
        resample="pool",
        updown="projected",
        attend_up="last",
        dropout=0.1,
        dtype=dtype,
    )


def ncsnpp(dtype: str = "float32") -> UNet:
    """NCSN++ for CIFAR-10, 63 million parameters: DDPM++ with FIR filters and progressive input.

    Its time input is the logarithm of the noise level, provided by the objective's parameterization.
    """
    return ddpmpp(dtype).clone(
        resample="fir", inputs="residual", time="fourier", time_scale=16.0, time_features=256
    )


def adm(dtype: str = "float32") -> UNet:
    """ADM for ImageNet at 64 x 64: 296 million parameters with 1000 classes (Dhariwal & Nichol 2021, table 11)."""
    return UNet(
        channels=192,
        multipliers=(1, 2, 3, 4),
        blocks=3,
        attention=(1, 2, 3),
        head_channels=64,
        skip_rescale=False,
        resample="pool",
        updown="block",
        dropout=0.1,
        dtype=dtype,
    )
