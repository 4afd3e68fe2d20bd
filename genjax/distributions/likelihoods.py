"""Likelihoods p(x|z): the distribution of the data given a decoder's output.

    Bernoulli            x log sigmoid(out) + (1 - x) log sigmoid(-out)
    Gaussian             N(x; mean, std^2), std fixed, or output by the decoder for each dimension
    OptimalGaussian      N(x; mean, s^2) with the maximum-likelihood s, s^2 = mean (x - mean)^2: the sigma-VAE
                         (Rybkin et al. 2021, arXiv:2006.13202, section 3.2)
    DiscretizedLogistic  F((x + w/2 - m) / s) - F((x - w/2 - m) / s), see `outputs`
                         (Kingma et al. 2016, arXiv:1606.04934, eq. 19)
    Categorical          one logit per value

The last two are for data with L values, evenly spaced in [-1, 1], in cells of width w = 2 / (L - 1). A probability P
is returned as the density P / w^D, constant over its cell: evaluation adds the log-determinant of the map from integers
to [-1, 1], which recovers P.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.types import Array, Extra, Key, PyTree
from genjax.distributions.gaussian import log_cell_volume, log_normal
from genjax.distributions.outputs import LEAST, log_bin

CARRIED = "likelihood"  # in extra
TINY = 1e-8


@runtime_checkable
class Likelihood(Protocol):
    """p(x|z), parameterised by the decoder's output."""

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder's output for one example of shape `shape`."""
        ...

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """log p(x|z) in nats."""
        ...

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """A draw from p(x|z), or its mean where sampling noise is not wanted."""
        ...


