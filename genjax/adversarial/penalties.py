"""Penalties on a discriminator's slope, and on what it makes of changed inputs: added to its loss.

    R1                w / 2 E_data |grad D(x)|^2                    Mescheder et al. 2018, arXiv:1801.04406, eq. 9
    R2                w / 2 E_z |grad D(G(z))|^2                    ibid., eq. 10
    GradientPenalty   w E (|grad D(y)| - 1)^2                       Gulrajani et al. 2017, arXiv:1704.00028, eq. 3
                      y = u x + (1 - u) G(z), u ~ U[0, 1]
    Consistency       w E_data (D(x) - D(T(x)))^2                   Zhang et al. 2020, arXiv:1910.12027, eq. 4
    Lazy              k times a penalty on every k-th step          Karras et al. 2020, arXiv:1912.04958, section 3.1

Where D gives several outputs for an example (patches), grad D is that of their mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.augment import DiffAugment, Transformation
from genjax.adversarial.slopes import of_slopes
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Array, Key, PyTree, named

Critic = Callable[[Array], Array]  # x [b, ...] -> outputs [b, ...]
Data = Float[Array, "b ..."]
T = TypeVar("T", bound=PyTree)


@runtime_checkable
class Penalty(Protocol):
    """Implemented by frozen dataclasses."""

    @property
    def name(self) -> str:
        """Of its metric."""
        ...

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """What is added to the discriminator's loss.

        Args:
            critic: the discriminator, each output a function of its own example.
            real: data.
            fake: what was made, as many.
            key: typed PRNG key.

        Returns:
            The mean over examples, weighted.
        """
        ...


def on_squared_slopes(
    critic: Critic, x: Data, penalty: Callable[[Float[Array, " b"]], Float[Array, ""]]
) -> Float[Array, ""]:
    """The penalty of |grad D(x)|^2 of each example; see `slopes` for how it is differentiated."""

    def outputs(x: Array) -> Array:
        out = critic(x)
        return jnp.sum(jnp.mean(out.reshape(len(x), -1), axis=1))

    return of_slopes(outputs, x, lambda slope: penalty(sum_dims(slope**2)))


@dataclass(frozen=True)
class R1:
    """Zero slope on data.

    Attributes:
        weight: w.
    """

    weight: float = 1.0
    name = "r1"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module."""
        return on_squared_slopes(critic, real, lambda squares: 0.5 * self.weight * jnp.mean(squares))


@dataclass(frozen=True)
class R2:
    """Zero slope on what is made.

    Attributes:
        weight: w.
    """

    weight: float = 1.0
    name = "r2"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module."""
        return on_squared_slopes(critic, fake, lambda squares: 0.5 * self.weight * jnp.mean(squares))


@dataclass(frozen=True)
class GradientPenalty:
    """Slope `target` between data and what is made.

    Attributes:
        weight: w.
        target: the slope; 0 holds the function flat (Thanh-Tung et al. 2019).
        one_sided: leave slopes below the target alone (Petzka et al. 2018).
    """

    weight: float = 10.0
    target: float = 1.0
    one_sided: bool = False
    name = "gradient_penalty"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module."""
        u = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))

        def penalty(squares: Float[Array, " b"]) -> Float[Array, ""]:
            excess = jnp.sqrt(squares + 1e-12) - self.target
            return self.weight * jnp.mean((jax.nn.relu(excess) if self.one_sided else excess) ** 2)

        return on_squared_slopes(critic, u * real + (1.0 - u) * fake, penalty)


@dataclass(frozen=True)
class Consistency:
    """The same output for an image and for its augmentation.

    Attributes:
        weight: w.
        augment: T.
        balanced: ask it of what is made, too (Zhao et al. 2021, arXiv:2002.04724).
    """

    weight: float = 10.0
    augment: Transformation = DiffAugment(color=0.0, cutout=0.0)
    balanced: bool = False
    name = "consistency"

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """See the module."""

        def change(x: Data, name: str) -> Float[Array, ""]:
            changed = self.augment.transform(named(key, name), x, jnp.ones(()))
            return jnp.mean((critic(x) - critic(changed)) ** 2)

        cost = change(real, "real") + (change(fake, "fake") if self.balanced else 0.0)
        return self.weight * cost


def lazily(every: int, ctx: Context, cost: Callable[[], T]) -> T:
    """`every` times a cost on the steps divisible by `every`, zeros on the others; in evaluation the cost itself.

    Args:
        every: steps.
        ctx: of the loss.
        cost: computed on those steps only; gives arrays.

    Returns:
        Arrays whose mean over `every` steps is that of the costs, if these did not change.
    """
    if every == 1 or not ctx.train:
        return cost()
    often = lambda: jax.tree.map(lambda value: every * value, cost())
    never = lambda: jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(cost))
    return jax.lax.cond(ctx.step % every == 0, often, never)


@dataclass(frozen=True)
class Lazy:
    """A penalty that is computed now and then, and counts the more.

    Attributes:
        penalty: which.
        every: on steps divisible by this, times this.
    """

    penalty: Penalty
    every: int = 16

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every={self.every} of a lazy penalty must be at least 1")

    @property
    def name(self) -> str:
        """The penalty's."""
        return self.penalty.name

    def cost(self, critic: Critic, real: Data, fake: Data, key: Key) -> Float[Array, ""]:
        """The penalty's own, as on every step."""
        return self.penalty.cost(critic, real, fake, key)


def total(
    penalties: Sequence[Penalty], critic: Critic, real: Data, fake: Data, ctx: Context
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Adds up penalties.

    Args:
        penalties: which.
        critic: as `Penalty.cost`.
        real: as `Penalty.cost`.
        fake: as `Penalty.cost`.
        ctx: of the discriminator's loss.

    Returns:
        (their sum, each by its name).
    """
    metrics: dict[str, Array] = {}
    for index, penalty in enumerate(penalties):
        key = named(ctx.key, f"penalty {index}")
        every = penalty.every if isinstance(penalty, Lazy) else 1
        cost = lambda penalty=penalty, key=key: penalty.cost(critic, real, fake, key)
        metrics[penalty.name] = metrics.get(penalty.name, jnp.zeros(())) + lazily(every, ctx, cost)
    return sum(metrics.values(), jnp.zeros(())), metrics
