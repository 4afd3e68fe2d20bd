"""Weights of a diffusion loss over time, independent of the parameterization.

The network's output is an affine function of eps at given (x_t, t), so the squared errors of the output, of
eps, of x_0 and of the score are the same up to a factor of time (Kingma & Gao 2023, arXiv:2303.00848):

    ||eps - eps_hat||^2 = k(t)^2 ||target - out||^2,    k = d eps / d out,
    ||eps - eps_hat||^2 = SNR ||x_0 - x0_hat||^2 = sigma^2 ||score - score_hat||^2.

A weighting gives w(t) in

    loss = E_t [ w(t) mean over dimensions of (target - out)^2 ],

for a parameterization and a process. Weightings from the literature are defined on the error of eps, w_eps, and
become w = w_eps k^2: the loss is the same for every parameterization. Non-uniform times also act as a weight:
sampling t from density pi(t) multiplies w by pi(t).

Where alpha or sigma is 0, w_eps k^2 may be infinity times 0. The same weight is w_x0 (d x_0 / d out)^2 with w_x0 = SNR
w_eps, and one of the two forms is finite wherever the limit of w exists: at t = 1 of `RectifiedFlow` `EDMLambda` on
`X0` is 1 / sigma_data^2, and `Likelihood` is 0. With `Eps` both diverge.
"""

import abc
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array
from genjax.diffusion.prediction import Parameterization
from genjax.diffusion.process import Process, derivative

Times = Float[Array, " b"]


@runtime_checkable
class Weighting(Protocol):
    """A weight for each time, on the squared error of the network's output."""

    def weight(self, process: Process, predict: Parameterization, t: Times) -> Times:
        """w(t) >= 0.

        Args:
            process: gives alpha and sigma.
            predict: the parameterization of the network's output.
            t: times [b].

        Returns:
            Weights [b].
        """
        ...


def per_output(process: Process, predict: Parameterization, t: Times) -> tuple[Times, Times]:
    """d x_0 / d out and k(t) = d eps / d out, from decoding an output of 1 at x_t = 0.

    Args:
        process: gives alpha and sigma.
        predict: the parameterization of the network's output.
        t: times [b].

    Returns:
        Both derivatives, each [b].
    """
    column = t[:, None]
    decoded = predict.decode(process, jnp.ones_like(column), jnp.zeros_like(column), t)
    return decoded.x0[:, 0], decoded.eps[:, 0]


@dataclass(frozen=True)
class Unit:
    """w = 1: the plain squared error of the output.

    DDPM's simple loss with `Eps` (Ho et al. 2020, eq. 14), flow matching's with `Velocity`, SD3's with
    `Velocity` and `LogitNormal` times, EDM's with `Preconditioned` and `LogNormalSigma` times.
    """

    def weight(self, process: Process, predict: Parameterization, t: Times) -> Times:
        """1."""
        return jnp.ones_like(t)


class EpsWeighting(abc.ABC):
    """A weight defined on the squared error of eps."""

    @abc.abstractmethod
    def on_eps(self, process: Process, t: Times) -> Times:
        """w_eps(t)."""

    def on_x0(self, process: Process, t: Times) -> Times:
        """w_x0(t) = SNR w_eps; a subclass whose w_eps is infinite or 0 at an end gives the limit."""
        return jnp.exp(process.log_snr(t)) * self.on_eps(process, t)

    def weight(self, process: Process, predict: Parameterization, t: Times) -> Times:
        """w_eps k^2; where that is not finite, as w_x0 (d x_0 / d out)^2."""
        x0, eps = per_output(process, predict, t)
        by_eps = self.on_eps(process, t) * eps**2
        return jnp.where(jnp.isfinite(by_eps), by_eps, self.on_x0(process, t) * x0**2)


@dataclass(frozen=True)
class OnEps(EpsWeighting):
    """w_eps = 1: DDPM's simple loss for every parameterization; sigma^2 on the error of the score."""

    def on_eps(self, process: Process, t: Times) -> Times:
        """1."""
        return jnp.ones_like(t)


