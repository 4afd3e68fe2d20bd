"""A denoiser's prediction as (x_0, eps), and its decoding from a network's output.

A `Prediction` holds estimates of x_0 and eps with x_t = alpha x_0 + sigma eps. Score and velocity are linear
in them:

    score     = -eps / sigma                              (Song et al. 2021, arXiv:2011.13456)
    velocity  = alpha' x_0 + sigma' eps                   (Lipman et al. 2023, arXiv:2210.02747)
    v         = alpha eps - sigma x_0                     (Salimans & Ho 2022, arXiv:2202.00512)

A parameterization is two functions: the regression target of the network, and the decoding of its output. One that
also scales the network's inputs, as EDM's does, overrides a third.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, PyTree, record
from genjax.diffusion.process import Process, derivative, expand

State = Float[Array, "b ..."]
Time = Float[Array, "..."]  # a scalar, or one time per example


@record
class Prediction:
    """Estimates of data and noise, each shaped as x_t [b, ...].

    Attributes:
        x0: estimate of the data.
        eps: estimate of the noise.
        v: exponent of the variance of a reverse step, where it is learned (see `samplers.sde.Ancestral`).
    """

    x0: PyTree
    eps: PyTree
    v: PyTree = None


Denoise = Callable[[Array, Array], Prediction]  # (x_t [b, ...], t scalar) -> Prediction


def score(prediction: Prediction, process: Process, t: Time) -> State:
    """grad log p_t(x_t) = -eps / sigma(t).

    Args:
        prediction: at x_t.
        process: gives sigma.
        t: a scalar, or one time per example [b].

    Returns:
        The score [b, ...].
    """
    return -prediction.eps / expand(process.sigma(t), prediction.eps)


def velocity(prediction: Prediction, process: Process, t: Time) -> State:
    """dx/dt of the probability-flow ODE: alpha'(t) x_0 + sigma'(t) eps.

    Args:
        prediction: at x_t.
        process: gives alpha and sigma.
        t: a scalar, or one time per example [b].

    Returns:
        The velocity [b, ...].
    """
    alpha_rate = derivative(process.alpha, t)[1]
    sigma_rate = derivative(process.sigma, t)[1]
    return (
        expand(alpha_rate, prediction.x0) * prediction.x0
        + expand(sigma_rate, prediction.eps) * prediction.eps
    )


def from_x0(process: Process, x0: State, x: State, t: Time) -> Prediction:
    """A prediction from an estimate of x_0: eps = (x_t - alpha x_0) / sigma.

    Args:
        process: gives alpha and sigma.
        x0: the estimate [b, ...].
        x: x_t, shaped as x0.
        t: a scalar, or one time per example [b]; sigma(t) > 0.

    Returns:
        The prediction.
    """
    return Prediction(x0=x0, eps=(x - expand(process.alpha(t), x) * x0) / expand(process.sigma(t), x))


def from_eps(process: Process, eps: State, x: State, t: Time) -> Prediction:
    """A prediction from an estimate of eps: x_0 = (x_t - sigma eps) / alpha.

    Args:
        process: gives alpha and sigma.
        eps: the estimate [b, ...].
        x: x_t, shaped as eps.
        t: a scalar, or one time per example [b]; alpha(t) > 0.

    Returns:
        The prediction.
    """
    return Prediction(x0=(x - expand(process.sigma(t), x) * eps) / expand(process.alpha(t), x), eps=eps)


class Parameterization(abc.ABC):
    """The affine relation, at each (x_t, t), between a network's output and (x_0, eps)."""

    @abc.abstractmethod
    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """The regression target of the network's output.

        Args:
            process: gives alpha and sigma.
            x0: data [b, ...].
            eps: noise, shaped as x0.
            t: a scalar, or one time per example [b].

        Returns:
            The target, shaped as x0.
        """

    @abc.abstractmethod
    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """Decodes the network's output into a prediction.

        Args:
            process: gives alpha and sigma.
            out: the network's output [b, ...].
            x: x_t, shaped as out.
            t: a scalar, or one time per example [b].

        Returns:
            Estimates of x_0 and eps.
        """

    def inputs(self, process: Process, x: State, t: Time) -> tuple[State, Time]:
        """The inputs of the network.

        Args:
            process: gives alpha and sigma.
            x: x_t [b, ...].
            t: a scalar, or one time per example [b].

        Returns:
            (x_t, t), unless a subclass scales them.
        """
        return x, t


