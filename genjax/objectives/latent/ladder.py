"""Hierarchical VAE: latents z_1, ..., z_L from the coarsest to the finest (VDVAE, Child 2021, arXiv:2011.10650).

    p(x, z) = p(x|z) prod_l p(z_l | z_<l),       q(z|x) = prod_l q(z_l | z_<l, x),
    ELBO    = E_q [ log p(x|z) - sum_l KL( q(z_l | z_<l, x) || p(z_l | z_<l) ) ]                        (eq. 3-4)

Each KL is between Gaussians, in closed form given the sampled z_<l. Sampling at temperature T multiplies the standard
deviations of all p(z_l | z_<l) by T.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import condition_vector
from genjax.core.arrays import sum_dims
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling, levels_of
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions import likelihoods
from genjax.distributions.elbo import Beta, Penalty, Terms, bound_kind, importance_bound
from genjax.distributions.gaussian import gaussian_kl, log_normal
from genjax.distributions.likelihoods import FittedScale, Gaussian, Likelihood
from genjax.networks.convolutional.ladder import Moments
from genjax.objectives.common import check_shape


@dataclass(frozen=True)
class LadderVAE:
    """Hierarchical latent-variable model trained on the evidence lower bound.

    Attributes:
        net: a `Ladder`, called as net(x or None, None, cond, out=..., draw=..., num=...).
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        likelihood: p(x|z).
        penalty: KL term of the training loss; its groups are the levels. Those of the aggregate posterior raise.
        samples: draws of z per example in `log_prob`: 1 gives the ELBO, k the importance-weighted bound.
        temperature: T, when sampling.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    likelihood: Likelihood | FittedScale = Gaussian()
    penalty: Penalty = Beta()
    samples: int = tunable(1)
    temperature: float = tunable(1.0)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises the player `net`."""
        check_shape(self.shape, batch, self.condition)
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        draw = lambda level, prior, posterior: posterior.mean
        out = self.likelihood.outputs(self.shape)
        params = self.net.init(key, x, None, cond, out=out, draw=draw)
        return {"net": params}, likelihoods.init_extra(self.likelihood)

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def infer(
        self, params: Params, x: Float[Array, "b ..."], cond: Array | None, key: Key
    ) -> tuple[Array, Float[Array, "b l"], Float[Array, " b"]]:
        """Draws all latents from their posteriors.

        Args:
            params: parameters by player.
            x: data [b, *shape].
            cond: conditioning vectors [b, classes], or None.
            key: typed PRNG key.

        Returns:
            (the likelihood's parameters, KL of each level [b, l], log p(z) - log q(z|x) [b]), the last two in
            nats.
        """
        kl, log_ratio = [], []

        def draw(level: int, prior: Moments, posterior: Moments) -> Array:
            mean, log_std = posterior
            noise = jax.random.normal(jax.random.fold_in(key, level), mean.shape)
            z = mean + jnp.exp(log_std) * noise
            kl.append(sum_dims(gaussian_kl(mean - prior.mean, 2.0 * log_std, 2.0 * prior.log_std)))
            log_ratio.append(sum_dims(log_normal(z, *prior) - log_normal(z, *posterior)))
            return z

        outputs = self.likelihood.outputs(self.shape)
        out = self.net.apply(params["net"], x, None, cond, out=outputs, draw=draw)
        return out, jnp.stack(kl, axis=1), sum(log_ratio[1:], log_ratio[0])

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """-E_q[log p(x|z)] + penalty, mean over the batch, nats.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics and new extra).
        """
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        out, kl, log_ratio = self.infer(params, x, cond, named(ctx.key, "posterior"))
        likelihood, carried = likelihoods.fit_scale(self.likelihood, extra, out, x, ctx.train)
        terms = Terms(likelihood.log_prob(out, x)[:, None], log_ratio[:, None], kl)
        reconstruction = jnp.mean(terms.log_likelihood)
        levels = {f"kl_{level}": jnp.mean(kl[:, level]) for level in range(kl.shape[1])}
        cost = self.penalty.cost(terms, ctx.step if ctx.train else None)
        elbo = reconstruction - jnp.mean(jnp.sum(kl, axis=1))
        return cost - reconstruction, Aux({"elbo": elbo, **levels}, carried)

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
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        likelihood = likelihoods.fitted(self.likelihood, extra)
        if self.samples == 1:
            out, kl, _ = self.infer(params, x, cond, key)
            return likelihood.log_prob(out, x) - jnp.sum(kl, axis=1)

        def log_weights(key: Key, samples: int) -> Float[Array, "b k"]:
            rows = jnp.repeat(x, samples, axis=0)
            labels = None if cond is None else jnp.repeat(cond, samples, axis=0)
            out, _, log_ratio = self.infer(params, rows, labels, key)
            return (likelihood.log_prob(out, rows) + log_ratio).reshape(-1, samples)

        return importance_bound(log_weights, key, self.samples)

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Draws all latents from their priors and decodes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: `"label"` int32 [num], or None to sample unconditionally.

        Returns:
            [num, *shape].
        """

        def draw(level: int, prior: Moments, posterior: None) -> Array:
            noise = jax.random.normal(jax.random.fold_in(named(key, "prior"), level), prior.mean.shape)
            return prior.mean + self.temperature * jnp.exp(prior.log_std) * noise

        labels, outputs = condition_vector(self.condition, cond, num), self.likelihood.outputs(self.shape)
        out = self.net.apply(params["net"], None, None, labels, out=outputs, draw=draw, num=num)
        return likelihoods.fitted(self.likelihood, extra).sample(out, named(key, "likelihood"))
