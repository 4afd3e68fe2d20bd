"""Optimizers as frozen dataclasses; `build(steps)` makes the optax transformation.

Every optimizer updates parameters theta along a direction d_k computed from the clipped gradient,

    g_k     <- g_k min(1, clip / ||g_k||)             over all arrays of the player together
    theta_k  = theta_{k-1} - eta(k) (d_k + weight_decay theta_{k-1})      decay on matrices only

where eta(k) is the schedule (`schedules`) at k = 0, 1, ..., steps - 1. Decay is decoupled from the moments
(Loshchilov & Hutter, arXiv:1711.05101) and, as is usual, multiplied by the learning rate.

    Adam     arXiv:1412.6980, algorithm 1
    AdamW    arXiv:1711.05101, algorithm 2
    Lion     arXiv:2302.06675, algorithm 2
    Muon     Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"; arXiv:2502.16982
    SGD      with heavy-ball or Nesterov momentum as in Sutskever et al. 2013, equations 1-4

and `WeightClip` projects the parameters onto a box after each update of another optimizer.

Everything is computed and kept in float32, whatever the dtype of parameters and gradients.
"""

import math
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from genjax.core.errors import UserError
from genjax.core.types import Array, PyTree
from genjax.training.schedules import Constant, Cosine, Linear, Schedule


@runtime_checkable
class Optimizer(Protocol):
    """How the parameters of one player are updated."""

    def build(self, steps: int) -> optax.GradientTransformation:
        """Makes the optax transformation for a run of `steps` steps.

        Its state is a dict with an entry for each present link of the chain ("clip", "moments", "decay", "rate"),
        so that the name of an entry does not depend on which other links are present.

        Raises:
            UserError: a hyperparameter is out of range.
        """
        ...


def _matrices(params: PyTree) -> PyTree:
    """Mask of weight decay: arrays of two or more axes, except biases and scales, which have two if stacked."""
    return jax.tree_util.tree_map_with_path(lambda path, p: _is_matrix(path, p), params)


def _is_matrix(path: tuple, p: Array) -> bool:
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return jnp.ndim(p) >= 2 and name not in ("bias", "scale")


def _float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs `inner` on float32 copies of gradients and parameters."""
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
    return optax.GradientTransformation(
        lambda params: inner.init(cast(params)),
        lambda grads, state, params=None: inner.update(cast(grads), state, cast(params)),
    )


def _chain(
    clip: float,
    moments: optax.GradientTransformation,
    weight_decay: float = 0.0,
    rate: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Chains clipping, moments, decay and rate in float32; links without effect are left out."""
    if clip < 0 or weight_decay < 0:
        raise UserError(f"clip and weight_decay must not be negative, got {clip=}, {weight_decay=}")
    links = {
        "clip": optax.clip_by_global_norm(clip) if clip > 0 else None,
        "moments": moments,
        "decay": optax.add_decayed_weights(weight_decay, mask=_matrices) if weight_decay > 0 else None,
        "rate": rate,
    }
    return _float32(optax.named_chain(*((name, link) for name, link in links.items() if link is not None)))


