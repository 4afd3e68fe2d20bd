"""Edits on Gaussian data with a known probability flow; the program on a tiny run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, fitted_order
from PIL import Image
from test_programs import program

from genjax.api.edit import Edit, edit, edit_workdir
from genjax.core.errors import UserError
from genjax.data import Digits
from genjax.diffusion.prediction import V
from genjax.diffusion.process import VP, RectifiedFlow
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.editing import decode, encode, interpolate, lerp, sdedit, slerp
from genjax.samplers.grids import Quadratic
from genjax.samplers.ode import DDIM, Heun
from genjax.training import experiment, loop
from genjax.training import workdir as workdirs
from genjax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.xdist_group("edit")  # shared fixtures are built once, in one process

DATA, LOW = GaussianData(), 1e-3


def points(dtype=jnp.float32) -> jax.Array:
    return jnp.linspace(-0.6, 1.9, 12, dtype=dtype).reshape(4, 3)


SOLVERS = [(VP(), Heun, 2), (RectifiedFlow(), Heun, 2), (VP(), DDIM, 1)]


@pytest.mark.parametrize(
    ("process", "method", "order"), SOLVERS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_latents_match_the_closed_form_transport_and_decode_to_the_data(process, method, order):
    """Encoding and decoding both converge with the sampler's order."""
    with jax.enable_x64(True):
        x, denoise = points(jnp.float64), DATA.denoise(process)
        exact = np.asarray(DATA.transport(process, x, jnp.asarray(LOW), jnp.asarray(0.9)))
        there, back, steps = [], [], (64, 256)
        for number in steps:
            sampler = method(steps=number, grid=Quadratic(end=1e-4))
            z = encode(denoise, process, sampler, x, LOW, 0.9)
            there.append(np.abs(z - exact).max())
            back.append(np.abs(decode(denoise, process, sampler, z, LOW, 0.9) - x).max())
    sizes = [1 / number for number in steps]
    for errors in (there, back):
        assert order - 0.2 < fitted_order(sizes, errors) < order + 1.2, errors
        assert errors[-1] < (0.03 if order == 1 else 1e-3), errors


def test_slerp_keeps_norms_at_constant_angular_speed_and_both_paths_hit_their_ends():
    a, b = (jax.random.normal(jax.random.key(i), (6, 4, 5)) for i in (0, 1))
    norm = lambda x: jnp.sqrt(jnp.sum(x**2, axis=(1, 2), keepdims=True))
    b = b * norm(a) / norm(b)
    angle = lambda x, y: np.arccos(np.asarray(jnp.sum(x * y, axis=(1, 2)) / (norm(x) * norm(y))[:, 0, 0]))
    for path in (slerp, lerp):
        np.testing.assert_array_equal(path(a, b, jnp.asarray(0.0)), a)
        np.testing.assert_array_equal(path(a, b, jnp.asarray(1.0)), b)
    third = slerp(a, b, jnp.asarray(1 / 3))
    np.testing.assert_allclose(norm(third), norm(a), rtol=1e-5)
    np.testing.assert_allclose(angle(a, third), angle(a, b) / 3, rtol=1e-4)
    np.testing.assert_allclose(slerp(a, 2 * a, jnp.asarray(0.25)), 1.25 * a, rtol=1e-3)
    np.testing.assert_allclose(lerp(a, b, jnp.asarray(0.25)), 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-6)


def test_interpolation_of_gaussian_data_transports_the_latents_slerp_back():
    process, sampler = VP(), Heun(steps=60, grid=Quadratic(end=1e-4))
    a, b, ends = points(), points()[::-1], (jnp.asarray(LOW), jnp.asarray(1.0))
    between = interpolate(DATA.denoise(process), process, sampler, a, b, 3)
    assert between.shape == (3, 4, 3)
    np.testing.assert_allclose(between[0], a, atol=5e-3)
    np.testing.assert_allclose(between[2], b, atol=5e-3)
    latents = [DATA.transport(process, x, *ends) for x in (a, b)]
    middle = DATA.transport(process, slerp(*latents, jnp.asarray(0.5)), *ends[::-1])
    np.testing.assert_allclose(between[1], middle, atol=5e-3)


@pytest.mark.parametrize("strength", [0.15, 0.4])
def test_sdedit_of_gaussian_data_has_the_closed_form_distribution(strength):
    """Given x: mean + ratio (alpha (x - mean) + sigma z) with the flow's ratio std / sqrt(variance at t_0)."""
    num, x, process, t = 20_000, 1.7, VP(), jnp.asarray(strength)
    run = jax.jit(
        lambda key: sdedit(
            DATA.denoise(process), process, DDIM(steps=200), key, jnp.full((num, 1), x), strength
        )
    )
    out = np.asarray(run(jax.random.key(0)), np.float64)
    ratio = DATA.std / float(DATA.variance(process, t)) ** 0.5
    mean = DATA.mean + ratio * float(process.alpha(t)) * (x - DATA.mean)
    std = ratio * float(process.sigma(t))
    assert abs(out.mean() - mean) < 4 * std / np.sqrt(num) + 2e-3
    assert abs(out.std() / std - 1) < 4 * np.sqrt(0.5 / num) + 1e-2


