"""Trains the families of a suite on the same data for the same seconds, and writes one page that compares them.

python -m experiments.suite --suite=digits --seconds=120 --seeds=0,1 [--only=vae,gan] [--workdir=runs/suite-digits]

Each member's step is timed first, and its number of steps set so that training takes the seconds; the timings are kept
in WORKDIR/plans. Runs are one at a time, since they are timed. Finished ones are left alone and stopped ones resumed:
the same command goes on. At the end `compare` writes comparison.html, .md and .json there.
"""

import shlex
import signal
import sys
from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api import supervise, sweep
from genjax.api.suite import Stage, choose, compared, kept, load_suite, plan_path, planned, read_plan, stages
from genjax.core.errors import UserError

SUITE = flags.DEFINE_string("suite", "digits", "A file with get_suite(), or a shipped suite's name.")
SECONDS = flags.DEFINE_float("seconds", 120.0, "Of training, for each member and seed.", lower_bound=0.1)
SEEDS = flags.DEFINE_list("seeds", ["0"], "A run of each member for each of them.")
ONLY = flags.DEFINE_list("only", [], "These members alone.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs; default runs/suite-NAME.")
NUM = flags.DEFINE_integer("num", 1000, "Samples of each row of the comparison.", lower_bound=32)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands and end.")
LOCAL = str(sweep.ROOT / "launch" / "local.sh")


def plan_command(stage: Stage, root: Path) -> list[str]:
    """Times a stage's step and writes its plan."""
    overrides = [f"--config.{path}={value}" for path, value in (*stage.common, *stage.setting)]
    out = [f"--seconds={stage.seconds}", f"--out={plan_path(stage, root)}"]
    return [LOCAL, "benchmark", "--what=pace", f"--config={stage.config}", *overrides, *out]


def compare_command(words: list[str], root: Path) -> list[str]:
    """Judges what has been trained."""
    out = [f"--num={NUM.value}", f"--out={root / 'comparison.html'}"]
    return [LOCAL, "compare", *(f"--run={word}" for word in words), *out]


def dry_run(found: list[list[Stage]], words: list[str], root: Path) -> None:
    """Prints what would be run; where a stage is not planned yet, its number of steps stands open."""
    for stage in (stage for part in found for stage in part):
        if read_plan(stage, root) is None:
            if stage.setting == found[1][0].setting:
                print(shlex.join(plan_command(stage, root)))
            print(shlex.join(sweep.command(stage, root)), "--config.steps=...")
        else:
            print(shlex.join(sweep.command(planned(stage, root), root)))
    print(shlex.join(compare_command(words, root)))


def train(trials: list[Stage], root: Path) -> dict[str, int]:
    """Plans and runs stages; returns their exit codes.

    Raises:
        SystemExit: stopped by a signal, with everything saved.
    """
    for stage in trials:
        if read_plan(stage, root) is None:
            code = supervise.call(plan_command(stage, root))
            if code > 128:
                raise SystemExit(code)
    ready = [stage for stage in trials if read_plan(stage, root) is not None]
    queue = sweep.Queue([planned(stage, root) for stage in ready], root)
    before = {
        number: signal.signal(number, lambda n, _: queue.stop(n))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    queue.run()
    for number, handler in before.items():
        signal.signal(number, handler)
    if queue.stopped is not None:
        print("stopped; all runs are saved, and the same command goes on")
        raise SystemExit(128 + queue.stopped)
    return {**{stage.name: 1 for stage in trials}, **queue.codes}


def parse_seeds(words: list[str]) -> list[int]:
    """Reads --seeds.

    Raises:
        UserError: not whole numbers, or one twice.
    """
    if not words or len({*words}) < len(words) or not all(word.isdecimal() for word in words):
        raise UserError(f"--seeds={','.join(words)}: write whole numbers, each once, like --seeds=0,1,2")
    return [int(word) for word in words]


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    suite, seeds = choose(load_suite(SUITE.value), ONLY.value), parse_seeds(SEEDS.value)
    root = Path(WORKDIR.value or f"runs/suite-{Path(SUITE.value).stem}")
    found = stages(suite, root, SECONDS.value, seeds, overrides)
    for stage in (stage for part in found for stage in part):
        read_plan(stage, root)
        stage.experiment()  # mistakes are found before anything runs
    if DRY_RUN.value:
        dry_run(found, list(compared(suite, root, [stage.name for stage in found[1]], seeds)), root)
        return
    codes = [code for part in found for code in train(part, root).items()]
    failed = [name for name, code in codes if code]
    words = list(compared(suite, root, [name for name, _ in codes if kept(root / name)], seeds))
    worst = supervise.call(compare_command(words, root)) if words else 1
    if failed:
        print(f"error: {len(failed)} of {len(codes)} runs failed: {', '.join(failed)}", file=sys.stderr)
    if failed or worst:
        raise SystemExit(worst or 1)


if __name__ == "__main__":
    cli.run(main, alone=True)
