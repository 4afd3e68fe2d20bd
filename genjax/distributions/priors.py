"""Priors p(z) of latent-variable models.

    Normal     N(0, I)
    Mixture    sum_k pi_k N(m_k, diag s_k^2), trained
    VampPrior  1/K sum_k q(z | u_k): the mixture of posteriors at K trained pseudo-inputs u_k
               (Tomczak & Welling 2018, arXiv:1705.07120, eq. 9)
    FlowPrior  p_0(f(z)) |det df/dz|, f a trained bijector; an autoregressive f gives an autoregressive prior
               (Chen et al. 2017, arXiv:1611.02731, section 3.2)

In a class-conditional model the prior does not depend on the label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.types import Array, Key, PyTree, named
from genjax.distributions.flows import base
from genjax.distributions.flows.base import Base
from genjax.distributions.flows.bijector import Bijector
from genjax.distributions.gaussian import gaussian_kl, log_normal

Latents = Float[Array, "b *latent"]
Posterior = Callable[[Array], tuple[Array, Array]]  # data -> mean and log std of q(z|x), unconditional


@runtime_checkable
class Prior(Protocol):
    """p(z), with or without trained parameters."""

    def init(self, key: Key, x: Float[Array, "b ..."], latent: tuple[int, ...]) -> PyTree:
        """Initialises the prior's parameters.

        Args:
            key: typed PRNG key.
            x: a batch of data [b, ...].
            latent: shape of one example's z.

        Returns:
            Parameters; {} for none.
        """
        ...

    def log_prob(self, params: PyTree, z: Latents, posterior: Posterior) -> Float[Array, " b"]:
        """log p(z).

        Args:
            params: the prior's.
            z: latents [b, *latent].
            posterior: data -> (mean, log std) of q(z|x), unconditional.

        Returns:
            Nats [b].
        """
        ...

    def sample(
        self, params: PyTree, key: Key, num: int, latent: tuple[int, ...], posterior: Posterior
    ) -> Latents:
        """Draws from the prior.

        Args:
            params: the prior's.
            key: typed PRNG key.
            num: number of samples.
            latent: shape of one example's z.
            posterior: data -> (mean, log std) of q(z|x), unconditional.

        Returns:
            z [num, *latent].
        """
        ...


@runtime_checkable
class HasKL(Protocol):
    """A prior with a closed-form KL divergence from a Gaussian."""

    def kl(self, params: PyTree, mean: Latents, log_std: Latents) -> Float[Array, "b g"]:
        """KL( N(mean, exp(2 log_std)) || p ) of each latent dimension.

        Args:
            params: the prior's.
            mean: [b, *latent].
            log_std: [b, *latent].

        Returns:
            Nats [b, dimensions].
        """
        ...


@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    def init(self, key: Key, x: Float[Array, "b ..."], latent: tuple[int, ...]) -> PyTree:
        """See `Prior.init`: no parameters."""
        return {}

    def log_prob(self, params: PyTree, z: Latents, posterior: Posterior) -> Float[Array, " b"]:
        """See `Prior.log_prob`."""
        return sum_dims(log_normal(z, jnp.zeros(()), jnp.zeros(())))

    def kl(self, params: PyTree, mean: Latents, log_std: Latents) -> Float[Array, "b g"]:
        """See `HasKL.kl`: (mean^2 + std^2 - 1) / 2 - log std."""
        return gaussian_kl(mean, 2.0 * log_std, jnp.zeros(())).reshape(len(mean), -1)

    def sample(
        self, params: PyTree, key: Key, num: int, latent: tuple[int, ...], posterior: Posterior
    ) -> Latents:
        """See `Prior.sample`."""
        return jax.random.normal(key, (num, *latent))


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians, trained.

    Attributes:
        components: K.
    """

    components: int = 10

    def init(self, key: Key, x: Float[Array, "b ..."], latent: tuple[int, ...]) -> PyTree:
        """See `Prior.init`: equal weights, means from N(0, I), standard deviations 1."""
        shape = (self.components, *latent)
        logits = jnp.zeros(self.components)
        return {"logits": logits, "mean": jax.random.normal(key, shape), "log_std": jnp.zeros(shape)}

    def log_prob(self, params: PyTree, z: Latents, posterior: Posterior) -> Float[Array, " b"]:
        """See `Prior.log_prob`."""
        return log_mixture(z, params["logits"], params["mean"], params["log_std"])

    def sample(
        self, params: PyTree, key: Key, num: int, latent: tuple[int, ...], posterior: Posterior
    ) -> Latents:
        """See `Prior.sample`."""
        return draw_mixture(key, num, params["logits"], params["mean"], params["log_std"])


