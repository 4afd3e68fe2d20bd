"""Work directories: full disks, two runs in one directory, records of what was done."""

import contextlib
import dataclasses
import io
import json
import os
import resource
import signal

import jax
import numpy as np
import pytest
from PIL import Image

import genjax as gx
from genjax.core.errors import UserError
from genjax.core.files import replacing, write_all
from genjax.evaluation.monitor import PeriodicEvaluation
from genjax.training import workdir as workdirs
from genjax.training.checkpoint import steps_in
from genjax.training.lock import LOCK
from genjax.training.loop import prepare
from genjax.training.writers import Writer

DATA = gx.Data(gx.data.GaussianMixture(256, 64), (gx.data.Scale(-2.0, 2.0),))


def make(**options):
    model = gx.objectives.Diffusion(gx.networks.MLP(8, 1), DATA.shape, sampler=gx.samplers.DDIM(2))
    sizes = gx.Evaluation(num=64, batch_size=64, pictured=4)
    options = {
        "steps": 4,
        "batch_size": 64,
        "log_every": 1,
        "checkpoint_every": 2,
        "evaluation": sizes,
        **options,
    }
    return gx.Experiment(model, DATA, gx.optimizers.SGD(0.1), **options)


@contextlib.contextmanager
def full_disk(size):
    """No file can grow beyond `size` bytes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(experiment, workdir, spec="diffusion_digits"):
    with workdirs.held(workdir):
        workdirs.open_workdir(experiment, spec, workdir)


@pytest.mark.parametrize("size", [0, 1, 100, 500, 1000, 1500, 2000, 2500, 3000])
def test_a_first_start_on_a_full_disk_can_be_repeated(tmp_path, size):
    experiment, workdir = make(), tmp_path / "run"
    start(experiment, tmp_path / "whole")
    largest = max(map(len, tree(tmp_path / "whole").values()))
    with full_disk(size):
        if size >= largest:
            start(experiment, workdir)
        else:
            with pytest.raises(UserError, match=f"^cannot write {workdir}: file too large$"):
                start(experiment, workdir)
            assert set(tree(workdir)) <= {LOCK}
    start(experiment, workdir)
    assert tree(workdir) == tree(tmp_path / "whole")


@pytest.mark.parametrize("size", [0, 500, 1000, 2000])
def test_a_description_is_replaced_whole_or_not_at_all(tmp_path, size):
    experiment = make()
    start(experiment, tmp_path)
    before = tree(tmp_path)
    with full_disk(size), pytest.raises(UserError, match="cannot write"):
        start(dataclasses.replace(experiment, steps=5), tmp_path)
    assert {name: text for name, text in tree(tmp_path).items() if name != LOCK} == before


def test_files_are_replaced_together(tmp_path):
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    write_all({a: "1", b: "2"})
    with full_disk(3), pytest.raises(OSError, match="too large"):
        write_all({a: "3", b: "4444"})
    with contextlib.suppress(KeyError), replacing(a) as path:
        path.write_text("5")
        raise KeyError
    assert tree(tmp_path) == {"a.txt": b"1", "b.txt": b"2"}


@pytest.mark.parametrize("killed", [("config.py",), ("experiment.tmp.json",), ("config.tmp.py", LOCK)])
def test_a_start_that_was_killed_can_be_repeated(tmp_path, killed):
    for name in {*killed, "experiment.tmp.json"}:
        (tmp_path / name).write_text("{" if name != LOCK else "")
    start(make(), tmp_path)
    assert set(tree(tmp_path)) == {"config.py", "experiment.json"}


@pytest.mark.parametrize("size", [0, 50, 200, 1000])
def test_a_log_on_a_full_disk_ends_in_one_line_and_resumes(tmp_path, size):
    """Rows, pictures and events, whichever is the first that does not fit."""

    def log(start):
        with Writer(tmp_path, 100, start, stream=io.StringIO()) as writer:
            for step in range(start + 1, 41):
                writer.scalars(step, {"loss": 1.0})
                writer.image(step, "noise", Image.fromarray(np.zeros((8, 8), np.uint8)))

    with full_disk(size), pytest.raises(UserError, match=f"^cannot write {tmp_path}: file too large$"):
        log(0)
    for path in (tmp_path / "samples").glob("*"):
        with Image.open(path) as picture:
            assert np.asarray(picture).sum() == 0
    log(0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, 41)]


def test_a_second_run_in_a_directory_is_refused_and_changes_nothing(tmp_path):
    experiment = make()
    gx.train(experiment, tmp_path)
    before = tree(tmp_path)
    with workdirs.held(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
        gx.train(dataclasses.replace(experiment, steps=8), tmp_path)
    assert tree(tmp_path) == before


def test_fewer_steps_than_are_done_are_refused_and_not_recorded(tmp_path):
    experiment = make()
    gx.train(experiment, tmp_path)
    before = tree(tmp_path)
    for steps in (1, 3):
        with pytest.raises(UserError, match=f"config.steps={steps}: 4 steps are done in .*, give at least 4"):
            gx.train(dataclasses.replace(experiment, steps=steps), tmp_path)
        assert tree(tmp_path) == before
    assert gx.train(dataclasses.replace(experiment, steps=5), tmp_path).taken == 1


def test_a_state_that_is_not_finite_is_not_the_best_one(tmp_path):
    run = prepare(make(monitor=gx.Monitor(every=2)))
    state = run.make_state()
    evaluations = PeriodicEvaluation(run, tmp_path, 0, print, lambda state: (run, state))
    evaluations._keep(2, state)
    bad = dataclasses.replace(state, ema=jax.tree.map(lambda leaf: leaf * np.nan, state.ema))
    with pytest.raises(UserError, match=r"not saved: ema of player 'net'.* checkpoint 2 is kept"):
        evaluations._keep(4, bad)
    assert steps_in(tmp_path / "best") == [2]
