"""What an autoregressive network's output says about the elements at a place: a distribution over integers.

`Categorical`: a logit for each value; each element is a place of its own.

`LogisticMixture` (Salimans et al. 2017, arXiv:1701.05517, section 2.1-2.2): the channels of a pixel or audio sample,
together, x scaled to [-1, 1], in bins of width w = 2 / (levels - 1):

    P(x_1 ... x_C) = sum_k pi_k prod_c [ F((x_c + w/2 - m_kc) / s_kc) - F((x_c - w/2 - m_kc) / s_kc) ],
    m_kc = mu_kc + sum_{d < c} a_kcd x_d,       F the logistic function; the outermost bins reach to infinity.

With u = (x + w/2 - m) / s and l = u - w / s the bracket is F(u) F(-l) (1 - e^{-w/s}), whose logarithm loses no digits.
The distribution of one channel given those before it is the same mixture with pi_k times their probabilities; so it has
logits, as all that is decoded has.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array

LEAST = -7.0  # of log s: a tenth of a bin of 256


@runtime_checkable
class OutputDistribution(Protocol):
    """How outputs become distributions; implemented by frozen dataclasses."""

    def grid(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """(the places of an example of this shape, the elements at each)."""
        ...

    def features(self, channels: int, values: int) -> tuple[int, ...]:
        """Shape of the network's output at one place."""
        ...

    def log_prob(
        self, out: Float[Array, "b n ..."], x: Int[Array, "b n c"], values: int
    ) -> Float[Array, "b n"]:
        """Log-probability in nats of the elements at each place, float32."""
        ...

    def logits(
        self, out: Float[Array, "b ..."], before: Int[Array, "b c"], channel: int, values: int
    ) -> Float[Array, "b v"]:
        """Logits of one element at a place, given those before it there: `before[:, :channel]`."""
        ...


@dataclass(frozen=True)
class Categorical:
    """A logit for each value of each element."""

    def grid(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Sequences as they are; of images (h, w c), of audio (n c)."""
        if len(shape) == 1:
            return shape, 1
        return (*shape[:-2], shape[-2] * shape[-1]), 1

    def features(self, channels: int, values: int) -> tuple[int, ...]:
        """(1, values)."""
        return (channels, values)

    def log_prob(
        self, out: Float[Array, "b n ..."], x: Int[Array, "b n c"], values: int
    ) -> Float[Array, "b n"]:
        """See `OutputDistribution`."""
        log_p = jax.nn.log_softmax(out.astype(jnp.float32))
        return jnp.take_along_axis(log_p, x[..., None], axis=-1)[..., 0].sum(-1)

    def logits(
        self, out: Float[Array, "b ..."], before: Int[Array, "b c"], channel: int, values: int
    ) -> Float[Array, "b v"]:
        """See `OutputDistribution`."""
        return out[:, channel].astype(jnp.float32)


@dataclass(frozen=True)
class LogisticMixture:
    """Mixture of discretized logistic distributions over the channels of a pixel.

    Attributes:
        components: of the mixture.
    """

    components: int = 10

    def grid(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """All axes but the last are places.

        Raises:
            UserError: there is no axis of channels.
        """
        if len(shape) < 2:
            raise UserError(
                f"a mixture of logistics is for images or audio, not for examples of shape {shape}"
            )
        return shape[:-1], shape[-1]

    def features(self, channels: int, values: int) -> tuple[int, ...]:
        """Of each component a weight; of each channel a mean, a scale and what earlier channels add to the mean."""
        return (self.components * (1 + 2 * channels + channels * (channels - 1) // 2),)

    def log_prob(
        self, out: Float[Array, "b n ..."], x: Int[Array, "b n c"], values: int
    ) -> Float[Array, "b n"]:
        """See `OutputDistribution`."""
        parts, channels = self._split(out, x.shape[-1]), x.shape[-1]
        scaled = 2.0 * x.astype(jnp.float32) / (values - 1) - 1.0
        log_p = jax.nn.log_softmax(parts[0])
        for channel in range(channels):
            mean, log_scale = self._channel(parts, scaled, channel)
            log_p = log_p + log_bin(x[..., channel, None], mean, log_scale, values)
        return jax.nn.logsumexp(log_p, axis=-1)

    def logits(
        self, out: Float[Array, "b ..."], before: Int[Array, "b c"], channel: int, values: int
    ) -> Float[Array, "b v"]:
        """See `OutputDistribution`."""
        parts = self._split(out, before.shape[-1])
        scaled = 2.0 * before.astype(jnp.float32) / (values - 1) - 1.0
        log_weight = jax.nn.log_softmax(parts[0])
        for earlier in range(channel):
            mean, log_scale = self._channel(parts, scaled, earlier)
            log_weight = log_weight + log_bin(before[..., earlier, None], mean, log_scale, values)
        mean, log_scale = self._channel(parts, scaled, channel)
        bins = log_bin(jnp.arange(values)[None, :, None], mean[:, None], log_scale[:, None], values)
        return jax.nn.log_softmax(jax.nn.logsumexp(log_weight[:, None] + bins, axis=-1))

    def _split(self, out: Array, channels: int) -> tuple[Array, Array, Array, Array]:
        """(logits of weights [*, k], means [*, c, k], log scales [*, c, k], coefficients [*, pairs, k])."""
        rows = out.astype(jnp.float32).reshape(*out.shape[:-1], -1, self.components)
        ends = (1, 1 + channels, 1 + 2 * channels)
        weights, means, scales, mixing = jnp.split(rows, ends, axis=-2)
        return weights[..., 0, :], means, jnp.maximum(scales, LEAST), jnp.tanh(mixing)

    def _channel(self, parts: tuple[Array, ...], x: Array, channel: int) -> tuple[Array, Array]:
        """Mean and log scale of one channel in each component, [*, k], given the scaled x of the channels before."""
        _, means, scales, mixing = parts
        first = channel * (channel - 1) // 2
        mean = means[..., channel, :]
        for earlier in range(channel):
            mean = mean + mixing[..., first + earlier, :] * x[..., earlier, None]
        return mean, scales[..., channel, :]


def log_bin(
    x: Int[Array, "..."], mean: Float[Array, "..."], log_scale: Float[Array, "..."], values: int
) -> Float[Array, "..."]:
    """log P(x) of a discretized logistic distribution, see the module's docstring; the arguments broadcast.

    Args:
        x: integers 0 ... values - 1.
        mean: in the scale in which 0 is -1 and values - 1 is 1.
        log_scale: log s.
        values: number of bins.

    Returns:
        Nats, float32.
    """
    width = 2.0 / (values - 1)
    centre = width * x.astype(jnp.float32) - 1.0
    inverse = jnp.exp(-log_scale)
    upper, lower = (centre + width / 2 - mean) * inverse, (centre - width / 2 - mean) * inverse
    below, above = jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower)
    inside = below + above + jnp.log(-jnp.expm1(-width * inverse))
    return jnp.where(x == 0, below, jnp.where(x == values - 1, above, inside))