@dataclass(frozen=True)
class VampPrior:
    """A mixture of posteriors at trained pseudo-inputs. `log_prob` needs memory for `components` times as many latents.

    Attributes:
        components: K, the number of pseudo-inputs, initialised at examples of the first batch plus a little noise.
    """

    components: int = 64

    def init(self, key: Key, x: Float[Array, "b ..."], latent: tuple[int, ...]) -> PyTree:
        """See `Prior.init`: pseudo-inputs, shaped as the data."""
        chosen = x[jnp.arange(self.components) % len(x)]
        return {"inputs": chosen + 0.01 * jax.random.normal(key, chosen.shape)}

    def log_prob(self, params: PyTree, z: Latents, posterior: Posterior) -> Float[Array, " b"]:
        """See `Prior.log_prob`."""
        return log_mixture(z, jnp.zeros(self.components), *posterior(params["inputs"]))

    def sample(
        self, params: PyTree, key: Key, num: int, latent: tuple[int, ...], posterior: Posterior
    ) -> Latents:
        """See `Prior.sample`."""
        return draw_mixture(key, num, jnp.zeros(self.components), *posterior(params["inputs"]))


@dataclass(frozen=True)
class FlowPrior:
    """A normalizing flow.

    Attributes:
        bijector: f, from latents to the base; needs an inverse and an exact log-determinant.
        base: p_0.
    """

    bijector: Bijector
    base: Base = base.Normal()

    def init(self, key: Key, x: Float[Array, "b ..."], latent: tuple[int, ...]) -> PyTree:
        """See `Prior.init`: the bijector's parameters; data-dependent ones are initialised with draws from N(0, I).

        Raises:
            UserError: the bijector's log-determinant is an estimate.
        """
        if self.bijector.estimate:
            raise UserError(
                f"a prior needs an exact density; this flow's log-determinant is estimated: {self.bijector.estimate}"
            )
        z = jax.random.normal(named(key, "latents"), (len(x), *latent))
        return self.bijector.init(named(key, "bijector"), z)

    def log_prob(self, params: PyTree, z: Latents, posterior: Posterior) -> Float[Array, " b"]:
        """See `Prior.log_prob`."""
        u, log_det = self.bijector.forward(params, z)
        return self.base.log_prob(u) + log_det

    def sample(
        self, params: PyTree, key: Key, num: int, latent: tuple[int, ...], posterior: Posterior
    ) -> Latents:
        """See `Prior.sample`."""
        return self.bijector.inverse(params, self.base.sample(key, (num, *latent)))


def log_mixture(
    z: Latents,
    logits: Float[Array, " k"],
    mean: Float[Array, "k *latent"],
    log_std: Float[Array, "k *latent"],
) -> Float[Array, " b"]:
    """log sum_k softmax(logits)_k N(z; mean_k, exp(2 log_std_k)).

    Args:
        z: points [b, *latent].
        logits: of the components [k].
        mean: [k, *latent].
        log_std: [k, *latent].

    Returns:
        Nats [b].
    """
    each = log_normal(z[:, None], mean[None], log_std[None])
    each = jnp.sum(each, axis=tuple(range(2, each.ndim)))
    return jax.nn.logsumexp(each + jax.nn.log_softmax(logits)[None], axis=1)


def draw_mixture(
    key: Key,
    num: int,
    logits: Float[Array, " k"],
    mean: Float[Array, "k *latent"],
    log_std: Float[Array, "k *latent"],
) -> Latents:
    """Draws from the mixture of `log_mixture`.

    Args:
        key: typed PRNG key.
        num: number of samples.
        logits: of the components [k].
        mean: [k, *latent].
        log_std: [k, *latent].

    Returns:
        z [num, *latent].
    """
    chosen = jax.random.categorical(named(key, "component"), logits, shape=(num,))
    noise = jax.random.normal(named(key, "noise"), (num, *mean.shape[1:]))
    return mean[chosen] + jnp.exp(log_std[chosen]) * noise
