"""Class labels as files hold them, and as batches do: int32 class indices 0, 1, ..., one per example.

Accepted are integers and booleans [n] or [n, 1], one-hot rows [n, k] of any numeric dtype, and names (strings), which
are numbered in their order. Floating point, which may be a quantity, is not taken for class indices.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, Int32, Shaped

from genjax.core.errors import UserError

MOST = np.iinfo(np.int32).max
SPARSE = 100  # classes up to which most may be without examples


@dataclasses.dataclass(frozen=True)
class Numbering:
    """How labels are numbered.

    Attributes:
        classes: number of classes.
        names: of the classes, by number; empty for labels that are numbers.
    """

    classes: int
    names: tuple[str, ...] = ()


def check_class_names(names: Iterable[str], what: str) -> None:
    """Checks that names of classes do not differ in case only.

    Args:
        names: different names.
        what: the data set, for the message.

    Raises:
        UserError: two differ in case only.
    """
    folded = collections.defaultdict(list)
    for name in sorted(names):
        folded[name.casefold()].append(name)
    if twice := next((same for same in folded.values() if len(same) > 1), None):
        raise UserError(f"the classes {' and '.join(map(repr, twice))} of {what} differ in case only")


def check_labels(label: Shaped[np.ndarray, "..."], classes: int, what: str) -> None:
    """Checks the labels of any source.

    Args:
        label: supposed to be integers [n].
        classes: number of classes.
        what: description of the labels, for the message.

    Raises:
        UserError: they are not integers in 0 ... classes - 1.
    """
    if label.ndim != 1 or label.dtype.kind not in "iu":
        raise UserError(f"{what} is {label.dtype} {list(label.shape)}, not one integer per example")
    bad = np.flatnonzero((label < 0) | (label >= classes))
    if len(bad):
        raise UserError(
            f"{what} is {label[bad[0]]} at example {bad[0]}: one class index of 0 ... {classes - 1} per example"
        )


def check_classes(conditioned: int, classes: int) -> None:
    """Checks that a model has a condition for each class of the data.

    Args:
        conditioned: number of classes of the model's condition; 0 if labels are no part of it.
        classes: of the data.

    Raises:
        UserError: the data have more classes.
    """
    if conditioned and classes > conditioned:
        raise UserError(
            f"the objective is conditioned on {conditioned} classes, and the data have {classes}: set "
            f"config.objective.condition.classes={classes}"
        )


def number_labels(labels: Sequence[np.ndarray], what: str) -> tuple[Numbering, list[Int32[np.ndarray, " n"]]]:
    """Numbers the classes of all splits together.

    Args:
        labels: the arrays of the splits, as stored.
        what: description of the arrays, for messages.

    Returns:
        The numbering, and the class indices of each array.

    Raises:
        UserError: the arrays are no labels; see the module's docstring.
    """
    columns = [_column(label, what) for label in labels]
    if len({column.dtype.kind == "U" for column in columns}) > 1:
        raise UserError(f"{what} holds names in one split and numbers in another")
    if columns[0].dtype.kind == "U":
        return _number_names(columns, what)
    widths = {label.shape[1] for label in labels if label.ndim == 2 and label.shape[1] > 1}
    if len(widths) > 1 or (widths and any(label.ndim != 2 or label.shape[1] == 1 for label in labels)):
        raise UserError(f"{what} has a different number of columns in train and test")
    classes = widths.pop() if widths else 1 + max(int(column.max()) for column in columns)
    used = len(set().union(*(np.unique(column).tolist() for column in columns)))
    if classes > SPARSE and 2 * used < classes and not widths:
        raise UserError(
            f"{what} holds {used} different numbers up to {classes - 1}: number the classes 0 ... {used - 1}"
        )
    return Numbering(classes), [column.astype(np.int32) for column in columns]


def unused_classes(label: Int[np.ndarray, " n"], classes: int) -> tuple[int, ...]:
    """The classes of which there is no example."""
    return tuple(np.flatnonzero(np.bincount(label, minlength=classes) == 0).tolist())


def _number_names(
    columns: Sequence[np.ndarray], what: str
) -> tuple[Numbering, list[Int32[np.ndarray, " n"]]]:
    names = sorted(set().union(*(column.tolist() for column in columns)))
    if "" in names:
        raise UserError(f"{what} has an empty name: every example needs a class")
    if number := next((name for name in names if name.strip().lstrip("+-").isdecimal()), None):
        raise UserError(f"{what} holds numbers as strings, such as {number!r}: save integers")
    check_class_names(names, what)
    return Numbering(len(names), tuple(names)), [
        np.searchsorted(names, column).astype(np.int32) for column in columns
    ]


def _column(label: np.ndarray, what: str) -> np.ndarray:
    """The labels as integers or strings [n].

    Raises:
        UserError: neither, nor one-hot rows.
    """
    if label.ndim not in (1, 2) or 0 in label.shape:
        raise UserError(f"{what} has shape {list(label.shape)}, not one label per example")
    if label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    if label.dtype.kind == "S":
        try:
            label = np.char.decode(label, "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{what} holds names that are not UTF-8") from None
    if label.ndim == 2 and label.dtype.kind in "biuf":
        bad = np.flatnonzero(((label != 0) & (label != 1)).any(1) | ((label == 1).sum(1) != 1))
        if len(bad):
            raise UserError(
                f"{what} has {label.shape[1]} columns, and row {bad[0]} is not one-hot: one label per example"
            )
        return label.argmax(1)
    if label.ndim != 1 or label.dtype.kind not in "biuU":
        kind = f"{label.dtype}" + (f" {list(label.shape)}" if label.ndim == 2 else "")
        raise UserError(f"{what} is {kind}: labels are integers, names, or one-hot rows")
    if label.dtype.kind == "U":
        return label
    if label.dtype.kind == "i" and label.min() < 0:
        row = int(np.flatnonzero(label < 0)[0])
        raise UserError(f"{what} is {label[row]} at example {row}: class indices start at 0")
    if label.max() >= MOST:
        raise UserError(f"{what} is {label.max()} at example {label.argmax()}: number the classes from 0")
    return label.astype(np.int64)