@dataclass(frozen=True)
class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020, arXiv:2006.11239, eq. 14)."""

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """eps."""
        return eps

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """x_0 = (x_t - sigma eps) / alpha."""
        return from_eps(process, out, x, t)


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the data (Ho et al. 2020, sec. 3.2)."""

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """x_0."""
        return x0

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """eps = (x_t - alpha x_0) / sigma."""
        return from_x0(process, out, x, t)


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts v = alpha eps - sigma x_0 (Salimans & Ho 2022, arXiv:2202.00512, app. D).

    Unlike in the paper alpha^2 + sigma^2 need not be 1.
    """

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """v."""
        return expand(process.alpha(t), x0) * eps - expand(process.sigma(t), x0) * x0

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """Solves {x_t = alpha x_0 + sigma eps, v = alpha eps - sigma x_0}."""
        alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
        norm = alpha**2 + sigma**2
        return Prediction(x0=(alpha * x - sigma * out) / norm, eps=(sigma * x + alpha * out) / norm)


@dataclass(frozen=True)
class Velocity(Parameterization):
    """The network predicts dx/dt (flow matching, Lipman et al. 2023, arXiv:2210.02747, eq. 9)."""

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """alpha' x_0 + sigma' eps."""
        return velocity(Prediction(x0=x0, eps=eps), process, t)

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """Solves {x_t = alpha x_0 + sigma eps, u = alpha' x_0 + sigma' eps}."""
        alpha, alpha_rate = (expand(value, x) for value in derivative(process.alpha, t))
        sigma, sigma_rate = (expand(value, x) for value in derivative(process.sigma, t))
        determinant = alpha * sigma_rate - sigma * alpha_rate
        return Prediction(
            x0=(sigma_rate * x - sigma * out) / determinant,
            eps=(alpha * out - alpha_rate * x) / determinant,
        )


@dataclass(frozen=True)
class Score(Parameterization):
    """The network predicts grad log p_t(x_t) = -eps / sigma (Song & Ermon 2019, arXiv:1907.05600).

    The target grows like 1 / sigma: weight the loss by `OnEps`, which is sigma^2 here, or by `Likelihood`.
    """

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """-eps / sigma."""
        return score(Prediction(x0=x0, eps=eps), process, t)

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """eps = -sigma out."""
        return from_eps(process, -expand(process.sigma(t), x) * out, x, t)


@dataclass(frozen=True)
class Preconditioned(Parameterization):
    """EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, eq. 7-8 and table 1), for any alpha.

    With y = x_t / alpha, s = sigma / alpha (so that y = x_0 + s eps), the network F gives the denoiser

        D = c_skip y + c_out F(c_in y, c_noise),        c_noise = log(s) / 4,
        c_skip = sigma_data^2 / (s^2 + sigma_data^2),   c_out = s sigma_data / sqrt(s^2 + sigma_data^2),
        c_in = 1 / sqrt(s^2 + sigma_data^2).

    Multiplied by alpha, to avoid division by it: with n^2 = alpha^2 sigma_data^2 + sigma^2

        input = x_t / n,   F = (sigma x_0 - alpha sigma_data^2 eps) / (sigma_data n),
        x_0 = (alpha sigma_data^2 x_t + sigma sigma_data n F) / n^2,   eps = (sigma x_t - alpha sigma_data n F) / n^2.

    The paper's loss weight lambda = 1 / c_out^2 on the error of D is the weight 1 on the error of F. With
    sigma_data = 1 and a variance-preserving process F is -v.

    Attributes:
        sigma_data: standard deviation of the data as given to the model.
    """

    sigma_data: float = 0.5

    def _norm(self, process: Process, x: State, t: Time) -> tuple[Array, Array, Array]:
        alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
        return alpha, sigma, jnp.sqrt(alpha**2 * self.sigma_data**2 + sigma**2)

    def target(self, process: Process, x0: State, eps: State, t: Time) -> State:
        """(x_0 - c_skip y) / c_out."""
        alpha, sigma, norm = self._norm(process, x0, t)
        return (sigma * x0 - alpha * self.sigma_data**2 * eps) / (self.sigma_data * norm)

    def decode(self, process: Process, out: State, x: State, t: Time) -> Prediction:
        """x_0 = D."""
        alpha, sigma, norm = self._norm(process, x, t)
        kept, drawn = x / norm, self.sigma_data * out
        return Prediction(
            x0=(alpha * self.sigma_data**2 * kept + sigma * drawn) / norm,
            eps=(sigma * kept - alpha * drawn) / norm,
        )

    def inputs(self, process: Process, x: State, t: Time) -> tuple[State, Time]:
        """(c_in y, c_noise), with c_noise clipped to [-10, 10]: finite where alpha or sigma is 0."""
        _, _, norm = self._norm(process, x, t)
        return x / norm, jnp.clip(-0.125 * process.log_snr(t), -10.0, 10.0)
