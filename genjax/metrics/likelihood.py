"""Units of likelihood: nats, bits per dimension, perplexity, and their standard errors.

A model gives log p(z) in nats for z = f(x); per example

    log p(x) = log p(f(x)) + log |det df/dx|,        bits/dim = -log p(x) / (D ln 2).

For 8-bit values scaled to [0, 1), log |det| = -D ln 256: the uniform model then has exactly 8 bits/dim. With
discrete data uniformly dequantised, E[log p(x + u)] is a lower bound on log P(x) (Theis et al. 2016, section 3.1).

Over n examples of D_i dimensions (or tokens) the rate is R = sum_i y_i / sum_i D_i, with y_i = -log p(x_i); its
standard error is that of a ratio of means (Cochran 1977, "Sampling Techniques", chapter 2),
std(y_i - R D_i) / (sqrt(n) mean(D)), which is std(y) / (sqrt(n) D) when all D_i are equal.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from genjax.core.errors import UserError

Values = float | Real[ndarray, ""] | Real[ndarray, " n"]


def bits_per_dim(log_prob: Real[ndarray, " n"], dims: int, log_det: Values = 0.0) -> Float64[ndarray, " n"]:
    """Bits per dimension of each example.

    Args:
        log_prob: nats [n], of the examples in the model's scale.
        dims: values per example.
        log_det: nats, log |det| of the map from the data's own units to that scale; 0 for discrete models.

    Returns:
        Bits per dimension float64 [n].
    """
    return -(log_prob.astype(np.float64) + np.asarray(log_det, np.float64)) / (dims * math.log(2.0))


def scaling_log_det(scale: float, dims: int) -> float:
    """log |det| in nats of x -> scale * x + constant on `dims` values, e.g. scale = 1/256 or 2/256."""
    return dims * math.log(abs(scale))


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A likelihood over a data set, with the kind of the estimate.

    Attributes:
        kind: an objective's `log_prob_kind`: "exact", "lower bound (ELBO)", "ODE estimate (...)".
        count: number of examples.
        nats: mean log-probability per example; `nats_error` its standard error.
        nats_per_dim: negative log-probability per dimension or token; `nats_per_dim_error` its standard error.
    """

    kind: str
    count: int
    nats: float
    nats_error: float
    nats_per_dim: float
    nats_per_dim_error: float

    @property
    def bits_per_dim(self) -> float:
        """Bits per dimension (smaller is better)."""
        return self.nats_per_dim / math.log(2.0)

    @property
    def bits_per_dim_error(self) -> float:
        """Standard error of `bits_per_dim`."""
        return self.nats_per_dim_error / math.log(2.0)

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(self.nats_per_dim)

    @property
    def perplexity_error(self) -> float:
        """Standard error of `perplexity`, to first order."""
        return self.perplexity * self.nats_per_dim_error

    def __str__(self) -> str:
        return (
            f"{self.bits_per_dim:.4f} ± {self.bits_per_dim_error:.4f} bits/dim "
            f"(log-probability: {self.kind}; {self.count} examples)"
        )


def summarise(
    log_prob: Real[ndarray, " n"], dims: int | Real[ndarray, " n"], kind: str, log_det: Values = 0.0
) -> Likelihood:
    """Means and standard errors over examples.

    Args:
        log_prob: nats per example [n], in the model's scale.
        dims: values (or predicted tokens) per example, a scalar or [n].
        kind: kind of the log-probability, see `Likelihood`.
        log_det: nats, see `bits_per_dim`.

    Returns:
        Means and standard errors; rates by the ratio-of-means formula of the module.

    Raises:
        UserError: fewer than two examples, or log-probabilities that are NaN or infinite.
    """
    if len(log_prob) < 2:
        raise UserError(f"a standard error needs at least 2 examples, got {len(log_prob)}")
    values = log_prob.astype(np.float64) + np.asarray(log_det, np.float64)
    if not np.isfinite(values).all():
        raise UserError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} log-probabilities are NaN or infinite"
        )
    sizes = np.broadcast_to(np.asarray(dims, np.float64), values.shape)
    rate = float(-values.sum() / sizes.sum())
    root = math.sqrt(len(values))
    return Likelihood(
        kind=kind,
        count=len(values),
        nats=float(values.mean()),
        nats_error=float(values.std(ddof=1)) / root,
        nats_per_dim=rate,
        nats_per_dim_error=float(np.std(-values - rate * sizes, ddof=1)) / (root * float(sizes.mean())),
    )
