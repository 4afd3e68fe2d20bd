"""An option without effect is refused, for all verbs of a work directory."""

import dataclasses
import re

import documented
import pytest

from experiments import used
from genjax.core.errors import UserError
from genjax.training.experiment import Evaluation, Experiment

WITHOUT_EFFECT = [(verb, field) for verb, fields in used.UNUSED.items() for field in fields]
COMMANDS = {
    "vary": "--over=objective.sampler.steps=1 --config.evaluation.num=40",
    "vary over": "--over=evaluation.num=40,50",
    "sample": "--config.evaluation.num=40",
    "sample part": "--config.input.workers=2",
    "sample prompt": "--prompt=a --num=2",
    "sample beams": "--prompt=a --beams=2 --seed=3",
    "stream": "--config.evaluation.num=40",
    "evaluate": "--config.steps=9",
    "edit": "--config.evaluation.num=40",
    "edit strength": "--task=inpaint --strength=0.2",
    "edit factor": "--task=inpaint --factor=3",
    "edit method": "--task=sdedit --method=replace",
    "edit repeats": "--task=inpaint --repeats=3",
    "edit points": "--task=sdedit --points=3",
    "edit path": "--task=traverse --path=linear",
    "edit beside": "--task=inpaint --beside=runs/other",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_without_effect_is_refused_in_one_line(name):
    """Before the work directory is looked for."""
    with pytest.raises(UserError, match=r"has (no|an) effect") as error:
        documented.run(name.split()[0], ["--workdir=nowhere", *COMMANDS[name].split()])
    assert "\n" not in str(error.value)


def test_the_flag_in_its_place_is_one_of_the_program():
    for verb, fields in used.UNUSED.items():
        with documented.program(verb):
            assert all(flag[2:] in documented.FLAGS for flag in fields.values() if flag)


@pytest.mark.parametrize(("verb", "field"), WITHOUT_EFFECT)
def test_fields_without_effect_are_tunable_ones_of_an_experiment(verb, field):
    """The others are refused because training used them."""
    kind = Experiment
    *parents, name = field.split(".")
    if parents:
        assert parents == ["evaluation"]
        kind = Evaluation
    (found,) = (item for item in dataclasses.fields(kind) if item.name == name)
    assert parents or found.metadata.get("tunable")
    with pytest.raises(UserError, match=re.escape(f"config.{field} has no effect on {verb}")):
        used.check_overrides(verb, [(field, "1")])


@pytest.mark.parametrize("verb", used.UNUSED)
def test_other_fields_pass(verb):
    used.check_overrides(
        verb, [("objective.sampler.steps", "3"), ("evaluation.batch_size", "8"), ("mesh", "data:1")]
    )
