"""Runs one config, or several, under all combinations of overrides, and sums up what they found.

python -m experiments.sweep --config=NAME --over=seed=0,1,2 --over=optimizer.learning_rate=1e-3,3e-4 [--jobs=2]
python -m experiments.sweep --configs=gan_digits,vae_digits --over=seed=0,1 --config.steps=600 --show=modes.modes

Runs live in DIR/NAME,FIELD=VALUE,... and are resumed, or left alone where they are finished: the same command goes on
after Ctrl-C. A run that fails does not stop the others. `./launch/slurm.sh sweep ...` makes an array of them instead.
"""

import shlex
import signal
import sys
from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api import sweep
from genjax.core.errors import UserError
from genjax.reports import sweep_table
from genjax.training import variations

CONFIG = flags.DEFINE_string(
    "config", "diffusion_digits", "Config file or shipped config's name, [:variant]."
)
CONFIGS = flags.DEFINE_list("configs", [], "Several of them, instead.")
OVER = flags.DEFINE_multi_string(
    "over", [], "FIELD=VALUE,VALUE,...; given again, all combinations are taken."
)
WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Folder of the runs and of the summary.")
JOBS = flags.DEFINE_integer("jobs", 1, "Runs at a time; they share the cores.", lower_bound=1)
RETRIES = flags.DEFINE_integer("retries", 1, "How often a run that crashed is started again.", lower_bound=0)
PAUSE = flags.DEFINE_float("pause", 10.0, "Seconds before it is.", lower_bound=0.0)
SHOW = flags.DEFINE_list("show", [], "Numbers of the summary, by dotted name in evaluation.json.")
INDEX = flags.DEFINE_integer("index", None, "This one of the runs alone, counted from 0.", lower_bound=0)
SUMMARY = flags.DEFINE_bool("summary", False, "Sum up what there is and run nothing.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the runs' commands and end.")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    root = Path(WORKDIR.value)
    trials = variations.expand(CONFIGS.value or [CONFIG.value], variations.parse_over(OVER.value), overrides)
    if INDEX.value is not None and INDEX.value >= len(trials):
        raise UserError(f"--index={INDEX.value}: this sweep has the runs 0 to {len(trials) - 1}")
    chosen = trials if INDEX.value is None else [trials[INDEX.value]]
    for trial in chosen:
        trial.experiment()  # mistakes are found before anything runs
    if DRY_RUN.value:
        print("\n".join(shlex.join(sweep.command(trial, root)) for trial in chosen))
        return
    queue = sweep.Queue(chosen, root, jobs=JOBS.value, retries=RETRIES.value, pause=PAUSE.value)
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
        print("stopped; all runs are saved, and the same command goes on")
        raise SystemExit(128 + queue.stopped)
    if failed := {name: code for name, code in queue.codes.items() if code}:
        print(f"error: {len(failed)} of {len(chosen)} runs failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(max(failed.values()))


if __name__ == "__main__":
    cli.run(main, alone=True)
