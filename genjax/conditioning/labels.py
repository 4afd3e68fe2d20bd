"""Class labels as conditions, with label dropout for classifier-free guidance."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from genjax.core.errors import UserError
from genjax.core.objective import Conditioner, Context
from genjax.core.types import Array, Batch, Condition, named


@dataclass(frozen=True)
class Labels:
    """One-hot vectors of `batch["label"]`; a vector of zeros stands for "no label".

    Attributes:
        classes: number of labels, at least 1.
        dropout: probability of hiding a label in training, so that one network learns the conditional and the
            unconditional model (Ho & Salimans 2022, arXiv:2207.12598, alg. 1).
    """

    classes: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError(
                f"classes={self.classes} must be at least 1; condition=none for an unconditional model"
            )
        if not 0.0 <= self.dropout <= 1.0:
            raise UserError(f"dropout={self.dropout} of labels must be in [0, 1]")

    def check(self, batch: Batch) -> None:
        """Raises UserError where the batch has no labels."""
        if "label" not in batch:
            raise UserError(
                f"the objective is conditioned on {self.classes} classes, but the data have no labels: set "
                "config.objective.condition=none"
            )

    def __call__(self, batch: Batch | None, num: int) -> Condition:
        """One-hot labels float32 [num, classes], zeros where the batch has none."""
        if batch is None or "label" not in batch:
            return Condition(jnp.zeros((num, self.classes)))
        return Condition(jax.nn.one_hot(batch["label"], self.classes))

    def hide(self, condition: Condition, kept: Bool[Array, " b"]) -> Condition:
        """Rows of zeros where `kept` is False."""
        return Condition(condition.vector * kept[:, None])


def condition_vector(conditioner: Conditioner | None, batch: Batch | None, num: int) -> Array | None:
    """The conditioning vectors of a batch.

    Args:
        conditioner: of the objective, or None.
        batch: what the condition is made from, or None for "nothing".
        num: rows.

    Returns:
        float32 [num, k], or None for an unconditional model.
    """
    return None if conditioner is None else conditioner(batch, num).vector


def draw_kept(conditioner: Conditioner, ctx: Context, num: int) -> Bool[Array, " b"]:
    """Which examples keep their condition: all in evaluation, each with probability 1 - dropout in training.

    Args:
        conditioner: of the objective.
        ctx: PRNG key and whether this is training.
        num: examples.

    Returns:
        bool [num].
    """
    if not (ctx.train and conditioner.dropout):
        return jnp.ones(num, bool)
    return jax.random.bernoulli(named(ctx.key, "labels"), 1.0 - conditioner.dropout, (num, 1))[:, 0]


def training_vector(conditioner: Conditioner | None, batch: Batch, ctx: Context) -> Array | None:
    """The conditioning vectors of a loss: some are hidden in training, none in evaluation.

    Args:
        conditioner: of the objective, or None.
        batch: has "x" [b, ...] and what the condition is made from.
        ctx: PRNG key and whether this is training.

    Returns:
        float32 [b, k], or None for an unconditional model.
    """
    if conditioner is None:
        return None
    num = len(batch["x"])
    return conditioner.hide(conditioner(batch, num), draw_kept(conditioner, ctx, num)).vector
