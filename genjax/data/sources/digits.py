"""Handwritten digits of 8 x 8 pixels, distributed with scikit-learn: real images without a download.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI Machine Learning Repository, 1998),
the test part, as in `sklearn.datasets.load_digits`.
"""

import dataclasses
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_digits

from genjax.data.examples import Table
from genjax.data.permutation import permutation
from genjax.data.source import Kind, check_split

TEST_PER_CLASS = 36


@dataclasses.dataclass(frozen=True)
class Digits:
    """1,797 grey digits, uint8 [8, 8, 1] with values 0 ... 16; train 1,437, test 360 (36 of each class)."""

    kind: ClassVar[Kind] = "image"
    shape: ClassVar[tuple[int, ...]] = (8, 8, 1)
    dtype: ClassVar[str] = "uint8"
    classes: ClassVar[int] = 10
    levels: ClassVar[int] = 17
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def load(self, split: str) -> Table:
        """Loads one split; see `Source.load`."""
        check_split(split, self.splits)
        pixels, label = load_digits(return_X_y=True)
        order = permutation(len(label))
        # The first 36 digits of each class in a fixed permutation are the test split.
        of_class = [order[label[order] == digit] for digit in range(self.classes)]
        test = np.sort(np.concatenate([members[:TEST_PER_CLASS] for members in of_class]))
        rows = test if split == "test" else np.setdiff1d(np.arange(len(label)), test)
        images = pixels.reshape(-1, *self.shape).astype(np.uint8)
        return Table({"x": images[rows], "label": label[rows].astype(np.int32)})
