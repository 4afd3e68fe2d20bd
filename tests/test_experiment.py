"""Experiments: loaded, checked, saved, restored; the plan of calls; diverged runs."""

import dataclasses
import json
import os

import numpy as np
import pytest
from rows import ROWS

from experiments import dry_run
from genjax.core.errors import UserError
from genjax.training import experiment, loop
from genjax.training import workdir as workdirs
from genjax.training.signals import StopSignal

SHIPPED = sorted(experiment.shipped())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_load_and_are_listed(name):
    loaded = experiment.load(name)
    assert [line.split()[0] for line in dry_run.list_configs().splitlines()].count(name) == 1
    text = dry_run.draw_tree(loaded, loaded)
    assert "overridden" not in text
    assert f"batch_size = {loaded.batch_size}" in text


@pytest.mark.parametrize(
    ("spec", "overrides", "words"),
    [
        ("gan_digit", [], "did you mean 'gan_digits'"),
        ("nowhere/else.py", [], "no config"),
        ("gan_mixture:small", [], "has no variants"),
        ("gan_digits", [("sed", "1")], "did you mean 'seed'"),
        ("gan_digits", [("optimizer.generatr.learning_rate", "1")], "did you mean 'generator'"),
        ("gan_digits", [("steps", "0")], "at least 1"),
        ("gan_digits", [("ema", "1.0")], r"in \[0, 1\)"),
        ("gan_digits", [("compile", "pmpa")], "jit"),
    ],
)
def test_invalid_configs_and_overrides_raise_one_line(spec, overrides, words):
    with pytest.raises(UserError, match=words) as caught:
        experiment.load(spec, overrides)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_config_that_is_not_python_names_the_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_experiment(:\n")
    with pytest.raises(UserError, match="line 1"):
        experiment.load(str(path))
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match="no function get_experiment"):
        experiment.load(str(path))


def test_restore_reads_the_work_directory_alone(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(
        "import dataclasses\n"
        "from genjax.training import experiment\n"
        "from genjax.objectives.adversarial.gan import GAN\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine(GAN):\n"
        "    extra_weight: float = 0.5\n"
        "def get_experiment():\n"
        "    base = experiment.load('gan_mixture')\n"
        "    gan = base.objective\n"
        "    return dataclasses.replace(base, objective=Mine(gan.generator, gan.discriminator, gan.shape))\n"
    )
    workdir = tmp_path / "run"
    workdir.mkdir()
    made = experiment.load(str(source), [("objective.extra_weight", "0.25")])
    experiment.save(made, str(source), workdir)
    source.unlink()
    assert experiment.restore(workdir) == made
    assert experiment.restore(workdir, [("objective.extra_weight", "2")]).objective.extra_weight == 2.0
    (workdir / "experiment.json").write_text('{"format": 1,')
    with pytest.raises(UserError, match="damaged"):
        experiment.restore(workdir)
    (workdir / "experiment.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        experiment.restore(workdir)


def test_resuming_another_experiment_raises_and_shows_both_values(tmp_path):
    old = experiment.load("diffusion_digits")
    for path, text, words in (
        ("seed", "7", "seed: 0 -> 7"),
        ("batch_size", "64", "batch_size: 128 -> 64"),
        ("objective.net.channels", "48", "objective.net.channels: "),
        ("optimizer.learning_rate", "1", "optimizer.learning_rate: "),
        ("data.transforms.0.high", "17", "data.transforms.0.high: "),
    ):
        with pytest.raises(UserError, match=words):
            experiment.check_resume(old, experiment.load("diffusion_digits", [(path, text)]), tmp_path)
    with pytest.raises(UserError, match="holds another experiment: objective"):
        experiment.check_resume(old, experiment.load("vae_digits"), tmp_path)
    for path, text in (
        ("steps", "9"),
        ("objective.sampler.steps", "9"),
        ("mesh", "fsdp:8"),
        ("log_every", "3"),
    ):
        experiment.check_resume(old, experiment.load("diffusion_digits", [(path, text)]), tmp_path)


def test_a_directory_with_other_files_is_not_a_work_directory(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty"):
        workdirs.held(tmp_path).__enter__()
    with pytest.raises(UserError, match="cannot write"):
        workdirs.held(tmp_path / "thesis.tex" / "run").__enter__()
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("call", [1, 4, 7])
@pytest.mark.parametrize(("checkpoint", "picture"), [(10, 0), (12, 5), (100, 3)])
def test_the_plan_covers_each_step_once_and_does_not_depend_on_its_start(call, checkpoint, picture):
    small = dataclasses.replace(
        ROWS["vae-points"], steps=41, steps_per_call=call, checkpoint_every=checkpoint, sample_every=picture
    )
    calls = list(loop.plan(small, 0))
    assert [step for first, length in calls for step in range(first, first + length)] == list(range(41))
    ends = {first + length for first, length in calls}
    borders = {step for step in range(1, 41) if step % checkpoint == 0 or (picture and step % picture == 0)}
    assert borders | {41} <= ends
    for index, (first, _) in enumerate(calls):
        assert list(loop.plan(small, first)) == calls[index:]
    gaps = np.diff(sorted({0, 41} | borders))
    assert sum(length == call for _, length in calls) == (sum(gaps // call) if call > 1 else 41)


def test_a_loss_that_is_not_finite_raises_and_names_the_last_checkpoint():
    loop.check_finite(3, {"net/loss": 1.0, "net/other": float("nan")}, None)
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"net/loss is .* at step 30: .* checkpoint 20 is kept"):
            loop.check_finite(30, {"net/loss": value}, 20)


def test_diverged_training_keeps_its_last_good_checkpoint(tmp_path):
    """With a learning rate of 1e30 the run raises one line, and no diverged state is saved."""
    tiny = dataclasses.replace(ROWS["vae-points"], checkpoint_every=1, log_every=1)
    wild = dataclasses.replace(tiny, optimizer=dataclasses.replace(tiny.optimizer, learning_rate=1e30))
    run = loop.prepare(wild)
    with loop.Checkpoints(tmp_path) as checkpoints, StopSignal() as stop:
        with pytest.raises(UserError, match="diverged"):
            loop.run_steps(run, run.make_state(), checkpoints, stop, lambda *a: None, lambda *a: None)
        checkpoints.wait()
        steps = checkpoints.steps()
        if steps:
            state = checkpoints.restore(run.template())[1]
            assert np.isfinite(float(sum(np.sum(np.abs(leaf)) for leaf in state.extra.values())))
        assert 4 not in steps
