"""Bounds on log p(x) from samples of a posterior q(z|x), their gradient estimators, and penalties on the KL term.

With k draws z_i ~ q(z|x) and w_i = p(x|z_i) p(z_i) / q(z_i|x):

    ELBO    E [ log p(x|z) ] - KL( q(z|x) || p(z) )                   (Kingma & Welling 2014, arXiv:1312.6114, eq. 3)
    IWAE    E [ log (1/k) sum_i w_i ]                                 (Burda et al. 2016, arXiv:1509.00519, eq. 8)

and ELBO = IWAE-1 <= IWAE-k <= IWAE-(k+1) <= log p(x). DReG has IWAE's value and its decoder gradient; the gradient in
the posterior's parameters phi is reparameterised a second time: lower variance, and a signal-to-noise ratio that does
not vanish as k grows,

    sum_i W_i^2 (d log w_i / d z_i) (d z_i / d phi),   W_i = w_i / sum_j w_j     (Tucker et al. 2019, arXiv:1810.04152),

where q's own parameters in log w_i are constants. Penalties that replace the ELBO's KL in training (nats):

    Beta       beta KL; beta rises linearly from 0 over `warmup` steps    (Higgins et al. 2017; Bowman et al. 2016)
    Capacity   gamma | KL - C |; C rises linearly from 0                  (Burgess et al. 2018, arXiv:1804.03599, eq. 8)
    FreeBits   sum_g max( lambda, mean over the batch of KL_g )           (Kingma et al. 2016, arXiv:1606.04934, eq. 15)

Penalties on the aggregate posterior are in `aggregate`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, named, record
from genjax.distributions.gaussian import log_normal

CHUNK = 50  # importance samples per example held in memory at once
Latents = Float[Array, "b *latent"]
Groups = Float[Array, "b g"]
Step = Int[Array, ""] | None  # training step; None in evaluation


@record
class Terms:
    """The terms of a bound: k posterior draws for each example, in nats.

    Attributes:
        log_likelihood: log p(x|z).
        log_ratio: log p(z) - log q(z|x).
        kl: KL(q || p) by groups of latents, in closed form or estimated.
        z: the posterior's draws [b, k, *latent]; None where there is more than one latent (a ladder).
        mean: of q(z|x), [b, *latent], or None.
        log_std: log standard deviation of q(z|x), [b, *latent], or None.
        prior: draws from p(z), shaped as z, in the loss; else None.
    """

    log_likelihood: Float[Array, "b k"]
    log_ratio: Float[Array, "b k"]
    kl: Groups
    z: PyTree = None
    mean: PyTree = None
    log_std: PyTree = None
    prior: PyTree = None


def progress(step: Step, steps: int) -> Float[Array, ""]:
    """Completed share of a schedule of `steps` steps: 0 at step 0, rising linearly to 1; 1 in evaluation."""
    if step is None or not steps:
        return jnp.ones(())
    return jnp.minimum(1.0, step.astype(jnp.float32) / steps)


@runtime_checkable
class Penalty(Protocol):
    """The KL term of the training loss."""

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """Nats, mean over the batch, from the terms of the bound."""
        ...


@dataclass(frozen=True)
class Beta:
    """beta KL.

    Attributes:
        beta: the weight; 1 gives the bound.
        warmup: steps over which it rises from 0 (KL annealing).
    """

    beta: float = 1.0
    warmup: int = 0

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`."""
        return self.beta * progress(step, self.warmup) * jnp.mean(jnp.sum(terms.kl, axis=1))


