"""How samples and likelihoods of a kind of data are evaluated: a record for each kind.

A kind of one's own is a record that satisfies `Evaluates` and `reports.kinds.Draws`, in the file of its source:
`kind = MyKind()`. How it is written and drawn is in `reports.kinds`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from genjax.core.errors import UserError
from genjax.data import Data
from genjax.data.source import innermost
from genjax.evaluation.distances import sample_report
from genjax.evaluation.text import text_metrics

Report = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """Unit of a reported likelihood.

    Attributes:
        name: attribute of `Likelihood` and key in reports; its standard error is "NAME_error".
        words: printed name.
        bound: sign printed before a lower bound of the log-probability.
        digits: decimals.
    """

    name: str
    words: str
    bound: str
    digits: int


NATS = Unit("nats", "nats", "≥", 3)
PERPLEXITY = Unit("perplexity", "perplexity", "≤", 3)
BITS_PER_DIM = Unit("bits_per_dim", "bits/dim", "≤", 4)


@runtime_checkable
class Evaluates(Protocol):
    """How a kind of data is evaluated."""

    @property
    def unit(self) -> Unit:
        """Unit of its likelihoods; `PERPLEXITY` is for tokens of text."""
        ...

    @property
    def compared(self) -> bool:
        """Whether `metrics.report.SampleReference` can compare its samples with data."""
        ...

    @property
    def monitored(self) -> bool:
        """Whether that is fast enough for periodic evaluation during training."""
        ...

    def evaluate(self, data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
        """Compares samples with the test split.

        Args:
            data: the data.
            samples: [n, *shape] in the data's own units.
            labels: the classes [n] that the samples were conditioned on, or None.
            seed: of subsets and feature networks.

        Returns:
            Entries of the report.
        """
        ...


@dataclass(frozen=True)
class Arrays:
    """Images, points and sounds: compared with data in feature spaces; see `Evaluates`."""

    unit: Unit = BITS_PER_DIM
    compared: bool = True
    monitored: bool = True

    def evaluate(self, data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
        """See `distances.sample_report`."""
        return sample_report(data, samples, labels, seed)


@dataclass(frozen=True)
class Text:
    """Tokens, compared with data as decoded texts; see `Evaluates`."""

    unit: Unit = PERPLEXITY
    compared: bool = False
    monitored: bool = False

    def evaluate(self, data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
        """See `text.text_metrics`."""
        return text_metrics(data, samples, seed)


KINDS: Mapping[str, Evaluates] = {
    "image": Arrays(),
    "points": Arrays(NATS),
    "audio": Arrays(monitored=False),
    "text": Text(),
}


def evaluation_of(data: Data) -> Evaluates:
    """The record of the data's kind: its own, or that of `KINDS`.

    Raises:
        UserError: the kind is neither.
    """
    kind = innermost(data.source).kind
    if isinstance(kind, Evaluates):
        return kind
    if data.kind in KINDS:
        return KINDS[data.kind]
    raise UserError(f"the record of the kind '{data.kind}' lacks unit, compared, monitored or evaluate")
