"""Common parts of distillation: a frozen teacher, and steps of its probability-flow ODE at one time per example.

In y = x / alpha and r = sigma / alpha every probability-flow ODE is dy/dr = eps(x, t). Euler's rule in r is DDIM
(Song et al. 2021, arXiv:2010.02502, eq. 13); Heun's is the trapezoidal rule with a DDIM predictor (Karras et al. 2022,
arXiv:2206.00364, alg. 1):

    DDIM:   x_s = alpha_s x_0 + sigma_s eps,
    Heun:   x_s = DDIM + (alpha_s / 2) (r_s - r_t) (eps(DDIM, s) - eps(x_t, t)).
"""

from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import Network, Weights
from genjax.core.types import Array, Batch, Key, Params
from genjax.diffusion.prediction import Denoise, Prediction
from genjax.diffusion.process import Process, expand
from genjax.objectives.diffusion.diffusion import Diffusion

State = Float[Array, "b ..."]
Time = Float[Array, "..."]  # a scalar, or one time per example
Solver = Literal["ddim", "heun"]


@dataclass(frozen=True)
class Teacher:
    """A trained diffusion model with frozen parameters.

    Attributes:
        model: the objective that was trained; the student learns its denoiser with `guidance` and `threshold`.
        weights: source of its parameters, read at the start of the student's run.
    """

    model: Diffusion
    weights: Weights

    def load(self, key: Key, batch: Batch) -> Params:
        """The trained parameters, to be kept in the student's `extra`; raises like `Weights.load`."""
        return self.weights.load(self.model, key, batch)[0]

    def denoise(self, params: Params, batch: Batch) -> Denoise:
        """The denoiser, guided if the model is conditional; gradients to its parameters are stopped."""
        cond = batch if self.model.condition else None
        return self.model.guided(jax.lax.stop_gradient(params), cond)


def check_teacher(teacher: Teacher, process: Process, net: Network | None = None) -> None:
    """Checks that a teacher and its student match.

    Args:
        teacher: as configured.
        process: the student's process.
        net: the student's network, if it is initialised with the teacher's parameters.

    Raises:
        UserError: the processes or the networks differ.
    """
    if teacher.model.process != process:
        raise UserError(f"objective.process is {process}, but the teacher's is {teacher.model.process}")
    if net is not None and teacher.model.net != net:
        raise UserError(
            "the student starts with the teacher's parameters: objective.net must be objective.teacher.model.net"
        )


def ddim_to(prediction: Prediction, process: Process, s: Time) -> State:
    """x_s = alpha_s x_0 + sigma_s eps.

    Args:
        prediction: at x_t.
        process: alpha and sigma.
        s: the end of the step, a scalar or [b].

    Returns:
        x_s [b, ...].
    """
    return process.marginal(prediction.x0, prediction.eps, s)


def solve(denoise: Denoise, process: Process, x: State, t: Time, s: Time, solver: Solver = "ddim") -> State:
    """One step of the probability-flow ODE from x at t to the earlier s.

    Args:
        denoise: (x, t) -> Prediction.
        process: alpha and sigma; for "heun" alpha(t) > 0.
        x: states [b, ...].
        t: scalar, or [b].
        s: as t.
        solver: "ddim" has order 1 and one evaluation, "heun" order 2 and two.

    Returns:
        x_s [b, ...].
    """
    here = denoise(x, t)
    guess = ddim_to(here, process, s)
    if solver == "ddim":
        return guess
    alpha_s = process.alpha(s)
    half = 0.5 * (process.sigma(s) - alpha_s * process.sigma(t) / process.alpha(t))
    return guess + expand(half, x) * (denoise(guess, s).eps - here.eps)
