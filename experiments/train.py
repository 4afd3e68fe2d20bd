"""Trains an experiment, or resumes it.

python -m experiments.train --config=NAME_OR_FILE[:variant] [--config.a.b=value ...] [--workdir=DIR]

`--config.a.b=value` sets one field of the experiment tree, which `--dry_run` prints, for example `--config.steps=600
--config.seed=1 --config.objective.net.channels=32`. The same command with the same workdir resumes a run.
"""

from pathlib import Path

from absl import flags

from genjax.api import train
from genjax.training import experiment
from genjax.training.profile import parse_window

from . import cli, dry_run

CONFIG = flags.DEFINE_string(
    "config", "diffusion_digits", "Config file or shipped config's name, [:variant]."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of the run; default runs/CONFIG[-variant].")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the experiment, its parameters and FLOPs, and exit.")
PROFILE = flags.DEFINE_string(
    "profile", None, "FIRST:LAST, steps whose profiler trace is written to WORKDIR/trace."
)
OVERFIT = flags.DEFINE_bool(
    "overfit_one_batch",
    False,
    "Train on one fixed batch and check that each player's loss falls; writes no files.",
)
LIST = flags.DEFINE_bool("list", False, "List the shipped configs and exit.")


def main(overrides: cli.Overrides) -> None:
    """Trains, or lists or describes configs, as the flags select."""
    if LIST.value:
        print(dry_run.list_configs())
        return
    chosen = experiment.load(CONFIG.value, overrides)
    profiled = parse_window(PROFILE.value) if PROFILE.value else None
    if DRY_RUN.value:
        print(dry_run.describe(chosen, experiment.load(CONFIG.value)))
        return
    name, _, variant = CONFIG.value.partition(":")
    folder = Path(name).stem + (f"-{Path(variant).stem}" if variant else "")
    if OVERFIT.value:
        train.train(chosen, WORKDIR.value, overfit_one_batch=True)
        return
    train.train_and_evaluate(chosen, CONFIG.value, Path(WORKDIR.value or f"runs/{folder}"), profiled)


if __name__ == "__main__":
    cli.run(main)
