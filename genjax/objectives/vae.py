"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) with a Gaussian posterior.

ELBO(x) = E_{q(z|x)} [ log p(x|z) ] - KL( q(z|x) || p(z) )  <=  log p(x),
loss    = - E_q [ log p(x|z) ] + beta KL          (nats per example; beta: Higgins et al. 2017)

q(z|x) = N(mean, exp(2 log_std)),  p(z) = N(0, I),
KL     = sum_i ( mean_i^2 + std_i^2 - 1 ) / 2 - log std_i.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.objective import Aux, Context, Network, Player
from genjax.objectives.common import check_shape, condition, sum_dims
from genjax.types import Array, Batch, Extra, Key, Params, named

LOG_TAU = math.log(2.0 * math.pi)


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


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits with probability sigmoid(out); x in [0, 1], read as a probability where it is between.

    For x strictly between 0 and 1 the cross-entropy is no normalised density: binarise the data for a likelihood.
    """

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One logit for each dimension."""
        return shape

    def log_prob(self, out: Float[Array, "b ..."], x: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """x log sigmoid(out) + (1 - x) log sigmoid(-out)."""
        return sum_dims(x * jax.nn.log_sigmoid(out) + (1.0 - x) * jax.nn.log_sigmoid(-out))

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
        return sum_dims(-0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * LOG_TAU)

    def sample(self, out: Float[Array, "b ..."], key: Key) -> Float[Array, "b ..."]:
        """The mean, or with `noisy` a draw."""
        mean, log_std = self._split(out)
        return mean + self.noisy * jnp.exp(log_std) * jax.random.normal(key, mean.shape)


@dataclass(frozen=True)
class VAE:
    """Learns a code and its decoder by the evidence lower bound.

    Attributes:
        encoder: called as encoder(x, None, cond, out=2 latent), gives mean and log_std of q(z|x).
        decoder: called as decoder(z, None, cond, out=likelihood.outputs(shape)).
        shape: of one example.
        latent: dimensions of z.
        classes: number of labels that both networks are given; 0 for none.
        likelihood: p(x|z).
        beta: weight of the KL divergence in the loss; the bound itself has 1.
    """

    encoder: Network
    decoder: Network
    shape: tuple[int, ...]
    latent: int = 16
    classes: int = 0
    likelihood: Likelihood = Gaussian()
    beta: float = 1.0

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `vae`, that moves encoder and decoder together."""
        check_shape(self.shape, batch, self.classes)
        x, cond = batch["x"], condition(batch, len(batch["x"]), self.classes)
        encoder = self.encoder.init(named(key, "encoder"), x, None, cond, out=2 * self.latent)
        z = jnp.zeros((len(x), self.latent))
        decoder = self.decoder.init(
            named(key, "decoder"), z, None, cond, out=self.likelihood.outputs(self.shape)
        )
        return {"vae": {"encoder": encoder, "decoder": decoder}}, {}

    def players(self) -> Mapping[str, Player]:
        """One."""
        return {"vae": Player(self.loss)}

    def encode(self, params: Params, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Mean and log standard deviation of q(z|x), each [b, latent]."""
        out = self.encoder.apply(params["vae"]["encoder"], x, None, cond, out=2 * self.latent)
        mean, log_std = jnp.split(out, 2, axis=-1)
        return mean, log_std

    def decode(self, params: Params, z: Float[Array, "b latent"], cond: Array | None = None) -> Array:
        """The likelihood's parameters given z."""
        out = self.likelihood.outputs(self.shape)
        return self.decoder.apply(params["vae"]["decoder"], z, None, cond, out=out)

    def terms(self, params: Params, batch: Batch, key: Key) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """One-sample estimate of E_q[log p(x|z)], and KL(q || p), in nats per example."""
        cond = condition(batch, len(batch["x"]), self.classes)
        mean, log_std = self.encode(params, batch["x"], cond)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        reconstruction = self.likelihood.log_prob(self.decode(params, z, cond), batch["x"])
        return reconstruction, sum_dims(0.5 * (mean**2 + jnp.exp(2.0 * log_std) - 1.0) - log_std)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """-E_q[log p(x|z)] + beta KL, mean over the batch, nats."""
        reconstruction, kl = self.terms(params, batch, named(ctx.key, "posterior"))
        elbo = jnp.mean(reconstruction - kl)
        return jnp.mean(self.beta * kl - reconstruction), Aux({"kl": jnp.mean(kl), "elbo": elbo})

    @property
    def log_prob_kind(self) -> str:
        """One draw from the posterior for each example."""
        return "lower bound (ELBO)"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """The ELBO (beta = 1), in nats per example."""
        reconstruction, kl = self.terms(params, batch, key)
        return reconstruction - kl

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Decodes draws from the prior."""
        z = jax.random.normal(named(key, "prior"), (num, self.latent))
        labels = condition(cond, num, self.classes)
        return self.likelihood.sample(self.decode(params, z, labels), named(key, "likelihood"))
