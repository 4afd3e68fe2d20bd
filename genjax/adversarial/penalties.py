"""Penalties added to a discriminator's loss: on its gradient, and on its response to augmentation.

    R1                w / 2 E_data |grad D(x)|^2                    Mescheder et al. 2018, arXiv:1801.04406, eq. 9
    R2                w / 2 E_z |grad D(G(z))|^2                    ibid., eq. 10
    GradientPenalty   w E (|grad D(y)| - 1)^2                       Gulrajani et al. 2017, arXiv:1704.00028, eq. 3
                      y = u x + (1 - u) G(z), u ~ U[0, 1]
    Consistency       w E_data (D(x) - D(T(x)))^2                   Zhang et al. 2020, arXiv:1910.12027, eq. 4
    Lazy              k times a penalty on every k-th step          Karras et al. 2020, arXiv:1912.04958, section 3.1

Where D has several outputs for an example (patches), grad D is the gradient of their mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.augment import DiffAugment, Transformation
from genjax.adversarial.slopes import penalise_gradient
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Array, Key, PyTree, named

Critic = Callable[[Array], Array]  # x [b, ...] -> outputs [b, ...]
Data = Float[Array, "b ..."]
T = TypeVar("T", bound=PyTree)


@runtime_checkable
class Penalty(Protocol):
    """A penalty on a discriminator. Implemented by frozen dataclasses."""

    @property
    def name(self) -> str:
        """Name of the metric."""
        ...

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """The term added to the discriminator's loss.

        Args:
            critic: the discriminator; the outputs of each example depend on that example alone.
            real: data [b, ...].
            fake: generated examples, shaped as real.
            key: typed PRNG key.

        Returns:
            The weighted mean over examples, a scalar.
        """
        ...


def penalise_squared_norm(
    critic: Critic, x: Data, penalty: Callable[[Float[Array, " b"]], Float[Array, ""]]
) -> Float[Array, ""]:
    """A penalty of |grad D(x)|^2 of each example; see `slopes` for its differentiation.

    Args:
        critic: the discriminator.
        x: examples [b, ...].
        penalty: squared gradient norms [b] -> a scalar.

    Returns:
        The penalty, a scalar.
    """

    def outputs(x: Array) -> Array:
        out = critic(x)
        return jnp.sum(jnp.mean(out.reshape(len(x), -1), axis=1))

    return penalise_gradient(outputs, x, lambda slope: penalty(sum_dims(slope**2)))


@dataclass(frozen=True)
class R1:
    """Zero gradient on data.

    Attributes:
        weight: w.
    """

    weight: float = 1.0
    name = "r1"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module and `Penalty.cost`."""
        return penalise_squared_norm(critic, real, lambda squares: 0.5 * self.weight * jnp.mean(squares))


@dataclass(frozen=True)
class R2:
    """Zero gradient on generated examples.

    Attributes:
        weight: w.
    """

    weight: float = 1.0
    name = "r2"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module and `Penalty.cost`."""
        return penalise_squared_norm(critic, fake, lambda squares: 0.5 * self.weight * jnp.mean(squares))


@dataclass(frozen=True)
class GradientPenalty:
    """Gradient norm `target` on lines between data and generated examples.

    Attributes:
        weight: w.
        target: the gradient norm; 0 is the zero-centred penalty (Thanh-Tung et al. 2019).
        one_sided: penalise only norms above the target (Petzka et al. 2018).
    """

    weight: float = 10.0
    target: float = 1.0
    one_sided: bool = False
    name = "gradient_penalty"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module and `Penalty.cost`."""
        u = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))

        def penalty(squares: Float[Array, " b"]) -> Float[Array, ""]:
            excess = jnp.sqrt(squares + 1e-12) - self.target
            return self.weight * jnp.mean((jax.nn.relu(excess) if self.one_sided else excess) ** 2)

        return penalise_squared_norm(critic, u * real + (1.0 - u) * fake, penalty)


@dataclass(frozen=True)
class Consistency:
    """Equal outputs for an image and its augmentation.

    Attributes:
        weight: w.
        augment: T.
        balanced: also on generated examples (Zhao et al. 2021, arXiv:2002.04724).
    """

    weight: float = 10.0
    augment: Transformation = DiffAugment(color=0.0, cutout=0.0)
    balanced: bool = False
    name = "consistency"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module and `Penalty.cost`."""

        def difference(x: Data, name: str) -> Float[Array, ""]:
            augmented = self.augment.transform(named(key, name), x, jnp.ones(()))
            return jnp.mean((critic(x) - critic(augmented)) ** 2)

        cost = difference(real, "real") + (difference(fake, "fake") if self.balanced else 0.0)
        return self.weight * cost


def lazy_cost(every: int, ctx: Context, cost: Callable[[], T]) -> T:
    """Lazy regularisation: a cost on every k-th step, scaled by k, and zeros on the others; in evaluation the cost.

    Args:
        every: k.
        ctx: of the loss.
        cost: computes the cost, a tree of arrays; evaluated on those steps only.

    Returns:
        Arrays whose mean over k steps equals that of a constant cost.
    """
    if every == 1 or not ctx.train:
        return cost()
    scaled = lambda: jax.tree.map(lambda value: every * value, cost())
    zeros = lambda: jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(cost))
    return jax.lax.cond(ctx.step % every == 0, scaled, zeros)


@dataclass(frozen=True)
class Lazy:
    """Lazy regularisation: the penalty on every `every`-th step, scaled by `every`.

    Attributes:
        penalty: the penalty.
        every: steps between computations.
    """

    penalty: Penalty
    every: int = 16

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"Lazy: every={self.every} must be at least 1")

    @property
    def name(self) -> str:
        """Name of the penalty."""
        return self.penalty.name

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """The unscaled penalty; `total` applies the schedule."""
        return self.penalty.cost(critic, real, fake, key)


def total(
    penalties: Sequence[Penalty], critic: Critic, real: Data, fake: Data, ctx: Context
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The sum of penalties, each by its schedule.

    Args:
        penalties: the penalties.
        critic: as `Penalty.cost`.
        real: as `Penalty.cost`.
        fake: as `Penalty.cost`.
        ctx: of the discriminator's loss.

    Returns:
        (their sum, the penalties by name).
    """
    metrics: dict[str, Array] = {}
    for index, penalty in enumerate(penalties):
        key = named(ctx.key, f"penalty {index}")
        every = penalty.every if isinstance(penalty, Lazy) else 1
        cost = lambda penalty=penalty, key=key: penalty.cost(critic, real, fake, key)
        metrics[penalty.name] = metrics.get(penalty.name, jnp.zeros(())) + lazy_cost(every, ctx, cost)
    return sum(metrics.values(), jnp.zeros(())), metrics
