"""Helpers shared by several objectives."""

from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import Conditioner
from genjax.core.types import Array, Batch


def check_shape(shape: tuple[int, ...], batch: Batch, conditioner: Conditioner | None = None) -> None:
    """Checks that the data match the objective's shape and condition.

    Args:
        shape: of one example, as configured.
        batch: `"x"` [b, ...], and what the condition is made from.
        conditioner: as configured.

    Raises:
        UserError: the shapes differ, or the batch lacks what the condition is made from.
    """
    given = tuple(batch["x"].shape[1:])
    if given != tuple(shape):
        written = ",".join(map(str, given))
        raise UserError(
            f"the objective expects examples of shape {tuple(shape)} but the data have shape {given}: "
            f"set config.objective.shape={written}"
        )
    if conditioner is not None:
        conditioner.check(batch)


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
