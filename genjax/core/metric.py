"""The contract of metrics of samples, for `Experiment.metrics`."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


@runtime_checkable
class Metric(Protocol):
    """A metric of samples. Implemented by frozen dataclasses, in a config file or in `genjax.metrics`."""

    @property
    def name(self) -> str:
        """Prefix of its numbers in reports."""
        ...

    def measure(
        self, samples: np.ndarray, test: Mapping[str, np.ndarray], labels: Int[np.ndarray, " n"] | None
    ) -> Mapping[str, float]:
        """Compares samples with the test split.

        Args:
            samples: [n, *shape] in the data's own units.
            test: the test split: "x" [m, *shape], and "label" [m] if the data have labels.
            labels: the classes that the samples were conditioned on; None if they were not.

        Returns:
            Numbers by name.
        """
        ...
