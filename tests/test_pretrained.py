"""Trained models as parts of others: read once, from the latest checkpoint, and not needed afterwards."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import POINTS, ROWS, SMALL, on_one_device

from genjax.core.errors import UserError
from genjax.evaluation.sampling import draw_samples
from genjax.objectives.diffusion.consistency import Consistency, Doubling
from genjax.objectives.diffusion.distillation import Teacher
from genjax.objectives.latent.vae import VAE
from genjax.parallel.mesh import make_mesh
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.optimizers import SGD
from genjax.training.pretrained import Pretrained

pytestmark = pytest.mark.xdist_group("pretrained")  # one process compiles what these tests share

TAUGHT = ROWS["diffusion-points"]
BATCH = {"x": jnp.zeros((16, 2))}


def save(run, workdir, step: int, factor: float = 1.0):
    """A checkpoint whose EMA is `factor` times the initial parameters."""
    state = run.make_state()
    state = dataclasses.replace(state, ema=jax.tree.map(lambda leaf: factor * leaf, state.ema))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(step, state)
    return jax.device_get(state.ema)


@pytest.fixture
def workdir(tmp_path):
    """A work directory without a checkpoint."""
    spec = tmp_path / "config.py"
    spec.write_text("")
    made = tmp_path / "run"
    made.mkdir()
    experiments.save(TAUGHT, str(spec), made)
    return made


def check_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_latest_ema_is_read_sharded_or_not(workdir):
    run = on_one_device(TAUGHT)
    weights = Pretrained(str(workdir))
    assert weights.objective() == TAUGHT.objective
    load = lambda key, batch: weights.load(TAUGHT.objective, key, batch)
    shapes = jax.eval_shape(load, jax.random.key(0), BATCH)
    assert shapes == jax.eval_shape(TAUGHT.objective.init, jax.random.key(0), BATCH)
    for step, factor in ((1, 2.0), (2, -3.0)):
        saved = save(run, workdir, step, factor)
        check_equal(weights.parameters()[0], saved)
        everywhere = jax.NamedSharding(make_mesh("data:8"), jax.P())
        compiled = jax.jit(lambda key, batch: load(key, batch), out_shardings=everywhere)
        params, extra = compiled(jax.random.key(step), BATCH)
        check_equal(params, saved)
        assert extra == {}
    check_equal(load(jax.random.key(0), BATCH)[0], saved)
    tuned = dataclasses.replace(
        TAUGHT.objective, sampler=dataclasses.replace(TAUGHT.objective.sampler, steps=9)
    )
    check_equal(weights.load(tuned, jax.random.key(0), BATCH)[0], saved)


def test_missing_or_mismatched_weights_raise_one_line_at_initialisation(workdir, tmp_path):
    init = lambda where, objective: Pretrained(str(where)).load(objective, jax.random.key(0), BATCH)
    ours = TAUGHT.objective
    wider = dataclasses.replace(ours, net=dataclasses.replace(SMALL, width=48))
    cases = [
        (tmp_path / "nowhere", ours, "no work directory .*nowhere"),
        (tmp_path, ours, "not the work directory of a run"),
        (workdir, ours, "no checkpoint in"),
        (workdir, wider, "another model: its objective.net.width is 32, expected 48"),
        (workdir, VAE(SMALL, SMALL, (2,), 2), "another model: its objective is .*Diffusion, expected .*VAE"),
    ]
    for where, objective, words in cases:
        assert jax.tree.leaves(jax.eval_shape(lambda w=where, o=objective: init(w, o)))
        for call in (
            lambda w=where, o=objective: init(w, o),
            jax.jit(lambda w=where, o=objective: init(w, o)),
        ):
            with pytest.raises(UserError, match=words) as caught:
                call()
            assert "\n" not in str(caught.value)
    save(on_one_device(TAUGHT), workdir, 1)
    with pytest.raises(UserError, match="trained on data of another shape"):
        Pretrained(str(workdir)).arrays(
            ours, tuple(((3,), "float32") for _ in jax.tree.leaves(init(workdir, ours)))
        )


@pytest.mark.slow
def test_a_student_resumes_and_samples_without_its_teachers_directory(workdir, tmp_path):
    teacher = Teacher(TAUGHT.objective, Pretrained(str(workdir)))
    objective = Consistency(
        SMALL, (2,), process=TAUGHT.objective.process, low=0.01, curriculum=Doubling(4, 4, 1), teacher=teacher
    )
    student = dataclasses.replace(TAUGHT, objective=objective, data=POINTS, optimizer=SGD(learning_rate=0.03))
    saved = save(on_one_device(TAUGHT), workdir, 1, 0.5)
    run = on_one_device(student)
    state, _ = run.compiled(run.make_state(), run.batch(0, 1), False)
    check_equal(state.extra["teacher"], saved)
    with Checkpoints(tmp_path / "student") as checkpoints:
        checkpoints.save(1, state)
    shutil.rmtree(workdir)
    run = on_one_device(student)
    with Checkpoints(tmp_path / "student") as checkpoints:
        _, state = checkpoints.restore(run.template())
    check_equal(state.extra["teacher"], saved)
    drawn, _ = draw_samples(objective, POINTS, state.ema, state.extra, run.mesh, seed=0, num=8)
    assert np.isfinite(drawn).all()
    with pytest.raises(UserError, match="no work directory"):
        run.make_state()
