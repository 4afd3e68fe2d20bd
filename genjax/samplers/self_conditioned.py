"""Self-conditioning: each step is given the last step's estimate of x_0 (Chen et al. 2022, arXiv:2208.04202, alg. 2).

    x0_hat_t = D(x_t, t, x0_hat_previous),

with zeros before the first step. Further evaluations within a step are given the step's first estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key
from genjax.diffusion.prediction import Denoise, Prediction
from genjax.diffusion.process import Process
from genjax.samplers.scan import Sampler, SamplerState


@dataclass(frozen=True)
class SelfConditioned:
    """Any sampler, for a denoiser that takes its own earlier estimate.

    Attributes:
        sampler: the method and its grid.
        given: earlier estimate of x_0 [b, ...] -> denoiser.
    """

    sampler: Sampler
    given: Callable[[Array], Denoise]

    def times(self, process: Process) -> Float[Array, " n"]:
        """The sampler's grid."""
        return self.sampler.times(process)

    def init(self, x: Float[Array, "b ..."]) -> SamplerState:
        """The sampler's initial state, and an estimate of zeros."""
        return SamplerState(x=x, memory=(self.sampler.init(x).memory, jnp.zeros_like(x)))

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """The sampler's step, see `Sampler.step`; `denoise` is not used. The evaluation at (x_t, t) is reused."""
        memory, previous = state.memory
        first = self.given(previous)(state.x, t)
        later = self.given(first.x0)

        def denoise_again(x: Array, u: Array) -> Prediction:
            return first if x is state.x and u is t else later(x, u)

        moved = self.sampler.step(denoise_again, process, SamplerState(x=state.x, memory=memory), t, s, key)
        return SamplerState(x=moved.x, memory=(moved.memory, first.x0))