@dataclass(frozen=True)
class Adam:
    """Adam; `b1=0.5` or `b1=0.0` is usual for adversarial players.

    Attributes:
        learning_rate: peak of the schedule.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the square root of the second moment.
        schedule: shape of the learning rate over the run.
        clip: largest global norm of the gradient; 0.0 is off.
    """

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    schedule: Schedule = Constant()
    clip: float = 0.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        rate = optax.scale_by_learning_rate(self.schedule.build(self.learning_rate, steps))
        return _chain(self.clip, optax.scale_by_adam(self.b1, self.b2, self.eps), rate=rate)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay on matrices.

    Attributes:
        learning_rate: peak of the schedule.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the square root of the second moment.
        weight_decay: arrays of two or more axes shrink by this times the learning rate in each step.
        schedule: shape of the learning rate over the run.
        clip: largest global norm of the gradient; 0.0 is off.
    """

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: Schedule = Constant()
    clip: float = 0.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        rate = optax.scale_by_learning_rate(self.schedule.build(self.learning_rate, steps))
        return _chain(self.clip, optax.scale_by_adam(self.b1, self.b2, self.eps), self.weight_decay, rate)


@dataclass(frozen=True)
class Lion:
    """The sign of an interpolated momentum; needs a 3-10 times smaller rate than AdamW, and larger decay.

    Attributes:
        learning_rate: peak of the schedule; the size of every coordinate's update.
        b1: weight of the momentum inside the sign.
        b2: decay of the momentum.
        weight_decay: arrays of two or more axes shrink by this times the learning rate in each step.
        schedule: shape of the learning rate over the run.
        clip: largest global norm of the gradient; 0.0 is off.
    """

    learning_rate: float = 1e-4
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.1
    schedule: Schedule = Constant()
    clip: float = 0.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        rate = optax.scale_by_learning_rate(self.schedule.build(self.learning_rate, steps))
        return _chain(self.clip, optax.scale_by_lion(self.b1, self.b2), self.weight_decay, rate)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, m <- momentum m + g.

    Attributes:
        learning_rate: peak of the schedule.
        momentum: decay of the sum of gradients; 0.0 is plain descent.
        nesterov: uses the direction momentum m + g instead of m.
        schedule: shape of the learning rate over the run.
        clip: largest global norm of the gradient; 0.0 is off.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    schedule: Schedule = Constant()
    clip: float = 0.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        rate = optax.scale_by_learning_rate(self.schedule.build(self.learning_rate, steps))
        moments = optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity()
        return _chain(self.clip, moments, rate=rate)


@dataclass(frozen=True)
class Muon:
    """Momentum orthogonalised by five Newton-Schulz steps for matrices, Adam for all other parameters.

    A matrix is an array of 2 axes (inputs, outputs), each layer of a stack of them (3 axes; 4 below a name "experts"),
    or a convolution's kernel flattened to (height width inputs, outputs) (4 axes; 5 for a stack). The direction
    is scaled by sqrt(max(1, outputs / inputs)). Both directions follow the same schedule.

    Attributes:
        learning_rate: peak of the schedule for matrices.
        beta: decay of the (Nesterov) momentum.
        weight_decay: matrices shrink by this times the learning rate in each step.
        adam_learning_rate: peak of the schedule for the other parameters: b1 = 0.9, b2 = 0.999, eps = 1e-8, no decay.
        adam_on: regular expression; a parameter whose path, like "params/embed/embedding", contains a match
            is updated by Adam even if it is a matrix.
        schedule: shape of the learning rates over the run.
        clip: largest global norm of the gradient; 0.0 is off.
    """

    learning_rate: float = 0.02
    beta: float = 0.95
    weight_decay: float = 0.0
    adam_learning_rate: float = 3e-4
    adam_on: str = "embed|head|tokens|positions|params/out/"
    schedule: Schedule = Constant()
    clip: float = 0.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`."""
        rate = lambda peak: optax.scale_by_learning_rate(self.schedule.build(peak, steps))
        parts = {
            "matrices": optax.chain(
                contrib.scale_by_muon(beta=self.beta, weight_dimension_numbers=_matrix_axes),
                optax.stateless(
                    lambda updates, _: jax.tree_util.tree_map_with_path(_scaled_by_shape, updates)
                ),
                optax.add_decayed_weights(self.weight_decay),
                rate(self.learning_rate),
            ),
            "rest": optax.chain(optax.scale_by_adam(), rate(self.adam_learning_rate)),
        }
        return _chain(self.clip, optax.partition(parts, self._part))

    def _part(self, params: PyTree) -> PyTree:
        """Labels each parameter by its optimizer: "matrices" (Muon) or "rest" (Adam)."""

        def part(path: tuple, p: Array) -> str:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            fits = _is_matrix(path, p) and p.ndim <= 5 and not re.search(self.adam_on, name)
            return "matrices" if fits else "rest"

        return jax.tree_util.tree_map_with_path(part, params)


# Arrays of 2 to 5 axes as one matrix or a stack of matrices, for Muon.


def _input_axes(path: tuple, matrix: Array) -> tuple[int, ...]:
    stacked = matrix.ndim <= 3 or "experts" in jax.tree_util.keystr(path)
    return (-2,) if stacked else (-4, -3, -2)


def _matrix_axes(params: PyTree) -> PyTree:
    numbers = lambda path, p: contrib.MuonDimensionNumbers(_input_axes(path, p), (-1,))
    return jax.tree_util.tree_map_with_path(numbers, params)


def _scaled_by_shape(path: tuple, update: Array) -> Array:
    inputs = math.prod(update.shape[axis] for axis in _input_axes(path, update))
    return update * math.sqrt(max(1.0, update.shape[-1] / inputs))


@dataclass(frozen=True)
class WeightClip:
    """Clips the parameters to [-limit, limit] after each update (Arjovsky et al. 2017, algorithm 1).

    Attributes:
        optimizer: computes the updates.
        limit: largest absolute value of a parameter.
        path: regular expression; only parameters whose path, like "params/in/kernel", contains a match are clipped.
    """

    optimizer: Optimizer = Adam(learning_rate=1e-4, b1=0.0)
    limit: float = 0.01
    path: str = ""

    def build(self, steps: int) -> optax.GradientTransformation:
        """See `Optimizer.build`; the state is that of the inner optimizer."""
        if self.limit <= 0:
            raise UserError(f"limit={self.limit} must be positive")
        inner = self.optimizer.build(steps)

        def clipped(path: tuple, update: Array, p: Array) -> Array:
            if not re.search(self.path, jax.tree_util.keystr(path, simple=True, separator="/")):
                return update
            return jnp.clip(p + update, -self.limit, self.limit) - p

        def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
            updates, state = inner.update(grads, state, params)
            return jax.tree_util.tree_map_with_path(clipped, updates, params), state

        return optax.GradientTransformation(inner.init, update)


__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Linear",
    "Lion",
    "Muon",
    "Optimizer",
    "Schedule",
    "WeightClip",
]
