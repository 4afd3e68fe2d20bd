"""Draws samples from a trained run.

python -m experiments.sample --workdir=DIR --num=100 --seed=0 [--label=3] [--config.objective.sampler.steps=20]
python -m experiments.sample --workdir=DIR --prompt="def " --config.objective.decoding.temperature=0.7
python -m experiments.sample --workdir=DIR --prompt="def " --beams=4 [--length_penalty=0.6]   # the best, with scores
python -m experiments.sample --workdir=DIR --prompt="def " --draft=DIR2 [--drafts=4]    # speculative decoding
"""

from pathlib import Path

from absl import flags

from experiments import cli
from genjax.api import sample
from genjax.core.errors import UserError
from genjax.samplers.decoding.beam import Beam

WORKDIR = flags.DEFINE_string("workdir", None, "The run to sample from.", required=True)
NUM = flags.DEFINE_integer("num", 100, "How many samples.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.")
LABEL = flags.DEFINE_integer("label", None, "One class for all samples; default: the classes in turn.")
OUT = flags.DEFINE_string("out", None, "The .npz to write, a picture beside it; default WORKDIR/samples.npz.")
PROMPT = flags.DEFINE_multi_string("prompt", [], "Text to go on from; may be given several times.")
BEAMS = flags.DEFINE_integer(
    "beams", None, "Search the best of so many continuations of a prompt.", lower_bound=1
)
PENALTY = flags.DEFINE_float("length_penalty", None, "Scores are divided by length to this power; default 1.")
DRAFT = flags.DEFINE_string(
    "draft", None, "The run of a smaller model that drafts for this one, for prompts."
)
DRAFTS = flags.DEFINE_integer("drafts", None, "Tokens that it drafts in a round; default 4.", lower_bound=1)
TRACE = flags.DEFINE_integer(
    "trace", 0, "So many states of each sample's path instead of its end alone; 0 for none.", lower_bound=0
)


def check_flags() -> None:
    """Refuses flags that say nothing without another one.

    Raises:
        UserError: names both.
    """
    needs = [(BEAMS, PROMPT), (DRAFT, PROMPT), (PENALTY, BEAMS), (DRAFTS, DRAFT)]
    for flag, other in needs:
        if flag.value is not None and not other.value:
            raise UserError(f"--{flag.name} needs --{other.name}")
    for flag in (TRACE, LABEL):
        if PROMPT.value and flag.present:
            raise UserError(f"--{flag.name} is for samples without a --prompt")


def main(overrides: cli.Overrides) -> None:
    """Runs what the flags say."""
    out = Path(OUT.value) if OUT.value else None
    check_flags()
    if PROMPT.value:
        beam = (
            None
            if BEAMS.value is None
            else Beam(BEAMS.value, 1.0 if PENALTY.value is None else PENALTY.value)
        )
        sample.complete(
            Path(WORKDIR.value),
            overrides,
            PROMPT.value,
            seed=SEED.value,
            out=out,
            beam=beam,
            draft=Path(DRAFT.value) if DRAFT.value else None,
            drafts=DRAFTS.value or 4,
        )
        return
    sample.sample(
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
