"""Self-conditioning: a step sees the last step's estimate of x_0 (Chen et al. 2022, arXiv:2208.04202, alg. 2).

    x0_hat_t = D(x_t, t, x0_hat_previous),

the first estimate being made with zeros. Where a method evaluates the denoiser again within a step, that evaluation
sees the step's first estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key
from genjax.diffusion.prediction import Denoise, Prediction
from genjax.diffusion.process import Process
from genjax.samplers.scan import Sampler, Walk


@dataclass(frozen=True)
class SelfConditioned:
    """Any sampler, for a denoiser that is given its own earlier estimate.

    Attributes:
        sampler: the method and its grid.
        given: earlier estimate of x_0 [b, ...] -> denoiser.
    """

    sampler: Sampler
    given: Callable[[Array], Denoise]

    def times(self, process: Process) -> Float[Array, " n"]:
        """The sampler's."""
        return self.sampler.times(process)

    def init(self, x: Float[Array, "b ..."]) -> Walk:
        """A walk that remembers what the sampler does, and an estimate of zeros."""
        return Walk(x=x, memory=(self.sampler.init(x).memory, jnp.zeros_like(x)))

    def step(self, denoise: Denoise, process: Process, walk: Walk, t: Array, s: Array, key: Key) -> Walk:
        """The sampler's step; `denoise` is not used. The first evaluation is shared if the step begins with it."""
        memory, previous = walk.memory
        first = self.given(previous)(walk.x, t)
        later = self.given(first.x0)

        def remembering(x: Array, u: Array) -> Prediction:
            return first if x is walk.x and u is t else later(x, u)

        moved = self.sampler.step(remembering, process, Walk(x=walk.x, memory=memory), t, s, key)
        return Walk(x=moved.x, memory=(moved.memory, first.x0))
