"""Sharding over a mesh: all meshes give the losses of one device, with the expected collectives and no others."""

import dataclasses
import functools
import math
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError
from genjax.core.sharding_rules import Rule, constrain
from genjax.data import Data, Digits, Scale, StdlibBytes
from genjax.evaluation.collectives import Collective, collectives
from genjax.evaluation.likelihood import likelihood_report
from genjax.evaluation.sampling import draw_samples
from genjax.networks import ConvDecoder, ConvEncoder, UNet
from genjax.networks.layers.linen import regroup
from genjax.networks.transformers.dit import DiT
from genjax.networks.transformers.experts import Mixture
from genjax.networks.transformers.token_transformer import gpt2, llama
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel import mesh as parallel
from genjax.parallel import placement
from genjax.training import compile, loop
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam

TEXT = Data(StdlibBytes(length=32))
GRAY = Data(Digits(), (Scale(0.0, 16.0),))


def text(net) -> Experiment:
    objective = Autoregressive(net=net, shape=TEXT.shape, values=TEXT.levels)
    return Experiment(objective, TEXT, Adam(learning_rate=1e-3), steps=20, batch_size=16)


def image(objective) -> Experiment:
    return Experiment(objective, GRAY, Adam(learning_rate=1e-3), steps=20, batch_size=16)


NETS = {
    "gpt": lambda: text(gpt2(depth=2, width=64, heads=4)),
    "llama": lambda: text(llama(depth=2, width=64, heads=8, groups=4)),
    "experts": lambda: text(gpt2(depth=2, width=32, heads=4, experts=Mixture(experts=4, active=1))),
    "dit": lambda: image(Diffusion(net=DiT(width=64, depth=2, heads=4), shape=GRAY.shape)),
    "unet": lambda: image(Diffusion(net=UNet(channels=32, multipliers=(1, 2), blocks=1), shape=GRAY.shape)),
    "gan": lambda: image(
        GAN(ConvDecoder((32, 32)), ConvEncoder((32, 32), norm="none"), shape=GRAY.shape, latent=16)
    ),
}
SPLIT = ("data:8", "data:2,fsdp:4", "data:4,tensor:2", "data:2,fsdp:2,tensor:2")
TABLE = [(name, mesh) for name in ("gpt", "dit", "unet", "gan") for mesh in SPLIT]
TABLE += [("gpt", "data:2,sequence:4"), ("gpt", "data:2,tensor:2,sequence:2"), ("llama", "data:2,tensor:4")]
TABLE += [
    ("experts", "data:2,expert:4"),
    ("experts", "data:2,tensor:2,expert:2"),
    ("dit", "data:4,sequence:2"),
]


def ready(name: str, mesh: str, **changes) -> loop.Run:
    experiment = dataclasses.replace(NETS[name](), **changes)
    if mesh.startswith("devices:"):
        devices = jax.devices()[: int(mesh.removeprefix("devices:"))]
        return loop.prepare(experiment, Mesh(np.array(devices), ("data",)))
    return loop.prepare(dataclasses.replace(experiment, mesh=mesh))


def take_steps(run: loop.Run, state, first: int, last: int) -> tuple:
    """(state, losses [steps, players])."""
    losses = []
    for step in range(first, last):
        state, metrics = run.compiled(state, run.batch(step, 1), False)
        losses.append([float(value) for name, value in metrics.items() if name.endswith("/loss")])
    return state, np.asarray(losses)


@functools.cache
def on_one_device(name: str) -> np.ndarray:
    run = ready(name, "devices:1")
    return take_steps(run, run.make_state(), 0, 20)[1]


@functools.cache
def program(name: str, mesh: str) -> list[Collective]:
    run = ready(name, mesh)
    step: Any = compile.compile_step(run.step, run.mesh, run.shardings)
    return collectives(step.lower(run.template(), run.raw(0)).compile().as_text())


