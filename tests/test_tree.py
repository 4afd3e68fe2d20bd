"""Typed trees: overrides by path and type, json round trips, differences."""

import dataclasses
import json
from typing import Any, Literal

import numpy as np
import pytest

from genjax.conditioning.labels import Labels
from genjax.core import tree
from genjax.core.errors import UserError
from genjax.core.overrides import overrides
from genjax.data import Data, Digits, Scale
from genjax.diffusion.process import VE
from genjax.distributions.likelihoods import Bernoulli, OptimalGaussian
from genjax.networks import MLP, UNet
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import Heun
from genjax.training.experiment import Experiment, load
from genjax.training.optimizers import Adam, Cosine


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    name: str | None = None
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    free: Any = 3


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = (Inner(), Inner(rate=2.0))
    table: Any = dataclasses.field(default_factory=lambda: {"a": Inner()})
    count: int = tree.tunable(4)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("count", "7", 7),
        ("inner.rate", "1e-3", 1e-3),
        ("inner.rate", "3", 3.0),
        ("inner.sizes", "3,4,5", (3, 4, 5)),
        ("inner.sizes", "(8,)", (8,)),
        ("inner.sizes", "", ()),
        ("inner.pair", "2,b", (2, "b")),
        ("inner.name", "hello", "hello"),
        ("inner.name", "none", None),
        ("inner.mode", "slow", "slow"),
        ("inner.flag", "true", True),
        ("inner.flag", "0", False),
        ("inner.free", "5", 5),
        ("parts.1.rate", "9", 9.0),
        ("table.a.rate", "9", 9.0),
    ],
)
def test_override_sets_the_leaf_and_nothing_else(path, text, value):
    old = Outer()
    new = tree.override(old, path, text)
    found: Any = new
    for name in path.split("."):
        found = (
            found[int(name)]
            if isinstance(found, tuple)
            else found[name]
            if isinstance(found, dict)
            else getattr(found, name)
        )
    assert found == value
    assert type(found) is type(value)
    changed = tree.differences(tree.describe(old), tree.describe(new))
    assert all(where.startswith(path) for where, _, _ in changed)
    assert old == Outer()


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("inner.rat", "1", ["config.inner", "'rate'", "rate, sizes"]),
        ("inner.rate", "fast", ["config.inner.rate", "float", "0.5"]),
        ("count", "2.5", ["config.count", "int", "4"]),
        ("inner.flag", "maybe", ["bool"]),
        ("inner.mode", "medium", ["fast", "slow"]),
        ("inner.sizes", "1,x", ["tuple[int, ...]"]),
        ("inner.pair", "1", ["tuple[int, str]"]),
        ("inner", "3", ["Inner", "rate"]),
        ("parts.7.rate", "1", ["2 elements"]),
        ("table.b.rate", "1", ["(one of: a)"]),
        ("count.x", "1", ["no field 'x'"]),
    ],
)
def test_invalid_overrides_raise_one_line(path, text, words):
    with pytest.raises(UserError) as caught:
        tree.override(Outer(), path, text)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def find(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)


def experiment() -> Experiment:
    data = Data(Digits(), (Scale(0, 16),))
    net = UNet(channels=16, multipliers=(1, 2))
    return Experiment(
        Diffusion(net, data.shape, Labels(data.classes, 0.1)), data, {"net": Adam(schedule=Cosine(warmup=3))}
    )


@pytest.mark.parametrize(
    "value", [Outer(), experiment(), MLP(width=7), Outer(inner=Inner(rate=float("inf"), free=np.sum))]
)
def test_json_round_trip(value):
    text = json.dumps(tree.describe(value), allow_nan=False)
    assert tree.restore(json.loads(text), find) == value


def test_linen_modules_are_nodes():
    new = tree.override(experiment(), "objective.net.multipliers", "1,2,4")
    assert new.objective.net == UNet(channels=16, multipliers=(1, 2, 4))
    with pytest.raises(UserError, match="did you mean 'channels'"):
        tree.override(experiment(), "objective.net.chanels", "3")


def test_a_node_can_be_replaced_by_another_class_of_its_type():
    """By class name, from the same package; its own fields can be overridden; a class of another type raises."""
    new = tree.override(experiment(), "objective.sampler", "Heun")
    assert new.objective.sampler == Heun()
    assert tree.override(new, "objective.sampler.steps", "7").objective.sampler == Heun(steps=7)
    assert tree.override(experiment(), "objective.process", "VE").objective.process == VE()
    with pytest.raises(UserError, match="did you mean 'DPMSolverPP'") as caught:
        tree.override(experiment(), "objective.sampler", "DPMSolver")
    assert "set one of its fields (steps, grid, eta)" in str(caught.value)
    with pytest.raises(UserError, match="or replace it") as caught:
        tree.override(experiment(), "objective.sampler", "VE")
    assert "LangevinCorrector" not in str(caught.value), "a corrector is not a sampler"


def test_a_field_of_union_type_accepts_each_of_its_types():
    """A fixed likelihood and one that fits its scale satisfy different protocols."""
    vae = load("vae_digits")
    new = tree.override(vae, "objective.likelihood", "OptimalGaussian")
    assert new.objective.likelihood == OptimalGaussian()
    assert tree.override(new, "objective.likelihood", "Bernoulli").objective.likelihood == Bernoulli()
    with pytest.raises(UserError, match="did you mean 'OptimalGaussian'"):
        tree.override(vae, "objective.likelihood", "OptimlGaussian")


def test_values_without_a_json_form_raise_with_their_path():
    with pytest.raises(UserError, match=r"config\.inner\.free"):
        tree.describe(Outer(inner=Inner(free=np.zeros(2))))
    with pytest.raises(UserError, match="by name at the top level of a module"):
        tree.describe(Outer(inner=Inner(free=lambda: 0)))


def test_a_removed_field_is_named():
    stored = tree.describe(Inner()) | {"speed": 3}
    with pytest.raises(UserError, match="'speed'"):
        tree.restore(stored, find)


def test_differences_give_old_and_new_values_without_tunables():
    old, new = Outer(), tree.override(tree.override(Outer(), "count", "5"), "inner.rate", "0.25")
    described = [tree.describe(value, fields=tree.untunable) for value in (old, new)]
    assert tree.differences(*described) == [("inner.rate", 0.5, 0.25)]
    swapped = dataclasses.replace(old, inner=Outer())
    paths = {path for path, _, _ in tree.differences(tree.describe(old), tree.describe(swapped))}
    assert "inner" in paths, "another class is a difference"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("vae_digits", [("steps", "70")]),
        ("vae_digits", [("objective.encoder.channels", "8,16,32"), ("objective.bound.penalty.beta", "0.5")]),
        ("vae_digits", [("objective.likelihood", "OptimalGaussian"), ("optimizer.clip", "2.5")]),
        ("diffusion_digits", [("objective.sampler", "Heun"), ("objective.sampler.steps", "7")]),
        ("diffusion_digits", [("data.transforms.0.high", "15.5"), ("seed", "3")]),
        ("gan_digits", [("optimizer.generator.learning_rate", "1e-05")]),
        ("gan_digits", []),
    ],
)
def test_overrides_recovers_the_overrides_between_two_trees(spec, words):
    assert sorted(overrides(load(spec), load(spec, words))) == sorted(words)
    assert load(spec, list(overrides(load(spec), load(spec, words)))) == load(spec, words)
    named = Outer(inner=Inner(name="a", flag=True))
    assert dict(overrides(named, Outer())) == {"inner.name": "none", "inner.flag": "false"}
