"""Compares trained models of the same data on one self-contained HTML page.

python -m experiments.compare --run=DIR --run=DIR@objective.sampler.steps=10 ... [--out=comparison.html]

Runs that differ only in their seed form one row, see `genjax.evaluation.comparison`. The numbers are written beside the
page as Markdown and JSON.
"""

from pathlib import Path

from absl import flags

from genjax.core.errors import UserError
from genjax.evaluation.comparison import compare, parse
from genjax.parallel.console import say
from genjax.reports.comparison_page import write

from . import cli, dry_run

RUN = flags.DEFINE_multi_string("run", [], "A work directory, or DIR@field=value with sampling settings.")
NUM = flags.DEFINE_integer("num", 1000, "Samples of each run.", lower_bound=32)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.")
OUT = flags.DEFINE_string(
    "out", "comparison.html", "The HTML page; its numbers are written beside it as .md and .json."
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the runs with their settings, and exit.")


def main(overrides: cli.Overrides) -> None:
    """Compares the runs that the flags name."""
    if overrides:
        raise UserError("attach overrides to a run: --run=DIR@objective.sampler.steps=10")
    if DRY_RUN.value:
        for word in RUN.value:
            print(dry_run.describe_workdir(*parse(word)))
        return
    rows = compare(RUN.value, NUM.value, SEED.value)
    for path in write(Path(OUT.value), rows, NUM.value, SEED.value):
        say(f"wrote {path}")


if __name__ == "__main__":
    cli.run(main)
