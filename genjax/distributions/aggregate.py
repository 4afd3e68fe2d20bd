"""Penalties of a VAE's training on the aggregate posterior q(z) = E_x q(z|x), in place of the ELBO's KL (nats).

    BetaTCVAE  alpha I(z; x) + beta TC(z) + gamma sum_j KL( q(z_j) || p(z_j) )     Chen et al. 2018, arXiv:1802.04942
    MMD        (1 - alpha) KL + (alpha + lambda - 1) MMD^2( q(z), p(z) )           Zhao et al. 2017, arXiv:1706.02262
    DIPVAE     KL + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2  Kumar et al. 2018, arXiv:1711.00848

KL is the mean of KL( q(z|x) || p(z) ). q(z) is estimated from the batch that the loss is given, a micro-batch or the
share of a replica included. The reported likelihood stays the plain bound.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.distributions.elbo import Step, Terms
from genjax.distributions.gaussian import log_normal

Points = Float[Array, "n d"]


def _flat(x: Array, batch_dims: int) -> Array:
    return x.reshape(*x.shape[:batch_dims], -1)


def _require(given: bool, name: str) -> None:
    if not given:
        raise UserError(
            f"the penalty {name} requires one Gaussian posterior of all latents: use Beta or FreeBits"
        )


def decompose(terms: Terms, size: int) -> tuple[Array, Array, Array]:
    """The KL's three parts by minibatch-weighted sampling (Chen et al. 2018, eq. 2 and 10).

        log q(z) ~ log 1/(N M) sum_m q(z|x_m),      log q(z_j) ~ log 1/(N M) sum_m q(z_j|x_m)

    for a batch of M examples. With N = 1 and the whole data set as the batch the sums are exact.

    Args:
        terms: with z, mean and log_std.
        size: N, the number of training examples.

    Returns:
        (index-code mutual information, total correlation, dimension-wise KL), scalars whose sum is the mean of
        log q(z|x) - log p(z) over the draws.
    """
    z, mean, log_std = _flat(terms.z, 2), _flat(terms.mean, 1), _flat(terms.log_std, 1)
    each = log_normal(z[:, :, None], mean[None, None], log_std[None, None])  # [b, k, m, d]
    weight = jnp.log(float(size * len(mean)))
    given = jnp.sum(log_normal(z, mean[:, None], log_std[:, None]), axis=-1)
    joint = jax.nn.logsumexp(jnp.sum(each, axis=-1), axis=-1) - weight
    marginals = jnp.sum(jax.nn.logsumexp(each, axis=2) - weight, axis=-1)
    prior = terms.log_ratio + given
    return jnp.mean(given - joint), jnp.mean(joint - marginals), jnp.mean(marginals - prior)


@dataclass(frozen=True)
class BetaTCVAE:
    """Weights the three parts of the KL; beta > 1 asks for independent latents, without a loss of information on x.

    Attributes:
        size: N, the number of training examples.
        alpha: weight of the mutual information of z and the example's index.
        beta: weight of the total correlation.
        gamma: weight of the dimension-wise KL.
    """

    size: int
    alpha: float = 1.0
    beta: float = 6.0
    gamma: float = 1.0

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`."""
        _require(terms.mean is not None, "BetaTCVAE")
        information, correlation, dimensions = decompose(terms, self.size)
        return self.alpha * information + self.beta * correlation + self.gamma * dimensions


def squared_mmd(
    x: Points, y: Points, kernel: Literal["gaussian", "multiquadric"], scale: float
) -> Float[Array, ""]:
    """The unbiased estimate of MMD^2 (Gretton et al. 2012, eq. 3).

    Args:
        x: n points [n, d], n at least 2.
        y: n points [n, d].
        kernel: "gaussian", exp(-r^2 / C), or "multiquadric", C / (C + r^2), with C = 2 d scale^2.
        scale: 1 makes C the mean squared distance of two draws from N(0, I).

    Returns:
        A scalar, 0 in expectation for equal distributions; it can be negative.
    """
    width = 2.0 * x.shape[1] * scale**2

    def similarity(a: Points, b: Points) -> Float[Array, "n n"]:
        squares = jnp.sum((a[:, None] - b[None]) ** 2, axis=-1)
        return jnp.exp(-squares / width) if kernel == "gaussian" else width / (width + squares)

    def within(a: Points) -> Float[Array, ""]:
        pairs = similarity(a, a)
        return (jnp.sum(pairs) - jnp.trace(pairs)) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2.0 * jnp.mean(similarity(x, y))


@dataclass(frozen=True)
class MMD:
    """InfoVAE: matches q(z) to the prior, of which as many points are drawn; the defaults are the paper's MMD-VAE.

    Attributes:
        alpha: 1 leaves the KL of each example out, 0 keeps it.
        weight: lambda.
        kernel: see `squared_mmd`.
        scale: of the kernel, see `squared_mmd`.
    """

    alpha: float = 1.0
    weight: float = 1000.0
    kernel: Literal["gaussian", "multiquadric"] = "gaussian"
    scale: float = 1.0

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`; the mean over the k draws."""
        _require(terms.z is not None and terms.prior is not None, "MMD")
        if len(terms.z) < 2:
            raise UserError("the penalty MMD requires batches of at least 2 examples")
        distance = lambda x, y: squared_mmd(x, y, self.kernel, self.scale)
        mmd = jnp.mean(jax.vmap(distance, in_axes=1)(_flat(terms.z, 2), _flat(terms.prior, 2)))
        kl = jnp.mean(jnp.sum(terms.kl, axis=1))
        return (1.0 - self.alpha) * kl + (self.alpha + self.weight - 1.0) * mmd


@dataclass(frozen=True)
class DIPVAE:
    """Pulls a covariance C of the latents to the identity.

    Attributes:
        kind: "I": C is the covariance of the posterior means; "II": of z, the mean posterior variance added.
        off_diagonal: weight of C_ij^2, i != j.
        diagonal: weight of (C_ii - 1)^2; the paper takes 10 times `off_diagonal` for I, as much for II.
    """

    kind: Literal["I", "II"] = "I"
    off_diagonal: float = 10.0
    diagonal: float = 100.0

    def cost(self, terms: Terms, step: Step) -> Float[Array, ""]:
        """See `Penalty.cost`."""
        _require(terms.mean is not None, "DIPVAE")
        mean = _flat(terms.mean, 1)
        centred = mean - jnp.mean(mean, axis=0, keepdims=True)
        covariance = centred.T @ centred / len(mean)
        if self.kind == "II":
            covariance = covariance + jnp.diag(jnp.mean(jnp.exp(2.0 * _flat(terms.log_std, 1)), axis=0))
        variances = jnp.diagonal(covariance)
        off = jnp.sum(covariance**2) - jnp.sum(variances**2)
        spread = jnp.sum((variances - 1.0) ** 2)
        return jnp.mean(jnp.sum(terms.kl, axis=1)) + self.off_diagonal * off + self.diagonal * spread
