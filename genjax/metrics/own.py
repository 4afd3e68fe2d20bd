"""Metrics for `Experiment.metrics`: `--config.metrics=SlicedWasserstein`; those of one's own stand in a config file."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from genjax.metrics.distances.sliced import sliced_wasserstein


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced Wasserstein distance between samples and test examples in the data's own units, not in features.

    Attributes:
        most: upper limit on the examples of each side.
    """

    most: int = 5000

    @property
    def name(self) -> str:
        """Prefix of its numbers in reports."""
        return "wasserstein"

    def measure(
        self, samples: np.ndarray, test: Mapping[str, np.ndarray], labels: Int[np.ndarray, " n"] | None
    ) -> dict[str, float]:
        """See `core.metric.Metric.measure`; "sliced" is the distance at equal counts."""
        count = min(len(samples), len(test["x"]), self.most)
        drawn, real = (x[:count].reshape(count, -1).astype(np.float64) for x in (samples, test["x"]))
        return {"sliced": float(sliced_wasserstein(drawn, real))}
