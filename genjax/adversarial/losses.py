"""Games: the losses of the discriminator D and the generator G, as means over D's outputs.

With r = D(x) on data and f = D(G(z)) on generated examples, sp = softplus,

    Minimax        D: E sp(-r) + E sp(f)                     G: -E sp(f)       Goodfellow et al. 2014, eq. 1
    NonSaturating  the same                                  G: E sp(-f)       ibid., section 3
    LeastSquares   D: E (r - 1)^2 / 2 + E f^2 / 2            G: E (f - 1)^2 / 2    Mao et al. 2017, eq. 9
    Hinge          D: E max(0, 1 - r) + E max(0, 1 + f)      G: -E f           Miyato et al. 2018, eq. 16-17
    Wasserstein    D: E f - E r                              G: -E f           Arjovsky et al. 2017, eq. 2
    Relativistic   D: E sp(f - r)                            G: E sp(r - f)    Huang et al. 2024 (R3GAN), eq. 2

For an unrestricted D, with p and q the densities of data and of generated examples, its optimum is log(p / q) for the
first two (loss 2 log 2 - 2 JS(p, q) in nats), p / (p + q) for least squares, and sign(p - q) for the hinge (loss
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
    """The losses of the two players. Implemented by frozen dataclasses.

    D's outputs may have any shape, such as one for each patch of an image; all have equal weight.
    """

    @property
    def paired(self) -> bool:
        """Whether the generator's loss depends on D(x), which is then required, with the shape of D(G(z))."""
        ...

    @property
    def threshold(self) -> float | None:
        """The decision threshold of D for "real"; None where only differences of outputs are defined."""
        ...

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """The discriminator's loss, given D(x) and D(G(z))."""
        ...

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """The generator's loss; `real` may be None unless the game is `paired`."""
        ...


@dataclass(frozen=True)
class Minimax:
    """The zero-sum game: the generator's gradient vanishes where the discriminator is confident."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.0

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Logistic classification, in nats."""
        return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """The mean log-probability of "fake" under D, in nats."""
        return -jnp.mean(jax.nn.softplus(fake))


@dataclass(frozen=True)
class NonSaturating(Minimax):
    """As `Minimax`, but the generator maximises the log-probability of "real" under D."""

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """The negative mean log-probability of "real" under D, in nats."""
        return jnp.mean(jax.nn.softplus(-fake))


@dataclass(frozen=True)
class LeastSquares:
    """Regression to 1 for data and to 0 for generated examples; the generator's target is 1."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.5

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Half the mean squared errors, summed."""
        return 0.5 * jnp.mean((real - 1.0) ** 2) + 0.5 * jnp.mean(fake**2)

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Half the mean squared distance from 1."""
        return 0.5 * jnp.mean((fake - 1.0) ** 2)


@dataclass(frozen=True)
class Hinge:
    """Classification with a margin of 1."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = 0.0

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """The mean hinge losses, summed."""
        return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Minus the mean output."""
        return -jnp.mean(fake)


@dataclass(frozen=True)
class Wasserstein:
    """The dual of the W1 distance, for a 1-Lipschitz critic; minus the discriminator's loss estimates W1."""

    paired: ClassVar[bool] = False
    threshold: ClassVar[float | None] = None

    def discriminator(self, real: Logits, fake: Logits) -> Float[Array, ""]:
        """Minus the difference E r - E f."""
        return jnp.mean(fake) - jnp.mean(real)

    def generator(self, real: Logits | None, fake: Logits) -> Float[Array, ""]:
        """Minus the mean output."""
        return -jnp.mean(fake)


@dataclass(frozen=True)
class Relativistic:
    """Classifies which example of a (real, generated) pair is real; to be combined with R1 and R2."""

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
    """The balanced accuracy of the discriminator: 0.5 at chance level.

    Args:
        game: gives the decision threshold.
        real: D(x).
        fake: D(G(z)), of the same shape.

    Returns:
        The mean of the accuracies on real and on generated examples; where there is no threshold, the fraction of
        pairs with D(x) > D(G(z)).
    """
    if game.threshold is None:
        return jnp.mean(real > fake)
    return 0.5 * (jnp.mean(real > game.threshold) + jnp.mean(fake <= game.threshold))
