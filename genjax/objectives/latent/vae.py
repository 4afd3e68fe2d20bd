"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) with a Gaussian posterior.

ELBO(x) = E_{q(z|x)} [ log p(x|z) ] - KL( q(z|x) || p(z) )  <=  log p(x),      q(z|x) = N(mean, exp(2 log_std)).

The likelihood p(x|z), the prior p(z) and the training bound (beta-VAE, capacity, free bits, IWAE, DReG) are parts:
`likelihoods`, `priors`, `elbo`. With labels c both networks are conditioned on c: p(x|z, c), q(z|x, c) (Sohn et al.
2015).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import condition_vector
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling, levels_of
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.distributions import likelihoods
from genjax.distributions.elbo import ELBO, Bound, Terms, bound_kind, importance_bound, reparameterise
from genjax.distributions.likelihoods import Bernoulli, FittedScale, Gaussian, Likelihood
from genjax.distributions.priors import HasKL, Normal, Prior
from genjax.objectives.common import check_shape

__all__ = ["VAE", "Bernoulli", "Gaussian"]

Latents = Float[Array, "b *latent"]


@dataclass(frozen=True)
class VAE:
    """Encoder and decoder trained jointly on a lower bound on log p(x).

    Attributes:
        encoder: called as encoder(x, None, cond, out=...); outputs mean and log_std of q(z|x) along the last axis.
        decoder: called as decoder(z, None, cond, out=likelihood.outputs(shape)).
        shape: of one example.
        latent: shape of z; an int for a vector.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        likelihood: p(x|z).
        prior: p(z).
        bound: the training bound.
        samples: draws of z per example in `log_prob`: 1 gives the ELBO, k the importance-weighted bound.
    """

    encoder: Network
    decoder: Network
    shape: tuple[int, ...]
    latent: int | tuple[int, ...] = 16
    condition: Conditioner | None = None
    likelihood: Likelihood | FittedScale = Gaussian()
    prior: Prior = Normal()
    bound: Bound = ELBO()
    samples: int = tunable(1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one example's z."""
        return (self.latent,) if isinstance(self.latent, int) else self.latent

    @property
    def values(self) -> int:
        """0: z is continuous."""
        return 0

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises the player `vae`: encoder, decoder and prior."""
        check_shape(self.shape, batch, self.condition)
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        z, out = jnp.zeros((len(x), *self.latent_shape)), self.likelihood.outputs(self.shape)
        params = {
            "encoder": self.encoder.init(named(key, "encoder"), x, None, cond, out=self._moments),
            "decoder": self.decoder.init(named(key, "decoder"), z, None, cond, out=out),
        }
        prior = self.prior.init(named(key, "prior"), x, self.latent_shape)
        if prior:
            params["prior"] = prior
        return {"vae": params}, likelihoods.init_extra(self.likelihood)

    def players(self) -> Mapping[str, Player]:
        """One player, `vae`."""
        return {"vae": Player(self.loss)}

    @property
    def _moments(self) -> tuple[int, ...]:
        return (*self.latent_shape[:-1], 2 * self.latent_shape[-1])

    def posterior(self, params: Params, x: Array, cond: Array | None = None) -> tuple[Latents, Latents]:
        """Parameters of q(z|x).

        Args:
            params: parameters by player.
            x: data [b, *shape].
            cond: conditioning vectors [b, classes], or None.

        Returns:
            (mean, log standard deviation), each [b, *latent].
        """
        out = self.encoder.apply(params["vae"]["encoder"], x, None, cond, out=self._moments)
        mean, log_std = jnp.split(out, 2, axis=-1)
        return mean, log_std

    def outputs(self, params: Params, z: Latents, cond: Array | None = None) -> Array:
        """Applies the decoder.

        Args:
            params: parameters by player.
            z: latents [b, *latent].
            cond: conditioning vectors [b, classes], or None.

        Returns:
            The likelihood's parameters [b, *likelihood.outputs(shape)].
        """
        out = self.likelihood.outputs(self.shape)
        return self.decoder.apply(params["vae"]["decoder"], z, None, cond, out=out)

    def _log_prior(self, params: Params, z: Latents) -> Float[Array, " b"]:
        return self.prior.log_prob(self._prior(params), z, lambda x: self._unlabelled(params, x))

    def _draw_prior(self, params: Params, key: Key, num: int) -> Latents:
        posterior = lambda x: self._unlabelled(params, x)
        return self.prior.sample(self._prior(params), key, num, self.latent_shape, posterior)

    def _prior(self, params: Params) -> PyTree:
        return params["vae"].get("prior", {})

    def _unlabelled(self, params: Params, x: Array) -> tuple[Latents, Latents]:
        return self.posterior(params, x, condition_vector(self.condition, None, len(x)))

    def terms(
        self, params: Params, extra: Extra, batch: Batch, key: Key, bound: Bound, train: bool = False
    ) -> tuple[Terms, dict[str, PyTree]]:
        """Draws from the posterior and evaluates the terms of the bound.

        Args:
            params: parameters by player.
            extra: the likelihood's carried state, if any.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            key: typed PRNG key.
            bound: determines the number of draws and their gradient.
            train: whether a `FittedScale` likelihood is fitted to the batch.

        Returns:
            (terms, new entries of extra).
        """
        x, k = batch["x"], bound.samples
        cond = condition_vector(self.condition, batch, len(x))
        mean, log_std = self.posterior(params, x, cond)
        z, log_q = bound.draw(mean, log_std, key)
        z = z.reshape(-1, *self.latent_shape)
        each = lambda rows: rows if k == 1 or rows is None else jnp.repeat(rows, k, axis=0)
        out = self.outputs(params, z, each(cond))
        likelihood, carried = likelihoods.fit_scale(self.likelihood, extra, out, each(x), train)
        log_likelihood = likelihood.log_prob(out, each(x)).reshape(-1, k)
        log_ratio = self._log_prior(params, z).reshape(-1, k) - log_q
        if isinstance(self.prior, HasKL):
            kl = self.prior.kl(self._prior(params), mean, log_std)
        else:
            kl = -jnp.mean(log_ratio, axis=1, keepdims=True)
        z = z.reshape(len(x), k, *self.latent_shape)
        return Terms(log_likelihood, log_ratio, kl, z, mean, log_std), carried

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The loss of `bound`, mean over the batch, nats.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics and new extra).
        """
        key = named(ctx.key, "posterior")
        terms, carried = self.terms(params, extra, batch, key, self.bound, ctx.train)
        drawn = self._draw_prior(params, named(ctx.key, "prior"), terms.z.shape[0] * terms.z.shape[1])
        terms = dataclasses.replace(terms, prior=drawn.reshape(terms.z.shape))
        loss = self.bound.loss(terms, ctx.step if ctx.train else None)
        kl = jnp.mean(jnp.sum(terms.kl, axis=1))
        return loss, Aux({"kl": kl, "elbo": jnp.mean(terms.log_likelihood) - kl}, carried)

    @property
    def levels(self) -> int:
        """Those of the likelihood, see `core.objective.HasLevels`."""
        return levels_of(self.likelihood)

    @property
    def log_prob_kind(self) -> str:
        """A lower bound; the kind depends on `samples`."""
        return bound_kind(self.samples)

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """The ELBO from one draw, or the importance-weighted bound from `samples` draws.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            key: typed PRNG key.

        Returns:
            Nats [b].
        """
        if self.samples == 1:
            terms = self.terms(params, extra, batch, key, ELBO())[0]
            return terms.log_likelihood[:, 0] - jnp.sum(terms.kl, axis=1)

        def log_weights(key: Key, samples: int) -> Float[Array, "b k"]:
            terms = self.terms(params, extra, batch, key, ELBO(samples=samples))[0]
            return terms.log_likelihood + terms.log_ratio

        return importance_bound(log_weights, key, self.samples)

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Decodes draws from the prior.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: `"label"` int32 [num], or None to sample unconditionally.

        Returns:
            [num, *shape].
        """
        z = self._draw_prior(params, named(key, "prior"), num)
        return self.decode(params, extra, z, key, cond)

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Latents:
        """Draws z from q(z|x).

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            key: typed PRNG key.

        Returns:
            z [b, *latent].
        """
        mean, log_std = self.posterior(
            params, batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        )
        return reparameterise(mean, log_std, key, 1)[0][:, 0]

    def decode(
        self, params: Params, extra: Extra, z: Latents, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples from p(x|z): its mean, unless the likelihood is `noisy`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: latents [b, *latent].
            key: typed PRNG key.
            cond: `"label"` int32 [b], or None.

        Returns:
            [b, *shape].
        """
        out = self.outputs(params, z, condition_vector(self.condition, cond, len(z)))
        return likelihoods.fitted(self.likelihood, extra).sample(out, named(key, "likelihood"))

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Latents, Float[Array, " b"]]:
        """Draws z from q(z|x); adding a log p(z) to the second output gives a lower bound on log p(x).

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            key: typed PRNG key.

        Returns:
            (z [b, *latent], log p(x|z) - log q(z|x) in nats [b]).
        """
        labels = condition_vector(self.condition, batch, len(batch["x"]))
        z, log_q = reparameterise(*self.posterior(params, batch["x"], labels), key, 1)
        out = self.outputs(params, z[:, 0], labels)
        likelihood = likelihoods.fitted(self.likelihood, extra)
        return z[:, 0], likelihood.log_prob(out, batch["x"]) - log_q[:, 0]
