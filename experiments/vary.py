"""Evaluates one trained run under several settings: a table, a curve, and pictures from the same noise.

python -m experiments.vary --workdir=DIR --over=objective.sampler=DDIM,Heun --over=objective.sampler.steps=5,10,20
"""

from pathlib import Path

from absl import flags

from genjax.api import vary
from genjax.training import variations

from . import cli, dry_run, used

WORKDIR = flags.DEFINE_string("workdir", None, "The run to sample from.", required=True)
OVER = flags.DEFINE_multi_string(
    "over", [], "FIELD=VALUE,VALUE,...; may be repeated: all combinations are evaluated."
)
NUM = flags.DEFINE_integer("num", 1000, "Samples of each setting.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples, the same for each setting.")
OUT = flags.DEFINE_string("out", None, "Folder to write to; default WORKDIR/vary.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the run with its overrides, and exit.")


def main(overrides: cli.Overrides) -> None:
    """Evaluates the settings that the flags select."""
    over = variations.parse_over(OVER.value)
    used.check_overrides("vary", [*overrides, *((path, "") for path, _ in over)])
    if DRY_RUN.value:
        for setting in variations.settings(over):
            print(dry_run.describe_workdir(Path(WORKDIR.value), [*overrides, *setting]))
        return
    out = Path(OUT.value) if OUT.value else None
    vary.vary(Path(WORKDIR.value), overrides, over, num=NUM.value, seed=SEED.value, out=out)


if __name__ == "__main__":
    cli.run(main)
