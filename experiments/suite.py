"""Trains the families of a suite on the same data for the same seconds, and writes one page that compares them.

python -m experiments.suite --suite=digits --seconds=120 --seeds=0,1 [--only=vae,gan] [--workdir=runs/suite-digits]

Each member's step is timed first to choose the number of steps that takes the seconds; the timings are stored in
WORKDIR/plans. Runs are sequential because they are timed. The same command skips finished runs and resumes stopped
ones. At the end `compare` writes comparison.html, .md and .json to WORKDIR.
"""

import shlex
import signal
import sys
from pathlib import Path

from absl import flags

from genjax.api import supervise, sweep
from genjax.api.suite import (
    Stage,
    choose,
    comparison_runs,
    has_checkpoint,
    load_suite,
    plan_path,
    planned,
    read_plan,
    stages,
)
from genjax.core.errors import UserError

from . import cli
from .__main__ import command, run_command

SUITE = flags.DEFINE_string("suite", "digits", "A file with get_suite(), or a shipped suite's name.")
SECONDS = flags.DEFINE_float("seconds", 120.0, "Training seconds of each member and seed.", lower_bound=0.1)
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; each member is trained once for each.")
ONLY = flags.DEFINE_list("only", [], "Restrict the suite to these members.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs; default runs/suite-NAME.")
NUM = flags.DEFINE_integer("num", 1000, "Samples of each row of the comparison.", lower_bound=32)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands and exit.")


def plan_command(stage: Stage, root: Path) -> list[str]:
    """The command that times a stage's step and writes its plan."""
    overrides = [f"--config.{path}={value}" for path, value in (*stage.common, *stage.setting)]
    out = [f"--seconds={stage.seconds}", f"--out={plan_path(stage, root)}"]
    return command("benchmark", "--what=pace", f"--config={stage.config}", *overrides, *out)


def compare_command(words: list[str], root: Path) -> list[str]:
    """The command that compares the trained runs."""
    out = [f"--num={NUM.value}", f"--out={root / 'comparison.html'}"]
    return command("compare", *(f"--run={word}" for word in words), *out)


def dry_run(found: list[list[Stage]], words: list[str], root: Path) -> None:
    """Prints the commands that would run; unplanned stages show `--config.steps=...`.

    Args:
        found: the stages, from `stages`.
        words: arguments of `compare --run`.
        root: folder of the runs.
    """
    for stage in (stage for part in found for stage in part):
        if read_plan(stage, root) is None:
            if stage.setting == found[1][0].setting:
                print(shlex.join(plan_command(stage, root)))
            print(shlex.join(run_command(stage, root)), "--config.steps=...")
        else:
            print(shlex.join(run_command(planned(stage, root), root)))
    print(shlex.join(compare_command(words, root)))


def train(trials: list[Stage], root: Path) -> dict[str, int]:
    """Plans and runs stages; returns their exit codes.

    Raises:
        SystemExit: 128 + signal after SIGTERM or SIGINT; all runs are saved.
    """
    for stage in trials:
        if read_plan(stage, root) is None:
            code = supervise.call(plan_command(stage, root))
            if code > 128:
                raise SystemExit(code)
    ready = [stage for stage in trials if read_plan(stage, root) is not None]
    queue = sweep.Queue([planned(stage, root) for stage in ready], root, program=run_command)
    before = {
        number: signal.signal(number, lambda n, _: queue.stop(n))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    queue.run()
    for number, handler in before.items():
        signal.signal(number, handler)
    if queue.stopped is not None:
        print("stopped; all runs are saved: repeat the command to resume")
        raise SystemExit(128 + queue.stopped)
    return {**{stage.name: 1 for stage in trials}, **queue.codes}


def parse_seeds(words: list[str]) -> list[int]:
    """Reads --seeds.

    Raises:
        UserError: a seed is not a non-negative integer, or is given twice.
    """
    if not words or len({*words}) < len(words) or not all(word.isdecimal() for word in words):
        raise UserError(f"--seeds={','.join(words)}: give distinct integers, e.g. --seeds=0,1,2")
    return [int(word) for word in words]


def main(overrides: cli.Overrides) -> None:
    """Runs the suite that the flags select."""
    suite, seeds = choose(load_suite(SUITE.value), ONLY.value), parse_seeds(SEEDS.value)
    root = Path(WORKDIR.value or f"runs/suite-{Path(SUITE.value).stem}")
    found = stages(suite, root, SECONDS.value, seeds, overrides)
    for stage in (stage for part in found for stage in part):
        read_plan(stage, root)
        stage.experiment()  # invalid overrides raise before any run starts
    if DRY_RUN.value:
        dry_run(found, list(comparison_runs(suite, root, [stage.name for stage in found[1]], seeds)), root)
        return
    codes = [code for part in found for code in train(part, root).items()]
    failed = [name for name, code in codes if code]
    words = list(
        comparison_runs(suite, root, [name for name, _ in codes if has_checkpoint(root / name)], seeds)
    )
    worst = supervise.call(compare_command(words, root)) if words else 1
    if failed:
        print(f"error: {len(failed)} of {len(codes)} runs failed: {', '.join(failed)}", file=sys.stderr)
    if failed or worst:
        raise SystemExit(worst or 1)


if __name__ == "__main__":
    cli.run(main, alone=True)
