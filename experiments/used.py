"""Flags that a verb does not use are refused: an option without effect is an error, not a silent default."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from genjax.core.errors import UserError

from . import cli

LOOP = ("steps", "steps_per_call", "compile", "zero1", "input")
WRITTEN = ("log_every", "checkpoint_every", "keep_last", "keep_every", "sample_every")
TRAINING = dict.fromkeys((*LOOP, *WRITTEN), "")
SAMPLING = {"evaluation.num": "--num", "evaluation.pictured": "", "evaluation.likelihoods": "", **TRAINING}
SEEDED = {"evaluation.seed": "--seed", "metrics": "", **SAMPLING}
UNUSED: Mapping[
    str, Mapping[str, str]
] = {  # verb -> field of the experiment without effect -> flag in its place
    "sample": SEEDED,
    "edit": SEEDED,
    "vary": SAMPLING,
    "stream": SAMPLING,
    "evaluate": TRAINING,
}


def check_overrides(verb: str, overrides: cli.Overrides) -> None:
    """Refuses overrides of fields that a verb does not use.

    Raises:
        UserError: names the field, and the flag in its place.
    """
    for path, _ in overrides:
        for field, flag in UNUSED[verb].items():
            if path == field or path.startswith(f"{field}."):
                raise UserError(f"config.{path} has no effect on {verb}{f': set {flag}' if flag else ''}")


def check_flags(needed: Sequence[tuple[flags.FlagHolder[Any], bool, str]]) -> None:
    """Refuses flags that are given and have no effect beside the others.

    Args:
        needed: (flag, whether it has an effect, when it has one, as text).

    Raises:
        UserError: names the flag and when it has an effect.
    """
    for flag, used, when in needed:
        if flag.present and not used:
            raise UserError(f"--{flag.name} has an effect {when} only")
