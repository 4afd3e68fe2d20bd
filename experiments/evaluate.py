"""Evaluates a trained run (distances to the test split, memorisation, likelihood); writes evaluation.json.

python -m experiments.evaluate --workdir=DIR [--config.evaluation.num=5000]
python -m experiments.evaluate --workdir=DIR --inception=WEIGHTS [--reference=STATS.npz]    # FID, Inception Score, KID
"""

from pathlib import Path

from absl import flags

from genjax.api.evaluate import evaluate, report_lines
from genjax.api.load import load
from genjax.parallel.console import say
from genjax.training.workdir import EVALUATION

from . import cli, dry_run, used

WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate.", required=True)
INCEPTION = flags.DEFINE_string("inception", None, "Weights of FID's Inception-v3, .pth or .safetensors.")
REFERENCE = flags.DEFINE_string(
    "reference", None, "Statistics of real images, .npz; computed from the training split if missing."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the run with its overrides, and exit.")


def main(overrides: cli.Overrides) -> None:
    """Evaluates the run."""
    used.check_overrides("evaluate", overrides)
    if DRY_RUN.value:
        print(dry_run.describe_workdir(Path(WORKDIR.value), overrides))
        return
    run = load(WORKDIR.value, overrides)
    for line in report_lines(evaluate(run, INCEPTION.value, REFERENCE.value)):
        say(line)
    say(f"wrote {Path(WORKDIR.value) / EVALUATION}")


if __name__ == "__main__":
    cli.run(main)
