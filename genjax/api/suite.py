"""A suite: several model families trained on the same data for the same seconds, sequentially on one machine.

A file with `get_suite()` lists the members. Each member's step is timed to convert the seconds into a number of steps,
so that its learning-rate schedule ends with its budget; the stages of a two-stage model share the seconds. Each member
and seed is one run of `sweep.Queue`.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genjax.core import checksums
from genjax.core.errors import UserError, nearest
from genjax.training.experiment import CHECKPOINTS, PROGRAMS, load_module
from genjax.training.variations import Overrides, Setting, Trial

SUITES = PROGRAMS / "suites"
PLANS = "plans"  # subfolder with the number of steps of each stage
CODER = "{coder}"  # in a config name or a value: stands for the work directory of the first stage
POINTS = 40  # logged points of a training curve


@dataclass(frozen=True)
class Member:
    """One family of a suite.

    Attributes:
        name: name of its runs and rows.
        config: FILE[:variant]; "{coder}" stands for the work directory of its first stage.
        overrides: (path, value); "{coder}" as above.
        coder: its first stage, if it has two.
        share: fraction of the seconds for the first stage.
        views: sampling settings, each a row of the comparison.
    """

    name: str
    config: str
    overrides: tuple[tuple[str, str], ...] = ()
    coder: "Member | None" = None
    share: float = 0.4
    views: tuple[Setting, ...] = ((),)


@dataclass(frozen=True)
class Suite:
    """The families to compare.

    Attributes:
        members: in the order of the rows.
        overrides: applied to all runs before the members' own.
    """

    members: tuple[Member, ...]
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stage(Trial):
    """One run of a suite.

    Attributes:
        label: name of its work directory.
        plan: name of its plan, shared by all seeds.
        seconds: training seconds.
    """

    label: str = ""
    plan: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """MEMBER,seed=N."""
        return self.label


def load_suite(spec: str) -> Suite:
    """Loads a suite from a file, or a shipped one by name.

    Raises:
        UserError: there is no such file, it has no `get_suite`, or a member's name is invalid or not unique.
    """
    shipped = {path.stem: path for path in SUITES.glob("*.py") if path.stem != "__init__"}
    path = Path(spec) if Path(spec).is_file() else shipped.get(spec)
    if path is None:
        raise UserError(f"no suite '{spec}': {nearest(Path(spec).stem, shipped)}")
    make = vars(load_module(path)).get("get_suite")
    if make is None:
        raise UserError(f"suite {path} has no function get_suite()")
    suite = make()
    names = [one.name for member in suite.members for one in (member, member.coder) if one]
    for name in names:
        if names.count(name) > 1 or not name or set(name) & set("/@,= "):
            raise UserError(f"suite {path}: '{name}' must be a unique name without / @ , = and spaces")
    return suite


def choose(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite restricted to the named members; unchanged if `names` is empty.

    Raises:
        UserError: a member is unknown.
    """
    known = {member.name: member for member in suite.members}
    for name in names:
        if name not in known:
            raise UserError(f"only={name}: {nearest(name, known)}")
    return dataclasses.replace(suite, members=tuple(known[name] for name in names)) if names else suite


def stages(
    suite: Suite, root: Path, seconds: float, seeds: Sequence[int], common: Overrides
) -> list[list[Stage]]:
    """All runs of a suite, first stages before the runs that need them.

    Args:
        suite: the members.
        root: folder of the runs.
        seconds: training seconds of each member and seed.
        seeds: every stage is run once for each seed.
        common: overrides of all runs.

    Returns:
        [first stages, final stages]; the second list has one run for each seed and member, seed by seed. The numbers
        of steps are not set yet, see `planned`.
    """

    def stage(member: Member, seed: int, seconds: float) -> Stage:
        there = str(root / f"{member.coder.name},seed={seed}") if member.coder else ""
        fill = lambda word: word.replace(CODER, there)
        own = tuple((path, fill(value)) for path, value in member.overrides)
        return Stage(
            config=fill(member.config),
            setting=(("seed", str(seed)),),
            common=(*suite.overrides, *own, *common),
            label=f"{member.name},seed={seed}",
            plan=member.name,
            seconds=seconds,
        )

    pairs = [(member, seed) for seed in seeds for member in suite.members]
    first = [stage(m.coder, seed, m.share * seconds) for m, seed in pairs if m.coder]
    rest = [stage(m, seed, (1.0 - m.share if m.coder else 1.0) * seconds) for m, seed in pairs]
    return [first, rest]


def plan_path(stage: Stage, root: Path) -> Path:
    """Path of a stage's plan."""
    return root / PLANS / f"{stage.plan}.json"


def read_plan(stage: Stage, root: Path) -> dict[str, Any] | None:
    """Reads a stage's plan; None if there is none.

    Raises:
        UserError: the plan is for other seconds, or cannot be read.
    """
    path = plan_path(stage, root)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        before, steps = float(found["seconds"]), int(found["steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error!r}") from None
    if steps < 1 or not math.isclose(before, stage.seconds):
        raise UserError(
            f"{path} is for {before:g} s of training, not {stage.seconds:g}: use another workdir=DIR for other seconds"
        )
    return found


def planned(stage: Stage, root: Path) -> Stage:
    """The stage with the number of steps of its plan and about `POINTS` logged points; unchanged if it has no plan.

    Raises:
        UserError: as `read_plan`.
    """
    plan = read_plan(stage, root)
    if plan is None:
        return stage
    steps = plan["steps"]
    overrides = (("steps", str(steps)), ("log_every", str(max(1, steps // POINTS))), ("sample_every", "0"))
    return dataclasses.replace(stage, common=(*stage.common, *overrides))


def has_checkpoint(workdir: Path) -> bool:
    """Whether there is a checkpoint to compare, even if the run failed later."""
    return any((workdir / CHECKPOINTS).glob(f"*/{checksums.NAME}"))


def comparison_runs(suite: Suite, root: Path, runs: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """Arguments of `compare --run` by member, view and seed.

    Args:
        suite: the members.
        root: folder of the runs.
        runs: names of the runs to compare.
        seeds: seeds of the runs.

    Yields:
        DIR[@path=value...] of each run and view.
    """
    for member in suite.members:
        for view in member.views:
            for seed in seeds:
                name = f"{member.name},seed={seed}"
                if name in runs:
                    yield "@".join([str(root / name), *(f"{path}={value}" for path, value in view)])
