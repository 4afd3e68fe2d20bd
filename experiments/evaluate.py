"""Evaluates a trained run: distances to the test split, memorisation, likelihood; writes evaluation.json.

python -m experiments.evaluate --workdir=DIR [--config.evaluation.num=5000]
"""

from pathlib import Path

from absl import flags

from genjax import cli, verbs

WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate.", required=True)


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    verbs.evaluate_workdir(Path(WORKDIR.value), overrides)


if __name__ == "__main__":
    cli.run(main)
