"""Judges a trained run by samples that no process holds together; writes streamed.json.

python -m experiments.stream --workdir=DIR --num=50000 [--features=classifier] [--sums_only]
python -m experiments.stream --workdir=DIR --features=inception --inception=WEIGHTS [--config.evaluation.batch_size=64]
"""

from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api import evaluate_stream

WORKDIR = flags.DEFINE_string("workdir", None, "The run to judge.", required=True)
NUM = flags.DEFINE_integer("num", 50_000, "Samples; and test examples, at most all.")
FEATURES = flags.DEFINE_string("features", "", "classifier, random_convolutions, identity or inception.")
INCEPTION = flags.DEFINE_string("inception", None, "Weights of FID's Inception-v3, .pth or .safetensors.")
SUMS = flags.DEFINE_bool("sums_only", False, "Keep no features: only the metrics that are made of sums.")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    evaluate_stream.stream_workdir(
        Path(WORKDIR.value),
        overrides,
        features=FEATURES.value,
        num=NUM.value,
        keep=not SUMS.value,
        inception=Path(INCEPTION.value) if INCEPTION.value else None,
    )


if __name__ == "__main__":
    cli.run(main)
