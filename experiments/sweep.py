"""Runs one or several configs under all combinations of overrides and summarises the results.

python -m experiments.sweep --config=NAME --over=seed=0,1,2 --over=optimizer.learning_rate=1e-3,3e-4 [--jobs=2]
python -m experiments.sweep --configs=gan_digits,vae_digits --over=seed=0,1 --config.steps=600 --show=modes.modes

The work directories are DIR/NAME,FIELD=VALUE,... The same command skips finished runs and resumes stopped ones. A run
that fails does not stop the others. `./launch/slurm.sh sweep ...` submits the runs as a job array instead.
"""

import shlex
import signal
import sys
from pathlib import Path

from absl import flags

from genjax.api import sweep
from genjax.core.errors import UserError
from genjax.reports import sweep_table
from genjax.training import variations

from . import cli
from .__main__ import run_command

CONFIG = flags.DEFINE_string(
    "config", "diffusion_digits", "Config file or shipped config's name, [:variant]."
)
CONFIGS = flags.DEFINE_list("configs", [], "Several configs instead of --config.")
OVER = flags.DEFINE_multi_string(
    "over", [], "FIELD=VALUE,VALUE,...; may be repeated: all combinations are run."
)
WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Folder of the runs and of the summary.")
JOBS = flags.DEFINE_integer("jobs", 1, "Number of concurrent runs; they share the cores.", lower_bound=1)
RETRIES = flags.DEFINE_integer("retries", 1, "Most restarts of a run that crashed.", lower_bound=0)
PAUSE = flags.DEFINE_float("pause", 10.0, "Seconds before a restart.", lower_bound=0.0)
SHOW = flags.DEFINE_list("show", [], "Columns of the summary, by dotted name in evaluation.json.")
INDEX = flags.DEFINE_integer(
    "index", None, "Run only the run with this index, counted from 0.", lower_bound=0
)
SUMMARY = flags.DEFINE_bool("summary", False, "Write the summary only, run nothing.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the runs' commands and exit.")


def main(overrides: cli.Overrides) -> None:
    """Runs the sweep that the flags select."""
    root = Path(WORKDIR.value)
    trials = variations.expand(CONFIGS.value or [CONFIG.value], variations.parse_over(OVER.value), overrides)
    if INDEX.value is not None and INDEX.value >= len(trials):
        raise UserError(f"--index={INDEX.value}: this sweep has the runs 0 to {len(trials) - 1}")
    chosen = trials if INDEX.value is None else [trials[INDEX.value]]
    for trial in chosen:
        trial.experiment()  # invalid overrides raise before any run starts
    if DRY_RUN.value:
        print("\n".join(shlex.join(run_command(trial, root)) for trial in chosen))
        return
    queue = sweep.Queue(
        chosen, root, program=run_command, jobs=JOBS.value, retries=RETRIES.value, pause=PAUSE.value
    )
    if not SUMMARY.value:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: queue.stop(number))
        queue.run()
    if INDEX.value is None:
        summary = sweep_table.summarise(trials, root, SHOW.value)
        paths = sweep_table.write_summary(summary, root)
        print(sweep_table.markdown(summary))
        print(f"wrote {', '.join(map(str, paths))}: mean ± standard deviation over seeds")
    if queue.stopped is not None:
        print("stopped; all runs are saved: repeat the command to resume")
        raise SystemExit(128 + queue.stopped)
    if failed := {name: code for name, code in queue.codes.items() if code}:
        print(f"error: {len(failed)} of {len(chosen)} runs failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(max(failed.values()))


if __name__ == "__main__":
    cli.run(main, alone=True)
