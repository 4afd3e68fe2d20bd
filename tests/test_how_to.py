"""The worked examples of docs/how_to and the README: each trains through a config file, draws samples, and is short."""

import subprocess

import documented
import jax
import numpy as np
import pytest
from documented import ROOT
from launching import NASTY

from genjax.evaluation.sampling import draw_samples
from genjax.training import experiment
from genjax.training.loop import prepare

PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "how_to").glob("*.md"))}
SMALL = [("steps", "2"), ("batch_size", "16")]


def example(page, language="python"):
    """The one code block of a page."""
    (text,) = documented.blocks(page, language)
    return text


def train(path, overrides=()):
    """Two steps of a config file; returns the run and its state."""
    run = prepare(experiment.load(str(path), [*SMALL, *overrides]))
    state, losses = run.make_state(), []
    for step in range(2):
        state, metrics = run.step(state, run.batch(step, 1))
        losses += [float(value) for name, value in metrics.items() if name.endswith("/loss")]
    assert losses
    assert np.isfinite(losses).all()
    return run, state


def draw(run, state, num=8):
    chosen = run.experiment
    arguments = (chosen.objective, chosen.data, state.ema, state.extra, run.mesh)
    return draw_samples(*arguments, seed=0, num=num, batch_size=num)[0]


@pytest.mark.parametrize("name", [name for name in PAGES if name != "launcher"])
def test_an_example_trains_and_samples(name, tmp_path):
    text = example(PAGES[name])
    assert len(text.splitlines()) <= 60
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    small = {"objective": "objective.net.width=16", "network": "objective.net.width=16"}
    overrides = [small.get(name, "objective.net.width=16").split("=")]
    run, state = train(path, [tuple(pair) for pair in overrides])
    assert draw(run, state).shape == (8, 2)


def test_the_example_sampler_is_of_order_two():
    """On data N(0, 1) the exact solution is known; twice the steps make a quarter of the error."""
    space: dict = {"__name__": "example"}
    exec(compile(example(PAGES["sampler"]), "midpoint.py", "exec"), space)
    from genjax.core.types import named
    from genjax.diffusion.prediction import Prediction
    from genjax.diffusion.process import VP
    from genjax.samplers.scan import sample

    process, scale, x = VP(), 0.5, np.linspace(-1.0, 1.0, 5, dtype=np.float32)[:, None]

    def denoise(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        x0 = alpha * scale**2 * x / (alpha**2 * scale**2 + sigma**2)
        return Prediction(x0, (x - alpha * x0) / sigma)

    def deviation(t):
        return np.sqrt(float(process.alpha(t)) ** 2 * scale**2 + float(process.sigma(t)) ** 2)

    def error(steps):
        method = space["Midpoint"](steps=steps)
        times = method.times(process)
        exact = x * deviation(times[-1]) / deviation(times[0])
        found = sample(denoise, process, method, named(jax.random.key(0), "x"), x)
        return float(np.abs(np.asarray(found) - exact).max())

    ratio = error(16) / error(32)
    assert 3.0 < ratio < 5.5


def test_an_example_of_the_readme_trains_and_samples(tmp_path):
    """The objective in one file."""
    (text,) = [
        block for block in documented.blocks(ROOT / "README.md", "python") if "get_experiment" in block
    ]
    path = tmp_path / "vae_gan.py"
    path.write_text(text)
    run, state = train(path)
    assert draw(run, state).shape == (8, 8, 8, 1)


def test_the_example_launcher_writes_a_job(tmp_path):
    folder = tmp_path / "launch"
    folder.mkdir()
    (folder / "common.sh").write_text((ROOT / "launch" / "common.sh").read_text())
    path = folder / "pbs.sh"
    path.write_text(example(PAGES["launcher"], "sh"))

    def launch(*words):
        return subprocess.run(["bash", str(path), *words], capture_output=True, text=True)

    assert len(path.read_text().splitlines()) <= 60
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    done = launch("--gpus=4", "--queue=long", "--dry_run", "train", *NASTY)
    assert done.returncode == 0, done.stderr
    assert "#PBS -l select=1:ngpus=4\n#PBS -q long\n" in done.stdout
    local = folder / "local.sh"
    local.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    local.chmod(0o755)
    ran = subprocess.run(["bash"], input=done.stdout, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["--retries=3", "train", *NASTY]
    wrong = launch("--time=later", "--dry_run", "train")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --time=later: write 12:00:00\n")
    assert "--queue" in launch("--help").stdout
