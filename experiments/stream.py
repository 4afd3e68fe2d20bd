"""Evaluates a trained run on streamed samples that are never held in memory together; writes streamed.json.

python -m experiments.stream --workdir=DIR --num=50000 [--features=classifier] [--sums_only]
python -m experiments.stream --workdir=DIR --features=inception --inception=WEIGHTS [--config.evaluation.batch_size=64]
"""

from pathlib import Path

from absl import flags

from genjax.api import evaluate_stream

from . import cli, dry_run, used

WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate.", required=True)
NUM = flags.DEFINE_integer("num", 50_000, "Number of samples, and most test examples.")
FEATURES = flags.DEFINE_string("features", "", "classifier, random_convolutions, identity or inception.")
INCEPTION = flags.DEFINE_string("inception", None, "Weights of FID's Inception-v3, .pth or .safetensors.")
SUMS = flags.DEFINE_bool("sums_only", False, "Keep no features: only metrics of sums.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the run with its overrides, and exit.")


def main(overrides: cli.Overrides) -> None:
    """Evaluates the run."""
    used.check_overrides("stream", overrides)
    if DRY_RUN.value:
        print(dry_run.describe_workdir(Path(WORKDIR.value), overrides))
        return
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