@dataclass(frozen=True)
class Likelihood(EpsWeighting):
    """g^2 on the error of the score: w_eps = g^2 / sigma^2 = -d log SNR / dt (Song et al. 2021, arXiv:2101.09258).

    With uniform times on [0, 1] half the loss, summed over dimensions, bounds the negative log-likelihood up
    to a constant independent of the network (theorem 1; Kingma et al. 2021, arXiv:2107.00630).
    """

    def on_eps(self, process: Process, t: Times) -> Times:
        """g^2 / sigma^2."""
        return process.diffusion_squared(t) / process.sigma(t) ** 2

    def on_x0(self, process: Process, t: Times) -> Times:
        """-d SNR / dt."""
        return -derivative(lambda u: (process.alpha(u) / process.sigma(u)) ** 2, t)[1]


@dataclass(frozen=True)
class P2(EpsWeighting):
    """w_eps = 1 / (k + SNR)^gamma (Choi et al. 2022, arXiv:2204.00227)."""

    k: float = 1.0
    gamma: float = 1.0

    def on_eps(self, process: Process, t: Times) -> Times:
        """(k + SNR)^-gamma."""
        return (self.k + jnp.exp(process.log_snr(t))) ** -self.gamma

    def on_x0(self, process: Process, t: Times) -> Times:
        """SNR^(1 - gamma) (1 + k / SNR)^-gamma."""
        snr = jnp.exp(process.log_snr(t))
        return snr ** (1.0 - self.gamma) * (1.0 + self.k / snr) ** -self.gamma


@dataclass(frozen=True)
class MinSNR(EpsWeighting):
    """min(SNR, gamma) on the error of x_0: w_eps = min(1, gamma / SNR) (Hang et al. 2023, arXiv:2303.09556)."""

    gamma: float = 5.0

    def on_eps(self, process: Process, t: Times) -> Times:
        """min(1, gamma / SNR)."""
        return jnp.minimum(1.0, self.gamma * jnp.exp(-process.log_snr(t)))

    def on_x0(self, process: Process, t: Times) -> Times:
        """min(SNR, gamma)."""
        return jnp.minimum(jnp.exp(process.log_snr(t)), self.gamma)


@dataclass(frozen=True)
class EDMLambda(EpsWeighting):
    """lambda = (s^2 + sigma_data^2) / (s sigma_data)^2 on the error of x_0, s = sigma / alpha = SNR^(-1/2).

    From Karras et al. 2022 (arXiv:2206.00364, table 1); w_eps = s^2 lambda = 1 + s^2 / sigma_data^2.
    """

    sigma_data: float = 0.5

    def on_eps(self, process: Process, t: Times) -> Times:
        """1 + 1 / (SNR sigma_data^2)."""
        return 1.0 + jnp.exp(-process.log_snr(t)) / self.sigma_data**2

    def on_x0(self, process: Process, t: Times) -> Times:
        """SNR + 1 / sigma_data^2."""
        return jnp.exp(process.log_snr(t)) + 1.0 / self.sigma_data**2


@dataclass(frozen=True)
class Sigmoid(EpsWeighting):
    """w_eps = -d log SNR / dt sigmoid(bias - log SNR) (Kingma & Gao 2023; SiD2, arXiv:2410.19324).

    On the error of x_0 that is -d log SNR / dt exp(bias) sigmoid(log SNR - bias). With uniform times the loss
    is an integral over log SNR, the same for every process with the same end points.

    Attributes:
        bias: log SNR at which the weight is half of the likelihood weight.
    """

    bias: float = 0.0

    def on_eps(self, process: Process, t: Times) -> Times:
        """g^2 / sigma^2 sigmoid(bias - log SNR)."""
        return Likelihood().on_eps(process, t) * jax.nn.sigmoid(self.bias - process.log_snr(t))

    def on_x0(self, process: Process, t: Times) -> Times:
        """-d SNR / dt sigmoid(bias - log SNR)."""
        return Likelihood().on_x0(process, t) * jax.nn.sigmoid(self.bias - process.log_snr(t))
