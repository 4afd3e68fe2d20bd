"""What several objectives share."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch, Key, named


def one_hot(label: Array, classes: int) -> Float[Array, "b classes"]:
    """The conditioning vector of a label; a vector of zeros stands for "no label"."""
    return jax.nn.one_hot(label, classes)


def condition(batch: Batch | None, num: int, classes: int) -> Float[Array, "b classes"] | None:
    """The conditioning vectors that go with a batch.

    Args:
        batch: has "label" int32 [num], or not.
        num: rows.
        classes: number of labels; 0 for an unconditional model.

    Returns:
        One-hot labels, zeros where the batch has none, or None for an unconditional model.
    """
    if not classes:
        return None
    if batch is None or "label" not in batch:
        return jnp.zeros((num, classes))
    return one_hot(batch["label"], classes)


def training_condition(
    batch: Batch, classes: int, label_dropout: float, key: Key
) -> Float[Array, "b classes"] | None:
    """The conditioning vectors of a training batch, some labels hidden for classifier-free guidance's sake.

    Args:
        batch: has "x" [b, ...], and "label" int32 [b] if there are classes.
        classes: number of labels; 0 for an unconditional model.
        label_dropout: probability of hiding a label.
        key: of the training step.

    Returns:
        As `condition`, with rows of zeros where the label is hidden (Ho & Salimans 2022, arXiv:2207.12598, alg. 1).
    """
    num = len(batch["x"])
    cond = condition(batch, num, classes)
    if cond is None:
        return None
    return cond * jax.random.bernoulli(named(key, "labels"), 1.0 - label_dropout, (num, 1))


def check_shape(shape: tuple[int, ...], batch: Batch, classes: int = 0) -> None:
    """Compares the examples that an objective was made for with the data's.

    Args:
        shape: of one example, as configured.
        batch: has "x" [b, ...], and "label" [b] if the data are labelled.
        classes: as configured; more than 0 needs labels.

    Raises:
        UserError: they differ.
    """
    given = tuple(batch["x"].shape[1:])
    if given != tuple(shape):
        written = ",".join(map(str, given))
        raise UserError(
            f"the objective is for examples of shape {tuple(shape)} but the data's have {given}: "
            f"set --config.objective.shape={written}"
        )
    if classes and "label" not in batch:
        raise UserError(
            f"the objective has {classes} classes but the data no labels: set --config.objective.classes=0"
        )


def check_pairs(shape: tuple[int, ...], batch: Batch) -> None:
    """As `check_shape`, of pairs of pictures side by side.

    Raises:
        UserError: the shapes differ, or are not those of pairs.
    """
    check_shape(shape, batch)
    if len(shape) != 3 or shape[1] % 2:
        raise UserError(f"pairs of pictures side by side have a shape (h, 2 w, c), not {tuple(shape)}")


def given_pairs(cond: Batch | None, num: int) -> Float[Array, "b h ww c"]:
    """The examples that a translator's samples are made of.

    Raises:
        UserError: there are none.
    """
    if cond is None or "x" not in cond:
        raise UserError('a translator draws no samples of its own: give it examples as cond["x"]')
    if len(cond["x"]) != num:
        raise UserError(
            f'{num} samples of a translator need as many examples, and cond["x"] has {len(cond["x"])}'
        )
    return cond["x"]
