"""Draws samples from a trained run.

python -m experiments.sample --workdir=DIR --num=100 --seed=0 [--label=3] [--config.objective.sampler.steps=20]
python -m experiments.sample --workdir=DIR --prompt="def " --config.objective.decoding.temperature=0.7
python -m experiments.sample --workdir=DIR --prompt="def " --beams=4 [--length_penalty=0.6]   # beam search, with scores
python -m experiments.sample --workdir=DIR --prompt="def " --draft=DIR2 [--drafts=4]    # speculative decoding
"""

from pathlib import Path

from absl import flags

from genjax.api.complete import write_completions
from genjax.api.load import load
from genjax.api.sample import write_samples
from genjax.core.errors import UserError
from genjax.samplers.decoding.beam import Beam

from . import cli, dry_run, used

WORKDIR = flags.DEFINE_string("workdir", None, "The run to sample from.", required=True)
NUM = flags.DEFINE_integer("num", 100, "Number of samples.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.")
LABEL = flags.DEFINE_string("label", None, "Class of all samples, by number or name; default: all in turn.")
OUT = flags.DEFINE_string("out", None, "The .npz to write, a picture beside it; default WORKDIR/samples.npz.")
PROMPT = flags.DEFINE_multi_string("prompt", [], "Text to continue; may be repeated.")
BEAMS = flags.DEFINE_integer(
    "beams", None, "Beam search with this many beams for each prompt.", lower_bound=1
)
PENALTY = flags.DEFINE_float(
    "length_penalty", None, "Exponent of the length by which scores are divided; default 1."
)
DRAFT = flags.DEFINE_string(
    "draft", None, "The run of a smaller draft model, for speculative decoding of prompts."
)
DRAFTS = flags.DEFINE_integer("drafts", None, "Draft tokens per round; default 4.", lower_bound=1)
TRACE = flags.DEFINE_integer(
    "trace",
    0,
    "Number of states of each sampling path to write instead of samples; 0 for none.",
    lower_bound=0,
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the run with its overrides, and exit.")


def check_flags() -> None:
    """Checks flags that depend on another one.

    Raises:
        UserError: a flag is given without the one it needs, or with one that it excludes; names both.
    """
    needs = [(BEAMS, PROMPT), (DRAFT, PROMPT), (PENALTY, BEAMS), (DRAFTS, DRAFT)]
    for flag, other in needs:
        if flag.value is not None and not other.value:
            raise UserError(f"--{flag.name} needs --{other.name}")
    if BEAMS.value is not None and DRAFT.value:
        raise UserError("--beams and --draft exclude each other: give one of them")
    used.check_flags([(flag, not PROMPT.value, "without --prompt") for flag in (TRACE, LABEL, NUM)])
    used.check_flags([(SEED, BEAMS.value is None, "without --beams, which draw nothing,")])


def main(overrides: cli.Overrides) -> None:
    """Draws samples, or completes the prompts."""
    used.check_overrides("sample", overrides)
    check_flags()
    if DRY_RUN.value:
        print(dry_run.describe_workdir(Path(WORKDIR.value), overrides))
        return
    run = load(WORKDIR.value, overrides)
    if not PROMPT.value:
        write_samples(run, NUM.value, label=LABEL.value, seed=SEED.value, out=OUT.value, trace=TRACE.value)
        return
    penalty = 1.0 if PENALTY.value is None else PENALTY.value
    write_completions(
        run,
        PROMPT.value,
        seed=SEED.value,
        out=OUT.value,
        beam=None if BEAMS.value is None else Beam(BEAMS.value, penalty),
        draft=load(DRAFT.value) if DRAFT.value else None,
        drafts=DRAFTS.value or 4,
    )


if __name__ == "__main__":
    cli.run(main)
