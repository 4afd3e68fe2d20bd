"""How a discriminator uses labels y: its network's inputs, and the meaning of its outputs.

    Given       D(x, y): the label is an input of the network           Mirza & Osindero 2014, arXiv:1411.1784
    Projection  D(x, y) = w.phi(x) + b + e_y.phi(x) + b_y                Miyato & Koyama 2018, arXiv:1802.05637, eq. 3
    Auxiliary   D(x) and p(y | x) = softmax(outputs)_y, learned          Odena et al. 2017, arXiv:1610.09585, eq. 2-3
                by both players: cost -w E log p(y | x)

where phi(x) are the features before a network's last layer. Since that layer is affine, its first output is
w.phi(x) + b and the others are e_y.phi(x) + b_y, one for each label: Projection fits any network with an affine last
layer.
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
    """The conditioning method. Implemented by frozen dataclasses; labels of None: an unconditional discriminator."""

    def outputs(self, classes: int) -> int:
        """Number of the discriminator's outputs."""
        ...

    def given(self, labels: Labels) -> Labels:
        """The labels passed to the network beside x, or None."""
        ...

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """D(x, y) from the outputs."""
        ...

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """(the term added to the loss of either player, metrics)."""
        ...


@dataclass(frozen=True)
class Given:
    """The label is an input of the network."""

    def outputs(self, classes: int) -> int:
        """1."""
        return 1

    def given(self, labels: Labels) -> Labels:
        """The labels."""
        return labels

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The output."""
        return out[:, 0]

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Zero."""
        return jnp.zeros(()), {}


@dataclass(frozen=True)
class Projection:
    """The label selects a direction in the network's last features."""

    def outputs(self, classes: int) -> int:
        """1 + classes."""
        return 1 + classes

    def given(self, labels: Labels) -> Labels:
        """None: the network is unconditional."""
        return None

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The first output plus the output of the label."""
        return out[:, 0] if labels is None else out[:, 0] + jnp.sum(out[:, 1:] * labels, axis=1)

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Zero."""
        return jnp.zeros(()), {}


@dataclass(frozen=True)
class Auxiliary:
    """The discriminator also classifies the label; both players minimise the classification loss.

    Attributes:
        weight: w, factor of the classification loss.
    """

    weight: float = 1.0

    def outputs(self, classes: int) -> int:
        """1 + classes."""
        return 1 + classes

    def given(self, labels: Labels) -> Labels:
        """None: the network is unconditional."""
        return None

    def logit(self, out: Float[Array, "b o"], labels: Labels) -> Float[Array, " b"]:
        """The first output."""
        return out[:, 0]

    def cost(self, out: Float[Array, "b o"], labels: Labels) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The weighted cross-entropy of the labels in nats; rows without a label contribute 0."""
        if labels is None:
            return jnp.zeros(()), {}
        log_prob = jnp.sum(labels * jax.nn.log_softmax(out[:, 1:]), axis=1)
        right = jnp.argmax(out[:, 1:], axis=1) == jnp.argmax(labels, axis=1)
        return -self.weight * jnp.mean(log_prob), {"label_accuracy": jnp.mean(right)}
