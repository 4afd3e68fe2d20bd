"""Draws samples from a trained run.

python -m experiments.sample --workdir=DIR --num=100 --seed=0 [--label=3] [--config.objective.sampler.steps=20]
python -m experiments.sample --workdir=DIR --prompt="def " --config.objective.decoding.temperature=0.7
"""

from pathlib import Path

from absl import flags

from genjax import cli, verbs

WORKDIR = flags.DEFINE_string("workdir", None, "The run to sample from.", required=True)
NUM = flags.DEFINE_integer("num", 100, "How many samples.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.")
LABEL = flags.DEFINE_integer("label", None, "One class for all samples; default: the classes in turn.")
OUT = flags.DEFINE_string("out", None, "The .npz to write, a picture beside it; default WORKDIR/samples.npz.")
PROMPT = flags.DEFINE_multi_string("prompt", [], "Text to go on from; may be given several times.")
TRACE = flags.DEFINE_integer(
    "trace", 0, "So many states of each sample's path instead of its end alone; 0 for none.", lower_bound=0
)


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    out = Path(OUT.value) if OUT.value else None
    if PROMPT.value:
        verbs.complete(Path(WORKDIR.value), overrides, PROMPT.value, seed=SEED.value, out=out)
        return
    verbs.sample(
        Path(WORKDIR.value),
        overrides,
        num=NUM.value,
        seed=SEED.value,
        label=LABEL.value,
        out=out,
        trace=TRACE.value,
    )


if __name__ == "__main__":
    cli.run(main)