def sizes(name: str) -> list[int]:
    """Number of elements of each parameter; of stacked ones, per layer."""
    leaves = jax.tree_util.tree_leaves_with_path(ready(name, "data:8").template().params)
    stacked = ["blocks" in jax.tree_util.keystr(path) for path, _ in leaves]
    return [leaf.size // (leaf.shape[0] if s else 1) for s, (_, leaf) in zip(stacked, leaves, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mesh"), TABLE)
def test_twenty_steps_equal_those_of_one_device(name, mesh):
    run = ready(name, mesh)
    _, losses = take_steps(run, run.make_state(), 0, 20)
    np.testing.assert_allclose(losses, on_one_device(name), rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "gan"])
def test_zero1_splits_optimizer_state_and_ema(name):
    """Parameters are replicated, optimizer state and EMA split by eight, the losses unchanged."""
    run = ready(name, "data:8", zero1=True)
    state = run.make_state()
    whole, held = placement.bytes_held(state.params)
    assert held == whole
    for part in (state.opt_state, state.ema):
        whole, held = placement.bytes_held(part)
        assert held < whole / 8 * 1.2
    state, losses = take_steps(run, state, 0, 20)
    np.testing.assert_allclose(losses, on_one_device(name), rtol=2e-4, atol=1e-5)
    assert placement.bytes_held(state.opt_state)[1] < placement.bytes_held(state.opt_state)[0] / 8 * 1.2


@pytest.mark.parametrize("name", ["gpt", "dit", "unet", "gan"])
def test_fsdp_divides_the_bytes_on_a_device(name):
    """By four, except for arrays of less than 1024 elements, which are replicated."""
    shapes = ready(name, "data:2,fsdp:4").template()
    numbers = lambda leaf: math.prod(leaf.sharding.shard_shape(leaf.shape))
    arrays = jax.tree.leaves((shapes.params, shapes.opt_state, shapes.ema))
    whole, held = sum(leaf.size for leaf in arrays), sum(map(numbers, arrays))
    small = sum(leaf.size for leaf in arrays if leaf.size < placement.SMALLEST_SPLIT)
    assert held == (whole - small) / 4 + small
    assert held < whole / 4 * 1.1


def test_bytes_held_measures_the_shards():
    mesh = parallel.make_mesh("data:2,fsdp:4")
    split = jax.device_put(jnp.zeros((8, 4)), jax.NamedSharding(mesh, P("fsdp")))
    whole = jax.device_put(jnp.zeros(3), jax.NamedSharding(mesh, P()))
    assert placement.bytes_held({"a": split, "b": whole}) == (4 * 35, 4 * (8 + 3))


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "dit", "unet", "gan"])
def test_data_parallel_steps_reduce_every_gradient_once(name):
    """All-reduces of as many elements as there are parameters, and of a few scalars.

    Parameters used several times are reduced once per use: GPT-2's token embedding, which is also its head, and the
    GAN's discriminator, applied to data, samples, and data twice more in the gradient of its penalty.
    """
    sent = program(name, "data:8")
    assert {one.kind for one in sent} == {"all-reduce"}
    params = ready(name, "data:8").template().params
    again = {"gpt": 256 * 64, "gan": 3 * count(params.get("discriminator"))}.get(name, 0)
    counted = sum(sum(one.sizes) for one in sent)
    assert sum(sizes(name)) <= counted <= sum(sizes(name)) + again + 64


@pytest.mark.slow
def test_no_device_computes_the_samples_of_others():
    """Noise drawn within the step, and the generator's output, are split as the batch is."""
    run = ready("gan", "data:8")
    step: Any = compile.compile_step(run.step, run.mesh, run.shardings)
    text = step.lower(run.template(), run.raw(0)).compile().as_text()
    assert re.search(r"f32\[2,8,8,\d+\]", text)
    assert not re.search(r"f32\[16,8,8,\d+\]", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "dit", "unet", "gan"])