@runtime_checkable
class FittedScale(Protocol):
    """A likelihood whose scale is estimated from the data in closed form: carried in extra, not trained."""

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As `Likelihood.outputs`."""
        ...

    def init_state(self) -> PyTree:
        """The initial carried state."""
        ...

    def fit_scale(
        self, carried: PyTree, out: Float[Array, "b ..."], x: Float[Array, "b ..."]
    ) -> tuple[Likelihood, PyTree]:
        """Fits the scale to a batch by maximum likelihood.

        Args:
            carried: the carried state.
            out: the decoder's output [b, ...].
            x: the data [b, ...].

        Returns:
            (the likelihood with the batch's scale, the updated carried state).
        """
        ...

    def fitted(self, carried: PyTree) -> Likelihood:
        """The likelihood with the scale estimated from all batches so far."""
        ...


def init_extra(likelihood: Likelihood | FittedScale) -> Extra:
    """The initial entry of a likelihood in an objective's extra; {} if it carries no state."""
    return {CARRIED: likelihood.init_state()} if isinstance(likelihood, FittedScale) else {}


def fitted(likelihood: Likelihood | FittedScale, extra: Extra) -> Likelihood:
    """The likelihood for evaluation and sampling, with the carried scale."""
    return likelihood.fitted(extra[CARRIED]) if isinstance(likelihood, FittedScale) else likelihood


def fit_scale(
    likelihood: Likelihood | FittedScale,
    extra: Extra,
    out: Float[Array, "b ..."],
    x: Float[Array, "b ..."],
    train: bool,
) -> tuple[Likelihood, dict[str, PyTree]]:
    """The likelihood for one batch; in training a `FittedScale` is fitted to the batch.

    Args:
        likelihood: as configured.
        extra: the objective's.
        out: the decoder's output [b, ...].
        x: the data [b, ...].
        train: whether this is a training batch.

    Returns:
        (likelihood, new entries of extra).
    """
    if not isinstance(likelihood, FittedScale):
        return likelihood, {}
    if not train:
        return likelihood.fitted(extra[CARRIED]), {}
    now, carried = likelihood.fit_scale(extra[CARRIED], out, x)
    return now, {CARRIED: carried}


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits with probability sigmoid(out), for x in [0, 1].

    For 0 < x < 1 the cross-entropy is not a normalised density: binarise the data to obtain a likelihood.
    """

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One logit per dimension."""
        return shape

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """x log sigmoid(out) + (1 - x) log sigmoid(-out), which is x out - softplus(out)."""
        return sum_dims(x * out - jax.nn.softplus(out))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The mean: the probabilities."""
        return jax.nn.sigmoid(out)


@dataclass(frozen=True)
class Gaussian:
    """N(out, std^2); with `learned` a standard deviation for each dimension and example.

    Attributes:
        std: standard deviation in the scale of x; with `learned`, times exp of the decoder's output.
        learned: the decoder outputs mean and log(std / `std`).
        noisy: samples are draws; else they are means, as is usual for images.
    """

    std: float = 1.0
    learned: bool = False
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The mean, and with `learned` the log of the standard deviation, along the last axis."""
        return (*shape[:-1], shape[-1] * (2 if self.learned else 1))

    def _split(self, out: Float[Array, "b ..."]) -> tuple[Array, Array]:
        if not self.learned:
            return out, jnp.full_like(out, math.log(self.std))
        mean, log_factor = jnp.split(out, 2, axis=-1)
        return mean, math.log(self.std) + log_factor

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """-((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2."""
        mean, log_std = self._split(out)
        return sum_dims(log_normal(x, mean, log_std))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The mean, or with `noisy` a draw."""
        mean, log_std = self._split(out)
        return mean + self.noisy * jnp.exp(log_std) * jax.random.normal(key, mean.shape)


@dataclass(frozen=True)
class _Isotropic:
    """N(out, exp(2 log_std)) with one standard deviation for all dimensions."""

    log_std: Float[Array, ""]
    noisy: bool

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The mean."""
        return shape

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """See `Gaussian`."""
        return sum_dims(log_normal(x, out, self.log_std))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """See `Gaussian`."""
        return out + self.noisy * jnp.exp(self.log_std) * jax.random.normal(key, out.shape)


@dataclass(frozen=True)
class OptimalGaussian:
    """N(out, s^2) with the maximum-likelihood s: the batch's in training, else an exponential moving average.

    As s maximises the likelihood, the gradient with s held fixed is that of -(D / 2) log mean (x - out)^2: no weight
    between reconstruction and KL has to be chosen.

    Attributes:
        decay: of the moving average of s^2.
        noisy: samples are draws; else they are means.
    """

    decay: float = 0.99
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The mean."""
        return shape

    def init_state(self) -> dict[str, Array]:
        """Weighted sum of s^2 and sum of weights, initialised to s = 1."""
        return {"sum": jnp.full((), TINY), "weight": jnp.full((), TINY)}

    def fit_scale(
        self, carried: dict[str, Array], out: Float[Array, "b ..."], x: Float[Array, "b ..."]
    ) -> tuple[_Isotropic, dict[str, Array]]:
        """See `FittedScale.fit_scale`; s^2 = mean (x - out)^2."""
        variance = jax.lax.stop_gradient(jnp.mean((x - out) ** 2)) + TINY
        now = {"sum": variance, "weight": jnp.ones(())}
        mixed = jax.tree.map(lambda old, new: self.decay * old + (1.0 - self.decay) * new, carried, now)
        return _Isotropic(0.5 * jnp.log(variance), self.noisy), mixed

    def fitted(self, carried: dict[str, Array]) -> _Isotropic:
        """See `FittedScale.fitted`."""
        return _Isotropic(0.5 * jnp.log(carried["sum"] / carried["weight"]), self.noisy)


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Probability mass of a logistic distribution in each value's cell, the outer cells extending to infinity.

    Attributes:
        levels: L, at least 2: `Scale(0, L - 1)` maps integers to the values in [-1, 1].
        noisy: samples are draws; else they are means of the logistic distribution, clipped to [-1, 1].
    """

    levels: int = 256
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Mean and log s, along the last axis."""
        return (*shape[:-1], 2 * shape[-1])

    def _split(self, out: Array) -> tuple[Array, Array]:
        mean, log_scale = jnp.split(out, 2, axis=-1)
        return mean, jnp.maximum(log_scale, LEAST)

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """log P - D log w."""
        mean, log_scale = self._split(out)
        each = log_bin(to_integers(x, self.levels), mean, log_scale, self.levels)
        return sum_dims(each) - log_cell_volume(self.levels, math.prod(x.shape[1:]))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The mean, or with `noisy` a draw."""
        mean, log_scale = self._split(out)
        drawn = mean + self.noisy * jnp.exp(log_scale) * jax.random.logistic(key, mean.shape)
        drawn = jnp.clip(drawn, -1.0, 1.0)
        return from_integers(to_integers(drawn, self.levels), self.levels) if self.noisy else drawn


@dataclass(frozen=True)
class Categorical:
    """A categorical distribution over the L values of each dimension.

    Attributes:
        levels: L, at least 2: `Scale(0, L - 1)` maps integers to the values in [-1, 1].
        noisy: samples are draws; else they are means.
    """

    levels: int = 256
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """L logits per dimension, along the last axis."""
        return (*shape[:-1], shape[-1] * self.levels)

    def _logits(self, out: Array) -> Array:
        return out.reshape(*out.shape[:-1], -1, self.levels)

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """log P - D log w."""
        log_p = jax.nn.log_softmax(self._logits(out))
        each = jnp.take_along_axis(log_p, to_integers(x, self.levels)[..., None], axis=-1)
        return sum_dims(each) - log_cell_volume(self.levels, math.prod(x.shape[1:]))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The mean, or with `noisy` a draw."""
        logits = self._logits(out)
        if self.noisy:
            return from_integers(jax.random.categorical(key, logits), self.levels)
        return jax.nn.softmax(logits) @ jnp.linspace(-1.0, 1.0, self.levels)


def to_integers(x: Float[Array, "..."], levels: int) -> Int[Array, "..."]:
    """Rounds values in [-1, 1] to integers 0 ... L - 1.

    Raises:
        UserError: levels < 2.
    """
    if levels < 2:
        raise UserError(f"levels={levels} must be the number of values of the data, at least 2")
    return jnp.clip(jnp.round((x + 1.0) * (0.5 * (levels - 1))).astype(jnp.int32), 0, levels - 1)


def from_integers(x: Int[Array, "..."], levels: int) -> Float[Array, "..."]:
    """The value in [-1, 1] of each integer 0 ... L - 1."""
    return x.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0
