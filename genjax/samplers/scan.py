"""The one sampling loop: a `lax.scan` over a decreasing grid of times.

A sampler is a pure step x_t -> x_s, s < t, that gets the denoiser as a FUNCTION, so that methods with
several evaluations in a step (Heun, predictor-corrector) need no state machine. Multistep
methods carry earlier estimates in `SamplerState.memory`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from genjax.core.objective import Sampling
from genjax.core.types import Array, Key, PyTree, named, record

Denoise = Callable[[Array, Array], Any]  # (x_t, t) -> a `Prediction`, or for tokens their log-probabilities
Process = Any  # a Gaussian `Process`, or a `TokenProcess`: what the sampler's steps expect


@record
class SamplerState:
    """The state of a sampler.

    Attributes:
        x: samples at the current time, [b, ...].
        memory: what a multistep method carries from step to step; () for single-step methods.
    """

    x: PyTree
    memory: PyTree = ()


@runtime_checkable
class Stepper(Protocol):
    """What the sampling loop runs: a grid of times and a step between neighbours."""

    def times(self, process: Process) -> Float[Array, " n"]:
        """The grid: n = steps + 1 strictly decreasing times in [0, 1]."""
        ...

    def init(self, x: Shaped[Array, "b ..."]) -> SamplerState:
        """The state at the grid's first time, where x [b, ...] is."""
        ...

    def step(
        self,
        denoise: Denoise,
        process: Process,
        state: SamplerState,
        t: Float[Array, ""],
        s: Float[Array, ""],
        key: Key,
    ) -> SamplerState:
        """One step from time t to the earlier time s.

        Args:
            denoise: (x, t) -> what the step uses.
            process: as given to `times`.
            state: at time t.
            t: current time.
            s: next time, s < t.
            key: typed PRNG key of this step.

        Returns:
            The state at time s.
        """
        ...


@runtime_checkable
class Sampler(Stepper, Protocol):
    """A method that integrates from noise to data. Implemented by frozen dataclasses."""

    @property
    def steps(self) -> int:
        """Steps of the grid."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser for one sample; the most that there can be where the steps are adaptive."""
        ...


def sampling_of(sampler: Sampler) -> Sampling:
    """What reports say of a sampler: its name, steps and evaluations."""
    return Sampling(type(sampler).__name__, sampler.steps, sampler.evaluations)


def sample(
    denoise: Denoise,
    process: Process,
    sampler: Stepper,
    key: Key,
    shape: tuple[int, ...],
    *,
    start: Shaped[Array, "b ..."] | None = None,
    trace: bool = False,
) -> Shaped[Array, "..."]:
    """Runs a sampler from the prior at the grid's first time to the grid's last time.

    The prior is N(0, sigma(t_0)^2), the process's marginal there once the data's share alpha(t_0) x_0 has
    vanished. Under `jit` with `out_shardings` the noise is drawn where it is used: no device holds all of it.

    Args:
        denoise: (x, t) -> what the sampler's steps use.
        process: sigma, and what the steps use.
        sampler: the step and its grid.
        key: typed PRNG key; step i uses `fold_in(key, i)`.
        shape: (b, ...), the shape of the samples.
        start: state at the grid's first time, instead of a draw from the prior.
        trace: return the whole path [steps + 1, b, ...] instead of its end [b, ...].

    Returns:
        Samples [b, ...], or the path with its start first.
    """
    times = sampler.times(process)
    if start is None:
        start = process.sigma(times[0]) * jax.random.normal(named(key, "prior"), shape, times.dtype)

    def step(state: SamplerState, now: tuple[Array, Array, Array]) -> tuple[SamplerState, Any]:
        t, s, index = now
        state = sampler.step(denoise, process, state, t, s, jax.random.fold_in(key, index))
        return state, state.x if trace else None

    steps = (times[:-1], times[1:], jnp.arange(times.size - 1))
    end, path = jax.lax.scan(step, sampler.init(start), steps)
    return jnp.concatenate([jnp.asarray(start)[None], path]) if trace else end.x
