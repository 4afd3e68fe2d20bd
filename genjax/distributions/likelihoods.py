"""Likelihoods p(x|z): what a decoder's output says about the data.

    Bernoulli            x log sigmoid(out) + (1 - x) log sigmoid(-out)
    Gaussian             N(x; mean, std^2), std fixed, or given by the decoder for each dimension
    OptimalGaussian      N(x; mean, s^2) with the s of greatest likelihood, s^2 = mean (x - mean)^2: the sigma-VAE
                         (Rybkin et al. 2021, arXiv:2006.13202, section 3.2)
    DiscretizedLogistic  F((x + w/2 - m) / s) - F((x - w/2 - m) / s), see `emissions`
                         (Kingma et al. 2016, arXiv:1606.04934, eq. 19)
    Categorical          a logit for each value

The last two are of data with L values, evenly spaced in [-1, 1], cells of width w = 2 / (L - 1). Their probability P is
given as the density P / w^D that is even over its cell: evaluation adds the log determinant of the map from integers
to [-1, 1], which gives P back.
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
    """p(x|z), given the decoder's output."""

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder's output for one example of shape `shape`."""
        ...

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """log p(x|z) in nats."""
        ...

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """A draw (or, where noise would only be looked at, the mean) of p(x|z)."""
        ...


@runtime_checkable
class Settled(Protocol):
    """A likelihood with a number of its own that the data settle: carried in extra, not trained."""

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """As `Likelihood.outputs`."""
        ...

    def begin(self) -> PyTree:
        """What is carried at first."""
        ...

    def settle(
        self, carried: PyTree, out: Float[Array, "b ..."], x: Float[Array, "b ..."]
    ) -> tuple[Likelihood, PyTree]:
        """(the likelihood that suits this batch best, what is carried on)."""
        ...

    def settled(self, carried: PyTree) -> Likelihood:
        """The likelihood that has suited the batches so far."""
        ...


def begin(likelihood: Likelihood | Settled) -> Extra:
    """A likelihood's part of an objective's extra."""
    return {CARRIED: likelihood.begin()} if isinstance(likelihood, Settled) else {}


def settled(likelihood: Likelihood | Settled, extra: Extra) -> Likelihood:
    """The likelihood to evaluate and to sample with."""
    return likelihood.settled(extra[CARRIED]) if isinstance(likelihood, Settled) else likelihood


def settle(
    likelihood: Likelihood | Settled,
    extra: Extra,
    out: Float[Array, "b ..."],
    x: Float[Array, "b ..."],
    train: bool,
) -> tuple[Likelihood, dict[str, PyTree]]:
    """The likelihood of a batch, and what changes in extra: nothing unless it is settled, in training.

    Args:
        likelihood: as configured.
        extra: the objective's.
        out: the decoder's output.
        x: the data.
        train: whether the batch is one of training.

    Returns:
        (likelihood, new entries of extra).
    """
    if not isinstance(likelihood, Settled):
        return likelihood, {}
    if not train:
        return likelihood.settled(extra[CARRIED]), {}
    now, carried = likelihood.settle(extra[CARRIED], out, x)
    return now, {CARRIED: carried}


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits with probability sigmoid(out); x in [0, 1], read as a probability where it is between.

    For x strictly between 0 and 1 the cross-entropy is no normalised density: binarise the data for a likelihood.
    """

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One logit for each dimension."""
        return shape

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """x log sigmoid(out) + (1 - x) log sigmoid(-out), which is x out - softplus(out)."""
        return sum_dims(x * out - jax.nn.softplus(out))

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The probabilities: the mean."""
        return jax.nn.sigmoid(out)


@dataclass(frozen=True)
class Gaussian:
    """N(out, std^2), or with a standard deviation learned for each dimension and example if `learned`.

    Attributes:
        std: standard deviation in the scale of x; with `learned` the network gives its factor's logarithm.
        learned: the decoder gives mean and log(std / `std`).
        noisy: samples are draws; else they are means, as is usual for pictures.
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
    """N(out, exp(2 log_std)) with one standard deviation for all."""

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
    """N(out, s^2) with the s of greatest likelihood: in training the batch's, else a moving average of those.

    As s maximises, the gradient with s held fixed is that of -(D / 2) log mean (x - out)^2: there is no weight between
    reconstruction and KL to choose.

    Attributes:
        decay: of the moving average of s^2.
        noisy: samples are draws; else they are means.
    """

    decay: float = 0.99
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The mean."""
        return shape

    def begin(self) -> dict[str, Array]:
        """A weighted sum of s^2 and the weights' sum, which stand for s = 1."""
        return {"sum": jnp.full((), TINY), "weight": jnp.full((), TINY)}

    def settle(
        self, carried: dict[str, Array], out: Float[Array, "b ..."], x: Float[Array, "b ..."]
    ) -> tuple[_Isotropic, dict[str, Array]]:
        """See `Settled`."""
        variance = jax.lax.stop_gradient(jnp.mean((x - out) ** 2)) + TINY
        now = {"sum": variance, "weight": jnp.ones(())}
        mixed = jax.tree.map(lambda old, new: self.decay * old + (1.0 - self.decay) * new, carried, now)
        return _Isotropic(0.5 * jnp.log(variance), self.noisy), mixed

    def settled(self, carried: dict[str, Array]) -> _Isotropic:
        """See `Settled`."""
        return _Isotropic(0.5 * jnp.log(carried["sum"] / carried["weight"]), self.noisy)


@dataclass(frozen=True)
class DiscretizedLogistic:
    """A logistic distribution's mass in each value's cell, the outermost reaching to infinity.

    Attributes:
        levels: L, at least 2: `Scale(0, L - 1)` brings integers to the values meant here.
        noisy: samples are draws; else they are means of the logistic distribution, within [-1, 1].
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
    """A probability for each value of each dimension.

    Attributes:
        levels: L, at least 2: `Scale(0, L - 1)` brings integers to the values meant here.
        noisy: samples are draws; else they are means.
    """

    levels: int = 256
    noisy: bool = False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """L logits for each dimension, along the last axis."""
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
    """The integer 0 ... L - 1 of each value in [-1, 1], rounded.

    Raises:
        UserError: there are fewer than two levels.
    """
    if levels < 2:
        raise UserError(f"levels={levels} must be the number of values of the data, at least 2")
    return jnp.clip(jnp.round((x + 1.0) * (0.5 * (levels - 1))).astype(jnp.int32), 0, levels - 1)


def from_integers(x: Int[Array, "..."], levels: int) -> Float[Array, "..."]:
    """The value in [-1, 1] of each integer 0 ... L - 1."""
    return x.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0
