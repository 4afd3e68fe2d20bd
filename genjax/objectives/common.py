"""Helpers shared by several objectives."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch, Key, named


def one_hot(label: Array, classes: int) -> Float[Array, "b classes"]:
    """The conditioning vector of a label; the zero vector means "no label"."""
    return jax.nn.one_hot(label, classes)


def condition(batch: Batch | None, num: int, classes: int) -> Float[Array, "b classes"] | None:
    """The conditioning vectors of a batch.

    Args:
        batch: `"label"` int32 [num] if labelled; or None.
        num: number of rows.
        classes: number of labels; 0 for an unconditional model.

    Returns:
        One-hot labels [num, classes], zeros if the batch has none; None for an unconditional model.
    """
    if not classes:
        return None
    if batch is None or "label" not in batch:
        return jnp.zeros((num, classes))
    return one_hot(batch["label"], classes)


def training_condition(
    batch: Batch, classes: int, label_dropout: float, key: Key
) -> Float[Array, "b classes"] | None:
    """The conditioning vectors of a training batch, with label dropout for classifier-free guidance.

    Args:
        batch: `"x"` [b, ...]; `"label"` int32 [b] if there are classes.
        classes: number of labels; 0 for an unconditional model.
        label_dropout: probability of dropping a label.
        key: of the training step.

    Returns:
        As `condition`, zero rows where the label is dropped (Ho & Salimans 2022, arXiv:2207.12598, alg. 1).
    """
    num = len(batch["x"])
    cond = condition(batch, num, classes)
    if cond is None:
        return None
    return cond * jax.random.bernoulli(named(key, "labels"), 1.0 - label_dropout, (num, 1))


def check_shape(shape: tuple[int, ...], batch: Batch, classes: int = 0) -> None:
    """Checks that the data match the objective's shape and classes.

    Args:
        shape: of one example, as configured.
        batch: `"x"` [b, ...]; `"label"` [b] if the data are labelled.
        classes: as configured; more than 0 needs labels.

    Raises:
        UserError: the shapes differ, or labels are missing.
    """
    given = tuple(batch["x"].shape[1:])
    if given != tuple(shape):
        written = ",".join(map(str, given))
        raise UserError(
            f"the objective expects examples of shape {tuple(shape)} but the data have shape {given}: "
            f"set --config.objective.shape={written}"
        )
    if classes and "label" not in batch:
        raise UserError(
            f"the objective has {classes} classes but the data have no labels: set --config.objective.classes=0"
        )


def check_pairs(shape: tuple[int, ...], batch: Batch) -> None:
    """As `check_shape`, for pairs of images side by side.

    Raises:
        UserError: the shapes differ, or are not (h, 2 w, c).
    """
    check_shape(shape, batch)
    if len(shape) != 3 or shape[1] % 2:
        raise UserError(f"pairs of images side by side have shape (h, 2 w, c), not {tuple(shape)}")


def given_pairs(cond: Batch | None, num: int) -> Float[Array, "b h ww c"]:
    """The input examples of image-to-image translation, cond["x"].

    Raises:
        UserError: cond["x"] is missing, or does not have `num` examples.
    """
    if cond is None or "x" not in cond:
        raise UserError('image-to-image translation needs input examples: pass them as cond["x"]')
    if len(cond["x"]) != num:
        raise UserError(
            f'{num} translated samples need {num} input examples, but cond["x"] has {len(cond["x"])}'
        )
    return cond["x"]
