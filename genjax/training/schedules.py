"""Learning-rate schedules: eta(k) at the steps k = 0, 1, ..., as frozen records.

eta(k) = learning_rate min(1, (k + 1) / (warmup + 1)) decay((k - warmup) / (steps - warmup))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import optax

from genjax.core.errors import UserError
from genjax.core.types import Array


@runtime_checkable
class Schedule(Protocol):
    """The learning rate as a function of the step."""

    def build(self, learning_rate: float, steps: int) -> optax.Schedule:
        """Makes the schedule of a run.

        Args:
            learning_rate: the peak, reached at the end of warm-up.
            steps: length of the run; the final value is reached there and kept.

        Returns:
            A function from the step k (int or int32 array) to a float32 scalar.
        """
        ...


def _warmed(
    learning_rate: float, warmup: int, steps: int, decay: Callable[[Array], Array] = jnp.ones_like
) -> optax.Schedule:
    """eta(k) = learning_rate min(1, (k + 1) / (warmup + 1)) decay((k - warmup) / (steps - warmup))."""
    if warmup < 0 or steps < 0:
        raise UserError(f"warmup and steps must not be negative, got warmup={warmup}, steps={steps}")

    def schedule(count: Array | int) -> Array:
        k = jnp.asarray(count, jnp.float32)
        progress = jnp.clip((k - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        return learning_rate * jnp.minimum(1.0, (k + 1) / (warmup + 1)) * decay(progress)

    return schedule


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then constant.

    Attributes:
        warmup: steps before the peak; the first of them has the rate peak / (warmup + 1), not 0.
    """

    warmup: int = 0

    def build(self, learning_rate: float, steps: int) -> optax.Schedule:
        """See `Schedule.build`."""
        return _warmed(learning_rate, self.warmup, steps)


@dataclass(frozen=True)
class Cosine:
    """Warm-up, then half a cosine down to `final` (Loshchilov & Hutter, arXiv:1608.03983, equation 5).

    Attributes:
        warmup: steps before the peak.
        final: the last value as a fraction of the peak.
    """

    warmup: int = 0
    final: float = 0.0

    def build(self, learning_rate: float, steps: int) -> optax.Schedule:
        """See `Schedule.build`."""
        return _warmed(
            learning_rate,
            self.warmup,
            steps,
            lambda u: self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * u)),
        )


@dataclass(frozen=True)
class Linear:
    """Warm-up, an optional plateau, then a straight line down to `final`.

    Attributes:
        warmup: steps before the peak.
        final: the last value as a fraction of the peak.
        hold: fraction of the steps after warm-up that stay at the peak ("warm-up, stable, decay").
    """

    warmup: int = 0
    final: float = 0.0
    hold: float = 0.0

    def build(self, learning_rate: float, steps: int) -> optax.Schedule:
        """See `Schedule.build`."""
        if not 0 <= self.hold < 1:
            raise UserError(f"hold is a fraction of the run, 0 <= hold < 1, got {self.hold}")
        falling = lambda u: jnp.clip((u - self.hold) / (1 - self.hold), 0.0, 1.0)
        return _warmed(learning_rate, self.warmup, steps, lambda u: 1 - (1 - self.final) * falling(u))