@dataclass(frozen=True)
class Capacity:
    """gamma | KL - C |: pulls the batch's mean KL to a capacity C.

    Attributes:
        gamma: weight.
        nats: final C.
        steps: over which C rises from 0.
    """

    gamma: float = 100.0
    nats: float = 25.0
    steps: int = 1000

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`."""
        return self.gamma * jnp.abs(
            jnp.mean(jnp.sum(terms.kl, axis=1)) - self.nats * progress(step, self.steps)
        )


@dataclass(frozen=True)
class FreeBits:
    """max(KL, `nats`) for each group of latents: no gradient below the threshold.

    The maximum is of the KL's mean over a batch, and so not linear in the batch: micro-batches and replicas average
    their own maxima, and accumulation is not exact.

    A group is a latent dimension if the prior's KL is known in closed form, a level of a ladder, else all latents.

    Attributes:
        nats: lambda, for each group.
    """

    nats: float = 0.25

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`."""
        return jnp.sum(jnp.maximum(self.nats, jnp.mean(terms.kl, axis=0)))


def reparameterise(
    mean: Latents, log_std: Latents, key: Key, samples: int
) -> tuple[Float[Array, "b k *latent"], Float[Array, "b k"]]:
    """z = mean + std eps and log q(z|x), `samples` times for each example (Kingma & Welling 2014, section 2.4).

    Args:
        mean: of q(z|x), [b, *latent].
        log_std: log standard deviation of q(z|x), [b, *latent].
        key: typed PRNG key.
        samples: k.

    Returns:
        (z [b, k, *latent], log q(z|x) [b, k] in nats).
    """
    eps = jax.random.normal(key, (len(mean), samples, *mean.shape[1:]))
    z = mean[:, None] + jnp.exp(log_std)[:, None] * eps
    return z, _log_q(z, mean, log_std)


def _log_q(z: Array, mean: Array, log_std: Array) -> Array:
    each = log_normal(z, mean[:, None], log_std[:, None])
    return jnp.sum(each, axis=tuple(range(2, each.ndim)))


@jax.custom_vjp
def _weigh_gradient(z: Array) -> tuple[Array, Array]:
    """z unchanged, and zeros [b, k] to add to the log-weights: the gradient of the zeros, W, multiplies that of z."""
    return z, jnp.zeros(z.shape[:2])


def _weigh_forward(z: Array) -> tuple[tuple[Array, Array], None]:
    return _weigh_gradient(z), None


def _weigh_backward(_: None, gradients: tuple[Array, Array]) -> tuple[Array]:
    of_z, of_weights = gradients
    share = of_weights / jnp.sum(of_weights, axis=1, keepdims=True)
    return (of_z * share.reshape(share.shape + (1,) * (of_z.ndim - 2)),)


_weigh_gradient.defvjp(_weigh_forward, _weigh_backward)


@runtime_checkable
class Bound(Protocol):
    """A training objective: k posterior draws for each example, and the loss computed from them."""

    @property
    def samples(self) -> int:
        """k."""
        ...

    def draw(
        self, mean: Latents, log_std: Latents, key: Key
    ) -> tuple[Float[Array, "b k *latent"], Float[Array, "b k"]]:
        """Draws from the posterior.

        Args:
            mean: of q(z|x), [b, *latent].
            log_std: log standard deviation of q(z|x), [b, *latent].
            key: typed PRNG key.

        Returns:
            (z [b, k, *latent], log q(z|x) [b, k] in nats).
        """
        ...

    def loss(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """Nats per example, mean over the batch."""
        ...


@dataclass(frozen=True)
class ELBO:
    """The evidence lower bound, its KL replaced by a penalty.

    Attributes:
        penalty: `Beta()` keeps the bound.
        samples: draws of z for each example, averaged.
    """

    penalty: Penalty = Beta()
    samples: int = 1

    def draw(
        self, mean: Latents, log_std: Latents, key: Key
    ) -> tuple[Float[Array, "b k *latent"], Float[Array, "b k"]]:
        """See `Bound.draw`."""
        return reparameterise(mean, log_std, key, self.samples)

    def loss(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """-E_q[log p(x|z)] + penalty."""
        return self.penalty.cost(terms, step) - jnp.mean(terms.log_likelihood)


@dataclass(frozen=True)
class IWAE:
    """The importance-weighted bound, with the standard reparameterisation gradient.

    Attributes:
        samples: k.
    """

    samples: int = 5

    def draw(
        self, mean: Latents, log_std: Latents, key: Key
    ) -> tuple[Float[Array, "b k *latent"], Float[Array, "b k"]]:
        """See `Bound.draw`."""
        return reparameterise(mean, log_std, key, self.samples)

    def loss(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """-log (1/k) sum w."""
        return -jnp.mean(log_mean_exp(terms.log_likelihood + terms.log_ratio))


@dataclass(frozen=True)
class DReG:
    """The importance-weighted bound with the doubly reparameterised gradient of q's parameters.

    Attributes:
        samples: k.
    """

    samples: int = 5

    def draw(
        self, mean: Latents, log_std: Latents, key: Key
    ) -> tuple[Float[Array, "b k *latent"], Float[Array, "b k"]]:
        """See `Bound.draw`."""
        z, _ = reparameterise(mean, log_std, key, self.samples)
        z, zeros = _weigh_gradient(z)
        return z, _log_q(z, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(log_std)) + zeros

    def loss(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """-log (1/k) sum w."""
        return -jnp.mean(log_mean_exp(terms.log_likelihood + terms.log_ratio))


def log_mean_exp(log_weights: Float[Array, "b k"]) -> Float[Array, " b"]:
    """log (1/k) sum_i exp(log_weights_i)."""
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(float(log_weights.shape[1]))


def importance_bound(
    log_weights: Callable[[Key, int], Float[Array, "b k"]], key: Key, samples: int
) -> Float[Array, " b"]:
    """log (1/k) sum_i w_i for any k, in chunks of `CHUNK` draws (Burda et al. 2016, eq. 8).

    Args:
        log_weights: (key, k) -> log w of k draws for each example, nats [b, k].
        key: typed PRNG key.
        samples: k.

    Returns:
        Nats [b]: in expectation a lower bound on log p(x), tight as k grows.
    """
    whole, rest = divmod(samples, CHUNK)
    sums = []
    if rest:
        sums.append(jax.nn.logsumexp(log_weights(named(key, "rest"), rest), axis=1))
    if whole:
        part = lambda index: log_weights(jax.random.fold_in(key, index), CHUNK)
        add = lambda total, index: (jnp.logaddexp(total, jax.nn.logsumexp(part(index), axis=1)), None)
        first = jax.nn.logsumexp(part(0), axis=1)
        sums.append(jax.lax.scan(add, first, jnp.arange(1, whole))[0])
    total = sums[0] if len(sums) == 1 else jnp.logaddexp(*sums)
    return total - jnp.log(float(samples))


def bound_kind(samples: int) -> str:
    """Name of the bound with k draws: "lower bound (ELBO)", "lower bound (IWAE-k)"."""
    return "lower bound (ELBO)" if samples == 1 else f"lower bound (IWAE-{samples})"
