"""Checks of loaded examples, of all sources alike: number, labels, and whether the transforms fit the values."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from genjax.core.errors import UserError
from genjax.core.types import Batch
from genjax.data.examples import Examples, Table
from genjax.data.labels import check_labels, unused_classes
from genjax.data.npz_files import check_finite
from genjax.data.transforms import Dequantize, HasDomain, Transform

EXAMPLES, VALUES = 256, 2**22  # read to find the range of the values
WIDE = 10  # ranges of a transform by which values may lie outside
# The values must take this part of a transform's range: a quiet recording is no mistake, a picture that dark is.
NARROW = {"image": 1 / 10, "points": 1 / 100}
NARROW_OTHERWISE = 1 / 1000
CHECKED = (Dequantize, HasDomain)


def check_examples(examples: Examples, split: str, classes: int) -> None:
    """Checks the number of examples and the labels in memory.

    Args:
        examples: of one split.
        split: its name.
        classes: of the source.

    Raises:
        UserError: there are no examples, or a label is not one of the classes.
    """
    if len(examples) == 0:
        raise UserError(f"the split '{split}' has no examples")
    if not classes or not isinstance(examples, Table) or "label" not in examples.arrays:
        return
    label = np.asarray(examples.arrays["label"])
    check_labels(label, classes, f"the label of the split '{split}'")
    if split == "train" and (unused := unused_classes(label, classes)):
        shown = ", ".join(map(str, unused[:10])) + (", ..." if len(unused) > 10 else "")
        _warn(f"{len(unused)} of {classes} classes have no example in the training split: {shown}")


def check_domains(examples: Examples, transforms: Sequence[Transform], kind: str) -> None:
    """Checks that the values are in the units for which the transforms are made; looks at some examples.

    Args:
        examples: of the training split.
        transforms: from the data's units to the model's.
        kind: of an example.

    Raises:
        UserError: the values are far outside a transform's range, or take a small part of it, or are not finite, or
            are not integers and are dequantized.
    """
    last = max((i for i, transform in enumerate(transforms) if isinstance(transform, CHECKED)), default=-1)
    if last < 0:
        return
    num = int(np.clip(VALUES // max(1, examples[np.array([0])]["x"].size), 1, min(EXAMPLES, len(examples))))
    rows = examples[np.unique(np.linspace(0, len(examples) - 1, num).astype(int))]
    check_finite(rows["x"], "the training split")
    batch: Batch = {name: jnp.asarray(array) for name, array in rows.items()}
    for i, transform in enumerate(transforms[: last + 1]):
        if isinstance(transform, Dequantize):
            _check_whole(np.asarray(batch["x"]), transform)
        if isinstance(transform, HasDomain):
            _check_domain(np.asarray(batch["x"]), transform, kind)
        if i < last:
            batch = transform.forward(batch, jax.random.key(0), False)


def _check_whole(x: np.ndarray, transform: Dequantize) -> None:
    if x.dtype.kind == "f" and (x != np.floor(x)).any():
        value = x[x != np.floor(x)][0]
        raise UserError(
            f"{transform} is for integers, and the training split holds {value:g}: leave it out for continuous data"
        )


def _check_domain(x: np.ndarray, transform: HasDomain, kind: str) -> None:
    low, high = transform.domain
    width = high - low
    if not width > 0:
        raise UserError(f"{transform} needs a range of more than one value")
    least, most = float(x.min()), float(x.max())
    bulk_low, bulk_high = np.quantile(x, (0.01, 0.99))  # outliers do not tell the units
    outside = bulk_low < low - WIDE * width or bulk_high > high + WIDE * width
    narrow = 0 < most - least < NARROW.get(kind, NARROW_OTHERWISE) * width
    if outside or narrow:
        raise UserError(
            f"{transform} is for values of {low:g} ... {high:g}, and those of the training split lie in "
            f"{least:g} ... {most:g}: give it their range"
        )


@functools.cache
def _warn(message: str) -> None:
    """Says something once."""
    logging.warning("%s", message)
