"""Grids of times that samplers walk, from t = `start` down to t = `end`."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Float

from genjax.diffusion.process import Process
from genjax.types import Array


@runtime_checkable
class Grid(Protocol):
    """Chooses where a sampler evaluates the denoiser."""

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """steps + 1 strictly decreasing times."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Equal steps in t.

    Attributes:
        start: first time, at most 1.
        end: last time; 0 where the method can reach clean data, a little more where it cannot.
    """

    start: float = 1.0
    end: float = 0.0

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """t_i = start + (end - start) i / steps."""
        return jnp.linspace(self.start, self.end, steps + 1)
