"""Games: what the discriminator D and the generator G minimise, as means over D's outputs.

With r = D(x) on data and f = D(G(z)) on what is made, sp = softplus,

    Minimax        D: E sp(-r) + E sp(f)                     G: -E sp(f)       Goodfellow et al. 2014, eq. 1
    NonSaturating  the same                                  G: E sp(-f)       ibid., section 3
    LeastSquares   D: E (r - 1)^2 / 2 + E f^2 / 2            G: E (f - 1)^2 / 2    Mao et al. 2017, eq. 9
    Hinge          D: E max(0, 1 - r) + E max(0, 1 + f)      G: -E f           Miyato et al. 2018, eq. 16-17
    Wasserstein    D: E f - E r                              G: -E f           Arjovsky et al. 2017, eq. 2
    Relativistic   D: E sp(f - r)                            G: E sp(r - f)    Huang et al. 2024 (R3GAN), eq. 2

Where D may be any function, and p and q are the densities of data and of what is made, its optimum is log(p / q) for
the first two (loss 2 log 2 - 2 JS(p, q) in nats), p / (p + q) for least squares, and sign(p - q) for the hinge (loss
2 - 2 TV(p, q)). A Wasserstein critic must be kept Lipschitz by a penalty or by clipping.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array

Logits = Float[Array, "..."]


@runtime_checkable
class Game(Protocol):
    """The two players' losses; implemented by frozen dataclasses.

    D's outputs may have any shape, so that each patch of an image can have its own; all count alike.
    """

    @property
    def paired(self) -> bool:
        """Whether the generator's loss depends on D(x), which must then be given, of the same shape as D(G(z))."""
        ...

    @property
    def threshold(self) -> float | None:
        """The value above which D says "real"; None where D means something by differences alone."""
        ...

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """What the discriminator minimises, given D(x) and D(G(z))."""
        ...

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """What the generator minimises; `real` may be None where the game is not `paired`."""
        ...


@dataclass(frozen=True)
class Minimax:
    """The zero-sum game: the generator's gradient vanishes where the discriminator is sure."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.0

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Logistic classification, in nats."""
        return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """The log-probability of being found out, in nats."""
        return -jnp.mean(jax.nn.softplus(fake))


@dataclass(frozen=True)
class NonSaturating(Minimax):
    """As `Minimax`, but the generator maximises the log-probability of being taken for real."""

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Minus that log-probability, in nats."""
        return jnp.mean(jax.nn.softplus(-fake))


@dataclass(frozen=True)
class LeastSquares:
    """Regression on 1 for data and 0 for what is made; the generator wants 1."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.5

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Half the squared errors of both."""
        return 0.5 * jnp.mean((real - 1.0) ** 2) + 0.5 * jnp.mean(fake**2)

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Half the squared distance from 1."""
        return 0.5 * jnp.mean((fake - 1.0) ** 2)


@dataclass(frozen=True)
class Hinge:
    """Classification with a margin of 1."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.0

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """What is missing to the margins."""
        return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Minus the mean output."""
        return -jnp.mean(fake)


@dataclass(frozen=True)
class Wasserstein:
    """The dual of the distance W1, for a critic of slope at most 1; minus the discriminator's loss estimates it."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = None

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Minus the difference of means."""
        return jnp.mean(fake) - jnp.mean(real)

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Minus the mean output."""
        return -jnp.mean(fake)


@dataclass(frozen=True)
class Relativistic:
    """Each example against one of the other kind: which is the real one? Wants R1 and R2 beside it."""

    paired: ClassVar[bool] = True
    threshold: ClassVar[float | None] = None

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Logistic classification of pairs, in nats."""
        return jnp.mean(jax.nn.softplus(fake - real))

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """The same with the roles exchanged."""
        assert real is not None, "a paired game needs D(x) in the generator's loss"
        return jnp.mean(jax.nn.softplus(real - fake))


def accuracy(game: Game, real: Logits, fake: Logits) -> Float[Array, ""]:
    """How often the discriminator is right: 0.5 when it cannot tell, 1 when it always can.

    Args:
        game: says where the border is.
        real: D(x).
        fake: D(G(z)), of the same shape.

    Returns:
        The mean of the two kinds' fractions on the right side of the border; where there is none, the fraction of
        pairs with D(x) > D(G(z)).
    """
    if game.threshold is None:
        return jnp.mean(real > fake)
    return 0.5 * (jnp.mean(real > game.threshold) + jnp.mean(fake <= game.threshold))
