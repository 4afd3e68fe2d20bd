"""A suite: several families on the same data with the same seconds of training, one after the other on one machine.

A file with `get_suite()` lists the members. The seconds are turned into steps by timing each member's own step here, so
that its learning-rate schedule ends where its budget does; a model in two stages shares its seconds between them. A
member and a seed are a run of `sweep`'s queue.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genjax.api.sweep import ROOT
from genjax.core import checksums
from genjax.core.errors import UserError, nearest
from genjax.training.experiment import CHECKPOINTS, load_module
from genjax.training.variations import Overrides, Setting, Trial

SUITES = ROOT / "experiments" / "suites"
PLANS = "plans"  # of a suite's folder: how many steps each stage takes
CODER = "{coder}"  # in a config's name or a value: the work directory of the first stage
POINTS = 40  # of a training curve


@dataclass(frozen=True)
class Member:
    """One family of a suite.

    Attributes:
        name: of its runs and of its rows.
        config: FILE[:variant]; "{coder}" stands for the work directory of its first stage.
        overrides: (path, value), "{coder}" as above.
        coder: its first stage, where it has two.
        share: of the seconds, what the first stage gets.
        views: settings of sampling, each a row of the comparison.
    """

    name: str
    config: str
    overrides: tuple[tuple[str, str], ...] = ()
    coder: "Member | None" = None
    share: float = 0.4
    views: tuple[Setting, ...] = ((),)


@dataclass(frozen=True)
class Suite:
    """What is compared.

    Attributes:
        members: in the order of the rows.
        overrides: of all runs, before the members' own.
    """

    members: tuple[Member, ...]
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stage(Trial):
    """One run of a suite; its name is the member's.

    Attributes:
        label: name of its work directory.
        plan: name of its plan, which all seeds share.
        seconds: of training.
    """

    label: str = ""
    plan: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """MEMBER,seed=N."""
        return self.label


def load_suite(spec: str) -> Suite:
    """Reads a suite's file, or a shipped one by name.

    Raises:
        UserError: no such file, or it has no `get_suite`.
    """
    shipped = {path.stem: path for path in SUITES.glob("*.py") if path.stem != "__init__"}
    path = Path(spec) if Path(spec).is_file() else shipped.get(spec)
    if path is None:
        raise UserError(f"no suite '{spec}': {nearest(Path(spec).stem, shipped)}")
    make = getattr(load_module(path), "get_suite", None)
    if make is None:
        raise UserError(f"suite {path} has no function get_suite()")
    suite = make()
    names = [one.name for member in suite.members for one in (member, member.coder) if one]
    for name in names:
        if names.count(name) > 1 or not name or set(name) & set("/@,= "):
            raise UserError(
                f"suite {path}: '{name}' must be a name of its own without any of / @ , = and spaces"
            )
    return suite


def choose(suite: Suite, names: Sequence[str]) -> Suite:
    """The members of these names; all where none is named.

    Raises:
        UserError: there is no such member.
    """
    known = {member.name: member for member in suite.members}
    for name in names:
        if name not in known:
            raise UserError(f"--only={name}: {nearest(name, known)}")
    return dataclasses.replace(suite, members=tuple(known[name] for name in names)) if names else suite


def stages(
    suite: Suite, root: Path, seconds: float, seeds: Sequence[int], common: Overrides
) -> list[list[Stage]]:
    """All runs: those that others need first, then the others.

    Args:
        suite: its members.
        root: folder of the runs.
        seconds: of training, for each member and seed.
        seeds: each gives every stage a run.
        common: overrides from the command line.

    Returns:
        Two lists, the second of as many runs as members times seeds, all of a seed before the next one's; not planned
        yet, see `planned`.
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
    """Where the plan of a stage is kept."""
    return root / PLANS / f"{stage.plan}.json"


def read_plan(stage: Stage, root: Path) -> dict[str, Any] | None:
    """What was planned for a stage; None where nothing was.

    Raises:
        UserError: it was planned for other seconds, or cannot be read.
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
            f"{path} is for {before:g} s of training, not {stage.seconds:g}: use another --workdir for other --seconds"
        )
    return found


def planned(stage: Stage, root: Path) -> Stage:
    """The stage with its number of steps and a curve of some `POINTS` points; as it is where nothing was planned.

    Raises:
        UserError: see `read_plan`.
    """
    plan = read_plan(stage, root)
    if plan is None:
        return stage
    steps = plan["steps"]
    paced = (("steps", str(steps)), ("log_every", str(max(1, steps // POINTS))), ("sample_every", "0"))
    return dataclasses.replace(stage, common=(*stage.common, *paced))


def kept(workdir: Path) -> bool:
    """Whether there is a checkpoint to compare: also of a run that failed later."""
    return any((workdir / CHECKPOINTS).glob(f"*/{checksums.NAME}"))


def compared(suite: Suite, root: Path, runs: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """The words of `compare --run` for these runs: each member under each of its views, seed after seed."""
    for member in suite.members:
        for view in member.views:
            for seed in seeds:
                name = f"{member.name},seed={seed}"
                if name in runs:
                    yield "@".join([str(root / name), *(f"{path}={value}" for path, value in view)])
