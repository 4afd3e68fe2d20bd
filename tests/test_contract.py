"""The contract over all shipped configs, by abstract evaluation: conditions, reports of sampling, shapes, wrappers."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import SMALL, Untrained

from genjax.conditioning.labels import Labels
from genjax.core import objective as contract
from genjax.core.errors import UserError
from genjax.core.objective import Adapter, Conditioner, HasTranslation, Samples
from genjax.core.types import Condition
from genjax.data.source import Source
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.distributions.likelihoods import Categorical
from genjax.evaluation.evaluate import tunable_settings
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vae import VAE
from genjax.objectives.lora import LoRA
from genjax.training import experiment as experiments

NUM = 2
REPORT = re.compile(r"[^,]+, \d+ steps?, \d+ evaluations? per sample")


@functools.cache
def batch_of(data):
    """Shapes of a batch of the data, in the data's units and in the model's; skips data that are not here."""
    try:
        raw = {"x": jax.ShapeDtypeStruct((NUM, *data.shape), data.source.dtype)}
        if data.classes:
            raw["label"] = jax.ShapeDtypeStruct((NUM,), np.int32)
        return jax.eval_shape(lambda raw: data.forward(raw, jax.random.key(0), True), raw)
    except UserError as error:
        pytest.skip(str(error))


def conditions(experiment):
    """What samples can be asked for, as shapes."""
    if isinstance(experiment.objective, HasTranslation):
        return {"x": batch_of(experiment.data)["x"]}
    classes = contract.num_classes(experiment.objective)
    return {"label": jax.ShapeDtypeStruct((NUM,), np.int32)} if classes else None


LARGE = ("mnist", "emoji", "bytes", "gpt", "_audio")  # their digits and points have the same parts
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if any(word in name for word in LARGE) else [])
    for name in sorted(experiments.shipped())
]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configs_keep_the_contract(name):
    """The condition accepts the data's batch, the report names the method, samples have the data's shape."""
    experiment = experiments.load(name)
    objective, data, batch = experiment.objective, experiment.data, batch_of(experiment.data)
    assert isinstance(data.source, Source)
    assert objective.condition is None or isinstance(objective.condition, Conditioner)
    assert isinstance(objective, Samples)
    assert REPORT.fullmatch(str(objective.sampling)), str(objective.sampling)
    assert objective.sampling.evaluations >= 1

    def drawn(batch, cond):
        if objective.condition:
            objective.condition.check(batch)
            made = objective.condition(batch, NUM)
            assert isinstance(made, Condition)
            assert made.vector.shape[0] == NUM
        params, extra = objective.init(jax.random.key(0), batch)
        return objective.sample(params, extra, jax.random.key(1), NUM, cond)

    samples = jax.eval_shape(drawn, batch, conditions(experiment))
    assert samples.shape == (NUM, *data.shape)
    assert samples.dtype in (jnp.float32, jnp.int32)


CODER = VAE(SMALL, SMALL, (8, 8, 1), 2, likelihood=Categorical(17))
PRIOR = Diffusion(
    SMALL, (2,), Labels(3, 0.1), guidance=ClassifierFree(2.0), likelihood=OdeLikelihood(steps=0)
)
LATENT = Latent(CODER, Untrained(), PRIOR)
FORWARDED = {
    "Samples": ("sampling",),
    "HasLogProb": ("log_prob_kind",),
    "HasLevels": ("levels",),
    "Dequantizes": ("dequantization",),
    "HasElements": (),
}


@pytest.mark.parametrize("name", sorted(experiments.shipped()))
def test_an_adapter_has_what_its_inner_objective_has(name):
    inner = experiments.load(name).objective
    lora = LoRA(inner, Untrained())
    assert isinstance(lora, Adapter)
    assert lora.inner is inner
    assert lora.condition == inner.condition
    for capability, members in FORWARDED.items():
        protocol = vars(contract)[capability]
        assert isinstance(lora, protocol)
        for member in members if isinstance(inner, protocol) else ():
            assert vars(type(lora))[member].fget(lora) == eval(f"inner.{member}", {"inner": inner})


def test_an_adapter_of_an_objective_without_a_capability_has_neutral_values():
    lora = LoRA(PRIOR, Untrained())
    assert (lora.levels, lora.dequantization) == (0, "")
    assert lora.elements({"x": jnp.zeros((3, 4, 5))}).tolist() == [20.0] * 3


def test_a_model_of_latents_has_what_its_parts_have():
    assert LATENT.condition == PRIOR.condition
    assert LATENT.sampling == PRIOR.sampling
    assert LATENT.levels == 17
    assert LATENT.latent_shape == (2,)
    batch = {"x": jnp.zeros((NUM, 8, 8, 1)), "label": jnp.zeros(NUM, jnp.int32)}
    small = dataclasses.replace(
        LATENT, model=dataclasses.replace(PRIOR, sampler=dataclasses.replace(PRIOR.sampler, steps=2))
    )

    @jax.jit
    def draw(batch):
        values = small.init(jax.random.key(0), batch)
        return small.path(*values, jax.random.key(1), NUM), small.sample(*values, jax.random.key(1), NUM)

    (times, states), samples = draw(batch)
    assert states.shape == (len(times), NUM, 8, 8, 1)
    np.testing.assert_allclose(states[-1], samples, rtol=1e-5, atol=1e-5)
    without = dataclasses.replace(LATENT, model=VAE(SMALL, SMALL, (2,), 2))
    with pytest.raises(UserError, match="no path"):
        without.path({}, {"model": {}}, jax.random.key(1), NUM)


def test_reports_of_wrappers_hold_the_inner_samplers_steps_and_guidance():
    found = tunable_settings(LoRA(LATENT, Untrained()))
    assert found["objective.inner.model.guidance"]["scale"] == 2.0
    assert found["objective.inner.model.sampler"]["steps"] == PRIOR.sampler.steps