def test_sdedit_keeps_x_at_strength_zero_and_is_independent_of_x_at_one():
    edit = lambda x, strength: sdedit(
        DATA.denoise(VP()), VP(), DDIM(steps=20), jax.random.key(0), x, strength
    )
    x = points()
    np.testing.assert_allclose(edit(x, 1e-6), x, atol=3e-3)
    np.testing.assert_allclose(edit(x, 1.0), edit(x[::-1], 1.0), atol=1e-2)
    for wrong in (0.0, 1.5):
        with pytest.raises(UserError, match=f"strength={wrong} must be"):
            edit(x, wrong)


TINY = '''"""A tiny diffusion model of digits, for tests."""
from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.diffusion.threshold import Static
from genjax.training.experiment import Experiment
from genjax.networks import MLP
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import DDIM


def get_experiment():
    data = Data(Digits(), (Scale(0.0, 16.0),))
    net = MLP(width=16, depth=1, zero_out=True)
    model = Diffusion(net, data.shape, Labels(10, 0.1), threshold=Static(), sampler=DDIM(steps=4, eta=1.0))
    return Experiment(model, data)
'''


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """An untrained run: the kept measurement does not depend on training."""
    path = tmp_path_factory.mktemp("edit") / "tiny.py"
    path.write_text(TINY)
    own = experiment.load(str(path))
    workdirs.open_workdir(own, str(path), path.parent / "run")
    with Checkpoints(path.parent / "run" / experiment.CHECKPOINTS) as checkpoints:
        checkpoints.save(1, loop.prepare(own).make_state())
    return path.parent / "run"


class Zero:
    """A network that predicts no noise."""

    def init(self, key, *inputs, **options):
        return {}

    def apply(self, params, x, t, cond, *, out, **options):
        return jnp.zeros_like(x)


@pytest.mark.parametrize("how", [Edit("colourise"), Edit("superres", method="replace", repeats=2)], ids=str)
def test_results_have_the_measurements_of_the_images(how):
    """Grey values and block averages in model units, where nothing is rounded."""
    model = Diffusion(Zero(), (4, 4, 3), predict=V(), sampler=DDIM(steps=3, eta=1.0))
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), minval=-1.0)
    change = jax.jit(lambda x: edit(model, {"net": {}}, how, jax.random.key(1), x, None))
    given, *images = (np.asarray(part[0]) for part in change(x))
    np.testing.assert_array_equal(given, x)
    blocks = lambda x: x.reshape(2, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    grey = lambda x: x.mean(axis=-1)
    kept, lost = (
        (grey, lambda x: x.std(axis=-1))
        if how.task == "colourise"
        else (blocks, lambda x: x[:, ::2] - x[:, 1::2])
    )
    for image in images:
        np.testing.assert_allclose(kept(image), kept(given), atol=1e-5)
    seen, out = images
    np.testing.assert_allclose(lost(seen), 0.0, atol=1e-6)
    assert np.abs(lost(out)).max() > 1e-2
    assert np.abs(out - given).max() > 1e-2


WRONG = [
    (Edit("paint"), 4, "no task 'paint': did you mean 'inpaint'"),
    (Edit("colourise"), 4, "task=colourise needs images of 3 channels, but these have 1"),
    (Edit("sdedit", strength=2.0), 4, "strength=2.0 must be a time"),
    (Edit("sdedit", label=11), 4, "label=11: this model has classes 0 to 9"),
    (Edit("superres", factor=3), 4, "factor=3 must divide the images' 8 x 8 pixels"),
    (Edit("interpolate"), 4000, "needs 8000 test images"),
    (Edit("interpolate", points=1), 4, "points=1 must be at least 2"),
    (Edit("inpaint"), 0, "num=0 must be at least 1"),
]


@pytest.mark.parametrize(("how", "num", "line"), WRONG, ids=lambda v: getattr(v, "task", ""))
def test_invalid_edits_raise(workdir, how, num, line):
    with pytest.raises(UserError, match=line):
        edit_workdir(workdir, [], how, num=num, seed=0)


def test_inpainting_keeps_the_left_half(workdir):
    how = Edit("inpaint", method="replace", repeats=2)
    found = dict(np.load(edit_workdir(workdir, [], how, num=4, seed=0)))
    test = Digits().load("test")[np.arange(4)]["x"]
    np.testing.assert_array_equal(found["input"], test)
    np.testing.assert_array_equal(found["samples"][:, :, :4], test[:, :, :4])
    np.testing.assert_array_equal(found["seen"][:, :, :4], test[:, :, :4])
    np.testing.assert_array_equal(found["seen"][:, :, 4:], 8)
    assert (found["samples"][:, :, 4:] != test[:, :, 4:]).mean() > 0.3
    with Image.open(workdir / "inpaint.png") as picture:
        assert picture.size == (4 * (8 * 8 + 1) - 1, 3 * (8 * 8 + 1) - 1)


@pytest.mark.slow
def test_the_program_interpolates_and_reports_errors_in_one_line(workdir):
    out = workdir / "between.npz"
    done = program(
        "edit", f"--workdir={workdir}", "--task=interpolate", "--num=3", "--points=4", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    found, test = np.load(out)["samples"], Digits().load("test")[np.arange(6)]["x"].astype(int)
    assert found.shape == (4, 3, 8, 8, 1)
    assert np.abs(found[0] - test[:3]).max() <= 1
    assert np.abs(found[3] - test[3:]).max() <= 1
    wrong = program("edit", f"--workdir={workdir}", "--task=colourise")
    assert wrong.returncode == 2
    assert (
        wrong.stderr.strip().splitlines()[-1].startswith("error: --task=colourise needs images of 3 channels")
    )