def test_fsdp_gathers_parameters_and_nothing_else(name):
    """All-gathers have the sizes of parameters, so no batch or activation is gathered; reductions are of gradients."""
    sent = program(name, "data:2,fsdp:4")
    assert {one.kind for one in sent} <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert any(one.kind == "all-gather" for one in sent)
    known = set(sizes(name))
    for one in sent:
        if one.kind == "all-gather":
            assert set(one.sizes) <= known
        else:
            assert all(size in known or 4 * size in known or size <= 8 for size in one.sizes)


@pytest.mark.slow
def test_tensor_parallel_blocks_all_reduce_four_times():
    """Twice forward and twice backward per block (Shoeybi et al. 2019, figure 4), and once in the backward pass of the
    head; no activation is gathered."""
    sent = program("gpt", "data:4,tensor:2")
    activations = 16 // 4 * 32 * 64
    assert sum(one.sizes == (activations,) for one in sent if one.kind == "all-reduce") == 5
    assert all(max(one.sizes) < activations for one in sent if one.kind != "all-reduce")


@pytest.mark.slow
def test_a_split_sequence_gathers_keys_and_values_only():
    """Of each example; and the updated rows of the position embedding, each held by one device."""
    sent = program("gpt", "data:2,sequence:4")
    keys = 16 // 2 * 32 * 64
    gathered = [one.sizes for one in sent if one.kind == "all-gather"]
    assert gathered.count((keys,)) == 2
    assert set(gathered) <= {(keys,), (32 * 64,)}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data:2,fsdp:2,tensor:2", "data:2,sequence:4"])
@pytest.mark.parametrize("name", ["gpt", "dit", "gan"])
def test_samples_and_likelihoods_equal_those_of_one_device(name, mesh):
    found = []
    for run in (ready(name, "devices:1"), ready(name, mesh)):
        experiment = dataclasses.replace(run.experiment, evaluation=Evaluation(batch_size=16, likelihoods=16))
        state, objective = run.make_state(), experiment.objective
        samples = draw_samples(objective, experiment.data, state.ema, state.extra, run.mesh, seed=0, num=16)[
            0
        ]
        exact = name == "gpt"
        report = likelihood_report(experiment, state, run.mesh) if exact else {}
        found.append((np.float64(samples), report.get("nats", 0.0)))
    (one, likely), (many, as_likely) = found
    assert np.mean(one != many) < 0.01 if name == "gpt" else np.abs(one - many).max() <= 1.0
    assert one.std() > 0.1
    assert likely == pytest.approx(as_likely, rel=1e-5)


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_devices_and_mesh(tmp_path):
    """Saved on 8 devices after 10 steps; the next 10 are the same on 4, 2, 1 devices and on other axes."""
    first = ready("gpt", "data:2,fsdp:4")
    state, _ = take_steps(first, first.make_state(), 0, 10)
    with loop.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(10, state)
    for mesh in ("devices:4", "devices:2", "devices:1", "data:4,tensor:2", "data:2,sequence:4"):
        run = ready("gpt", mesh)
        with loop.Checkpoints(tmp_path / "checkpoints") as checkpoints:
            step, restored = checkpoints.restore(run.template())
        _, losses = take_steps(run, restored, step, 20)
        np.testing.assert_allclose(losses, on_one_device("gpt")[10:], rtol=2e-4)


def test_every_rule_of_the_transformers_matches_a_parameter():
    """In at least one network; otherwise a renamed parameter would silently be placed by its size alone."""
    nets = [gpt2(depth=1, width=8, heads=2, position=where) for where in ("learned", "rotary")]
    nets += [gpt2(depth=1, width=8, heads=2, experts=Mixture(experts=2)), DiT(width=8, depth=1, heads=2)]
    place = placement.Placement(parallel.make_mesh("fsdp:2,tensor:2,expert:2"), (), nets[0].layout)
    placed = {}
    for net in nets:
        x = jnp.zeros((1, 4, 4, 1)) if isinstance(net, DiT) else jnp.zeros((1, 4), jnp.int32)
        shapes = jax.eval_shape(lambda x, net=net: net.init(jax.random.key(0), x, jnp.zeros(1), out=4), x)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            rule = next((rule for rule in net.layout if re.search(rule.path, name)), None)
            placed.setdefault(rule, []).append(place.spec(name, leaf.shape))
    for rule in nets[0].layout:
        assert any(spec[-len(rule.spec) :] == rule.spec for spec in placed[rule]), rule


