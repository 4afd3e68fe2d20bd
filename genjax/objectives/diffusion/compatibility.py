"""Whether the parts of a diffusion model fit each other, by evaluating them where a run would.

Process, parameterization, weight, times, sampler and grid are chosen independently, and some combinations divide by
alpha = 0 or sigma = 0. Instead of rules about pairs, which no part of one's own could know of, the parts are evaluated
with the exact denoiser of N(0, I) data,

    E[x_0 | x_t] = alpha x_t / n,    E[eps | x_t] = sigma x_t / n,    n = alpha^2 + sigma^2,

encoded as the network's output and decoded again: the loss's weight and target at times that training draws, and the
sampler's first and last steps, since alpha and sigma vanish at the ends of [0, 1] only. What is not finite is refused.

A combination is evaluated once: `init`, every trace of `sample` and `log_prob` ask for it again.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.diffusion.guidance import Guidance
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import Denoise, Parameterization, Prediction, velocity
from genjax.diffusion.process import Process, expand
from genjax.diffusion.threshold import Threshold
from genjax.diffusion.times import Times
from genjax.diffusion.weighting import Weighting
from genjax.samplers.scan import Sampler, SamplerState

DRAWN = 4096  # training times that are looked at
SHAPE = (2, 4)  # of the states


def gaussian_prediction(process: Process, x: Array, t: Array) -> Prediction:
    """E[x_0 | x_t] and E[eps | x_t] of data N(0, I), without division by alpha or sigma."""
    alpha, sigma = expand(process.alpha(t), x), expand(process.sigma(t), x)
    norm = alpha**2 + sigma**2
    return Prediction(x0=alpha * x / norm, eps=sigma * x / norm)


def gaussian_denoiser(process: Process, predict: Parameterization) -> Denoise:
    """`gaussian_prediction` as a network of this parameterization would give it."""

    def denoise(x: Array, t: Array) -> Prediction:
        exact = gaussian_prediction(process, x, t)
        return predict.decode(process, predict.target(process, exact.x0, exact.eps, t), x, t)

    return denoise


def _evaluate(program: Callable, *parts: object) -> Any:
    """NumPy arrays of `program(*parts)`. It is compiled ahead of time: its caller may be traced, which that is not."""
    return jax.tree.map(np.asarray, jax.jit(partial(program, *parts)).lower().compile()())


_evaluated: Callable[..., Any] = cache(_evaluate)


def _training_values(
    process: Process, predict: Parameterization, weight: Weighting, times: Times
) -> tuple[Array, Array, Array, Array]:
    """Times that training draws, and there the target, the weight, and the sum of the decoded x_0 and eps."""
    t = times.draw(process, jax.random.key(0), DRAWN)
    x = jnp.ones((DRAWN, 1))
    exact = gaussian_prediction(process, x, t)
    target = predict.target(process, exact.x0, exact.eps, t)
    found = predict.decode(process, target, x, t)
    return t, target[:, 0], weight.weight(process, predict, t), (found.x0 + found.eps)[:, 0]


def check_training(
    process: Process,
    predict: Parameterization,
    weight: Weighting,
    times: Times,
    *,
    decoded: bool = False,
    mends: tuple[str, str] = ("times.low=0.001", "times.high=0.999"),
) -> None:
    """Checks that the loss is finite at the times that training draws.

    Args:
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        weight: of the loss.
        times: the distribution of training times.
        decoded: whether the loss also decodes the network's output, as self-conditioning does.
        mends: what to set where the first or the last time is the trouble, for the message.

    Raises:
        UserError: the weight, the target or the decoded output is not finite at one of the times.
    """
    t, target, weights, sums = _evaluated(_training_values, process, predict, weight, times)
    values = {f"{_name(predict)}'s target": target, f"{_name(weight)} with {_name(predict)}": weights}
    for what, value in (values | ({f"{_name(predict)}, decoded": sums} if decoded else {})).items():
        wrong = np.flatnonzero(~np.isfinite(value))
        if wrong.size:
            where = float(t[wrong[0]])
            mend = f"predict=V or Velocity, or {mends[1]}" if where > 0.5 else mends[0]
            raise UserError(
                f"{what} is not finite at t={where:g} of {_name(process)}, which {_name(times)} draws: set {mend}"
            )


def end_steps(
    process: Process, predict: Parameterization, sampler: Sampler, guidance: Guidance, threshold: Threshold
) -> tuple[Array, Array, Array]:
    """Evaluates the first step, the steps between as one, and the last step.

    Args:
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        sampler: the method and its grid.
        guidance: of the sampled model.
        threshold: of the sampled model.

    Returns:
        (the grid's times [n], whether the state after each of these steps is finite bool [m], whether the prediction
        at its start is).
    """
    times = sampler.times(process)
    last = times.shape[0] - 1
    kept = times[np.array(sorted({0, min(1, last), max(last - 1, 0), last}))]
    exact = gaussian_denoiser(process, predict)
    denoise = threshold.constrain(guidance.apply(exact, exact, process), process)
    x = process.sigma(times[0]) * jax.random.normal(jax.random.key(0), SHAPE)

    def step(state: SamplerState, now: tuple[Array, Array]) -> tuple[SamplerState, tuple[Array, Array]]:
        guess = denoise(state.x, now[0])
        state = sampler.step(denoise, process, state, *now, jax.random.key(1))
        finite = lambda value: jnp.all(jnp.isfinite(value))
        return state, (finite(state.x), finite(guess.x0 + guess.eps))

    moved, decoded = jax.lax.scan(step, sampler.init(x), (kept[:-1], kept[1:]))[1]
    return times, moved, decoded


def check_sampler(
    process: Process, predict: Parameterization, sampler: Sampler, guidance: Guidance, threshold: Threshold
) -> None:
    """Checks that a sampler's grid decreases and that its steps are finite.

    Args:
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        sampler: the method and its grid.
        guidance: of the sampled model.
        threshold: of the sampled model.

    Raises:
        UserError: the grid does not decrease within [0, 1], or a step at one of its ends is not finite.
    """
    if sampler.steps < 1:
        raise UserError(f"sampler.steps={sampler.steps} of {_name(sampler)} must be at least 1")
    times, moved, decoded = _evaluated(end_steps, process, predict, sampler, guidance, threshold)
    if not (
        times.min() >= 0.0 and times.max() <= 1.0 and np.all(np.diff(times) <= 0.0) and times[0] > times[-1]
    ):
        raise UserError(
            f"the grid of {_name(sampler)} goes from t={times[0]:g} to {times[-1]:g}: it must fall, within [0, 1] "
            "(sampler.grid.start, sampler.grid.end)"
        )
    if not moved.all():
        first = int(np.argmin(moved))
        t = float(times[[0, 1, -2][first]])
        raise UserError(_step_message(process, predict, sampler, t, bool(decoded[first])))


def _likelihood_values(process: Process, predict: Parameterization, likelihood: OdeLikelihood) -> Array:
    """Whether the rates are finite at `low` and at `high`."""
    denoise, x = gaussian_denoiser(process, predict), jnp.ones(SHAPE)
    flow = lambda x, t: velocity(denoise(x, t), process, t)
    rate = likelihood.rate(flow, x, jax.random.key(0))
    ends = jnp.asarray([likelihood.low, likelihood.high]) ** (1.0 / likelihood.power)
    finite = lambda rates: jnp.all(jnp.isfinite(rates[0])) & jnp.all(jnp.isfinite(rates[1]))
    return jax.lax.map(lambda u: finite(rate(x, u)), ends)


def check_likelihood(process: Process, predict: Parameterization, likelihood: OdeLikelihood) -> None:
    """Checks that the rates of a likelihood's ODE are finite at its ends; nothing if it is disabled.

    Args:
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        likelihood: the solver.

    Raises:
        UserError: the rates at `low` or `high` are not finite.
    """
    if not likelihood.steps:
        return
    finite = _evaluated(_likelihood_values, process, predict, likelihood)
    if not finite.all():
        name, value = [("low", likelihood.low), ("high", likelihood.high)][int(np.argmin(finite))]
        mend = "likelihood.high=0.999" if name == "high" else "likelihood.low=0.001"
        raise UserError(
            f"the ODE of log_prob is not finite with {_name(predict)} at likelihood.{name}={value:g} of "
            f"{_name(process)}: set {mend}, or likelihood.steps=0 for none"
        )


def _name(part: object) -> str:
    return type(part).__name__


def _step_message(
    process: Process, predict: Parameterization, sampler: Sampler, t: float, decoded: bool
) -> str:
    """What is wrong with the step that begins at t, and the nearest valid choice."""
    with jax.ensure_compile_time_eval():
        singular = float(process.alpha(jnp.asarray(t))) == 0.0
    inside = f"a grid that {'starts at 0.999' if singular else 'ends at 0.001'}"
    where = f"its step from t={t:g}{', where alpha=0' if singular else ''}"
    if not decoded:
        return (
            f"{_name(predict)} cannot be decoded by {_name(sampler)} on {_name(process)} in {where}: choose "
            f"predict=V or Velocity, or {inside}"
        )
    return f"{_name(sampler)} is not finite on {_name(process)} in {where}: choose sampler=DDIM, or {inside}"
