"""Evaluates sample sets with known faults by every metric and checks their ranks: `genjax.evaluation.metric_sanity`.

python -m experiments.metric_sanity --config=diffusion_digits
python -m experiments.metric_sanity --config=diffusion_mnist:fashion_mnist --config.data.source.data_dir=DIR --num=2000
"""

import sys

import numpy as np
from absl import flags

from genjax.core.errors import UserError
from genjax.data import Data
from genjax.data.examples import Subset
from genjax.evaluation import metric_sanity
from genjax.metrics.inputs import SampleSet, Settings
from genjax.parallel.console import say
from genjax.training import experiment

from . import cli

CONFIG = flags.DEFINE_string("config", None, "A config with labelled images.", required=True)
NUM = flags.DEFINE_integer("num", 400, "Examples of each set.", lower_bound=64)
TRAIN = flags.DEFINE_integer("train", 20_000, "Most training examples to use.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check the config and exit.")


def part(data: Data, split: str, num: int) -> SampleSet:
    """A random subset of a split.

    Args:
        data: labelled images.
        split: name of the split.
        num: most examples.

    Returns:
        The examples with their labels.
    """
    examples = Subset(data.load(split), num)
    rows = examples[np.arange(len(examples))]
    return SampleSet(rows["x"], rows["label"].astype(np.int64))


def main(overrides: cli.Overrides) -> None:
    """Runs all metrics on all sets; exits with code 1 if a metric ranks a set wrongly."""
    data = experiment.load(CONFIG.value, overrides).data
    if data.kind != "image" or not data.classes or not data.levels:
        raise UserError(
            f"--config={CONFIG.value} has {data.kind} data without labels or levels: labelled images are needed"
        )
    if DRY_RUN.value:
        print(f"{CONFIG.value}: {data.classes} classes of images of shape {data.shape}")
        return
    train, test = part(data, "train", TRAIN.value), part(data, "test", NUM.value)
    num = min(NUM.value, len(train.x) // 4, len(test.x))
    rows = metric_sanity.evaluate_sets(
        train, test, data.levels, num=num, seed=SEED.value, settings=Settings(max_examples=num), report=say
    )
    say(
        f"{CONFIG.value}: {num} of each set, features: {rows[metric_sanity.REAL]['features']}, seed {SEED.value}"
    )
    for line in metric_sanity.table(rows):
        say(line)
    wrong = metric_sanity.wrong_ranks(rows)
    for line in wrong:
        say(f"WRONG: {line}")
    if wrong:
        sys.exit(1)
    say(f"all {len(metric_sanity.EXPECTATIONS)} metrics rank the sets as expected")


if __name__ == "__main__":
    cli.run(main, alone=True)
