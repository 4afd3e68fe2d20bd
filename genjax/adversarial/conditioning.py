"""How a discriminator uses labels y: what its network is given, and what its outputs mean.

    Given       D(x, y): the network sees the label                      Mirza & Osindero 2014, arXiv:1411.1784
    Projection  D(x, y) = w.phi(x) + b + e_y.phi(x) + b_y                Miyato & Koyama 2018, arXiv:1802.05637, eq. 3
    Auxiliary   D(x) and p(y | x) = softmax(outputs)_y, learned          Odena et al. 2017, arXiv:1610.09585, eq. 2-3
                by both players: cost -w E log p(y | x)

where phi(x) are the features before a network's last layer. That layer being linear, its first output is w.phi(x) + b
and the others e_y.phi(x) + b_y, one for each label: so Projection serves any network that ends in an affine layer.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array

Labels = Float[Array, "b k"] | None  # one-hot; rows of zeros for no label


@runtime_checkable
class Conditioning(Protocol):
    """Implemented by frozen dataclasses; without labels (None) the discriminator is unconditional."""

    def outputs(self, classes: int) -> int:
        """Number of the discriminator's outputs."""
        ...

    def given(self, labels: Labels) -> Labels:
        """What the network is given beside x."""
        ...

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """D(x, y) from the outputs."""
        ...

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """(what either player adds to its loss, metrics)."""
        ...


@dataclass(frozen=True)
class Given:
    """The network is given the label beside x."""

    def outputs(self, classes: int) -> int:
        """One."""
        return 1

    def given(self, labels: Labels) -> Labels:
        """The labels."""
        return labels

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The output."""
        return out[:, 0]

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """None."""
        return jnp.zeros(()), {}


@dataclass(frozen=True)
class Projection:
    """The label picks a direction in the network's last features."""

    def outputs(self, classes: int) -> int:
        """One, and one for each label."""
        return 1 + classes

    def given(self, labels: Labels) -> Labels:
        """Nothing."""
        return None

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The first output plus that of the label."""
        return out[:, 0] if labels is None else out[:, 0] + jnp.sum(out[:, 1:] * labels, axis=1)

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """None."""
        return jnp.zeros(()), {}


@dataclass(frozen=True)
class Auxiliary:
    """The discriminator also tells the label, and the generator is to make it easy.

    Attributes:
        weight: w.
    """

    weight: float = 1.0

    def outputs(self, classes: int) -> int:
        """One, and one for each label."""
        return 1 + classes

    def given(self, labels: Labels) -> Labels:
        """Nothing."""
        return None

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The first output."""
        return out[:, 0]

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The cross-entropy of the labels in nats, weighted; rows without a label count nothing."""
        if labels is None:
            return jnp.zeros(()), {}
        log_prob = jnp.sum(labels * jax.nn.log_softmax(out[:, 1:]), axis=1)
        right = jnp.argmax(out[:, 1:], axis=1) == jnp.argmax(labels, axis=1)
        return -self.weight * jnp.mean(log_prob), {"label_accuracy": jnp.mean(right)}