def test_layout_axes_that_do_not_divide_are_ignored():
    """So are axes that the mesh lacks; `fsdp` then splits the largest unsplit dimension."""
    layout = (Rule("kernel", ("fsdp", "tensor")),)
    spec = placement.Placement(parallel.make_mesh("data:2,fsdp:2,tensor:2"), (), layout).spec
    assert spec("net/kernel", (3, 64, 32)) == P(None, "fsdp", "tensor")
    assert spec("net/kernel", (63, 32)) == P(None, "tensor")
    assert spec("net/kernel", (64, 33)) == P("fsdp", None)
    assert spec("net/other", (64, 128)) == P("fsdp", "tensor")
    assert spec("net/other", (4, 64, 63)) == P(None, "fsdp", None)
    assert spec("net/other", (63, 63)) == P()
    assert spec("net/other", (5000,)) == P("fsdp")
    assert spec("net/kernel", ()) == P()
    spec = placement.Placement(parallel.make_mesh("data:8"), (), layout, zero1=True).spec
    assert spec("params/net/kernel", (64, 128)) == P()
    assert spec("opt_state/net/mu/kernel", (64, 128)) == P(None, "data")
    with pytest.raises(UserError, match="every device would hold all of it"):
        placement.state_sharding({"a": jnp.zeros((1001, 1049))}, parallel.make_mesh("fsdp:8"))


def test_slices_are_separated_along_the_first_axis():
    """Two slices of four devices: each row of the last axes lies within one."""
    devices = [
        SimpleNamespace(id=i, slice_index=i // 4, process_index=i // 4, platform="cpu", device_kind="x")
        for i in range(8)
    ]
    placed = parallel.arrange((4, 2), devices)
    slices = np.vectorize(lambda device: device.slice_index)(placed)
    assert (slices == slices[:, :1]).all()
    assert (slices[:2] == slices[0, 0]).all()
    assert slices[0, 0] != slices[2, 0]
    assert {device.id for device in placed.flat} == set(range(8))
    with pytest.raises(UserError, match="2 slices do not divide"):
        parallel.arrange((1, 8), devices)


def test_regroup_keeps_heads_together():
    """The first of two parts gets the first half of the queries, of the keys and of the values."""
    z = jnp.arange(12.0)  # queries 0 ... 5, keys 6 ... 7, values 8 ... 11
    assert regroup(z, 2, (6, 2, 4)).tolist() == [0, 1, 2, 6, 8, 9, 3, 4, 5, 7, 10, 11]
    assert regroup(z, 1, (6, 2, 4)) is z


def test_constrain_is_the_identity_without_a_mesh():
    x = jnp.ones((4, 4))
    assert constrain(x, "tensor", None) is x


def test_collectives_are_parsed_from_hlo():
    """A handwritten program: bytes, tuples, asynchronous collectives, and names that are no collectives."""
    text = """
  %all-gather.1 = f32[64,192]{1,0} all-gather(%p), dimensions={0}
  %all-reduce.2 = (f32[3]{0}, bf16[2,2]{1,0}) all-reduce(%a, %b), to_apply=%add
  %ags = (f32[8]{0}, f32[32]{0}) all-gather-start(%p), dimensions={0}
  %agd = f32[32]{0} all-gather-done(%ags)
  %fusion = f32[7]{0} fusion(%all-gather.1), calls=%all-reduce.9
"""
    assert collectives(text) == [
        Collective("all-gather", ((64, 192),), 4 * 64 * 192),
        Collective("all-reduce", ((3,), (2, 2)), 12 + 8),
        Collective("all-gather", ((32,),), 128),
    ]
