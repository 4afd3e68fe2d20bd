"""Grids of overrides: the settings of `vary` and the runs of `sweep`."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genjax.core.errors import UserError
from genjax.training import experiment as experiments

MAX_NAME_LENGTH = 120  # in characters; a longer one is cut and gets a hash

Setting = tuple[tuple[str, str], ...]  # (field's path, value) of each varied field
Overrides = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        config: FILE[:variant], as for `train`.
        setting: (path, value) of each varied field, sorted by path.
        common: overrides that all runs share.
    """

    config: str
    setting: Setting
    common: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The config's name and the setting, as a file name of letters, digits and "-._,=+:"."""
        file, _, variant = self.config.partition(":")
        parts = [Path(file).stem + (f"-{Path(variant).stem}" if variant else "")]
        parts += [f"{path}={value}" for path, value in self.setting]
        exact = ",".join(parts)
        plain = re.sub(r"[^A-Za-z0-9._,=+:-]+", "-", exact)
        if plain == exact and len(exact) <= MAX_NAME_LENGTH:
            return exact
        return f"{plain[:MAX_NAME_LENGTH]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"

    def arguments(self, root: Path) -> list[str]:
        """The command-line arguments of `train` for this run below the folder `root`."""
        overrides = [*self.common, *self.setting]
        return [
            f"--config={self.config}",
            f"--workdir={root / self.name}",
            *(f"--config.{path}={value}" for path, value in overrides),
        ]

    def experiment(self) -> experiments.Experiment:
        """Builds the experiment that it runs.

        Raises:
            UserError: there is no such config, or an override does not fit it.
        """
        return experiments.load(self.config, [*self.common, *self.setting])


def expand(configs: Sequence[str], over: Sequence[tuple[str, list[str]]], common: Overrides) -> list[Trial]:
    """All runs of a sweep: each config under each combination of values, the last path's values changing fastest.

    Args:
        configs: FILE[:variant] of each.
        over: (path, values) of each varied field, as `parse_over` returns them.
        common: overrides of all runs.

    Returns:
        All runs: their number is the product of the numbers of configs and of values.

    Raises:
        UserError: a path or a value is given twice, or two runs would share a work directory.
    """
    paths = [path for path, _ in over]
    for path in {*paths, *(path for path, _ in common)}:
        if paths.count(path) + any(path == name for name, _ in common) > 1 and path in paths:
            raise UserError(f"over={path}=...: {path} is given twice")
    trials = [
        Trial(config, tuple(sorted(setting)), tuple(common))
        for config in configs
        for setting in settings(over)
    ]
    seen: set[str] = set()
    for trial in trials:
        if trial.name in seen:
            raise UserError(f"two runs of this sweep are named {trial.name}: give each value and config once")
        seen.add(trial.name)
    return trials


def parse_over(texts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Parses texts like "objective.sampler.steps=5,10,20" into (path, values).

    Raises:
        UserError: a text does not have this form.
    """
    parsed = []
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not values:
            raise UserError(f"over={text}: write over=objective.sampler.steps=5,10,20")
        parsed.append((path.removeprefix("config."), values.split(",")))
    return parsed


def settings(over: Iterable[tuple[str, list[str]]]) -> list[Setting]:
    """All combinations of values, the last path's changing fastest."""
    return list(itertools.product(*[[(path, value) for value in values] for path, values in over]))
