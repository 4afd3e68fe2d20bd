"""The worked examples of docs/how_to: each trains through a config file and draws samples, and is short."""

import subprocess

import documented
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from documented import ROOT
from launching import NASTY

import genjax as gx
from genjax.training import experiment

PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "how_to").glob("*.md"))}
SMALL = [("steps", "2"), ("batch_size", "16"), ("log_every", "1")]


def example(page, language="python"):
    """The one code block of a page."""
    (text,) = documented.blocks(page, language)
    assert len(text.splitlines()) <= 60
    return text


def samples(path, overrides=(), num=8):
    """Samples of a config file after two steps."""
    return gx.sample(gx.train(experiment.load(str(path), [*SMALL, *overrides])), num)


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ("launcher", "metric")])
def test_an_example_trains_and_samples(name, tmp_path, capsys):
    path = tmp_path / f"{name}.py"
    path.write_text(example(PAGES[name]))
    assert samples(path, [("objective.net.width", "16"), ("evaluation.batch_size", "8")]).shape == (8, 2)
    assert "\n2/2 " in capsys.readouterr().out


def test_the_example_sampler_is_of_order_two():
    """On data N(0, 1) the exact solution is known; twice the steps make a quarter of the error."""
    space: dict = {"__name__": "example"}
    exec(compile(example(PAGES["sampler"]), "midpoint.py", "exec"), space)
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
        found = sample(denoise, process, method, jax.random.key(0), x.shape, start=jnp.asarray(x))
        return float(np.abs(np.asarray(found) - exact).max())

    ratio = error(16) / error(32)
    assert 3.0 < ratio < 5.5


def test_the_example_metric_is_zero_for_the_data_themselves(tmp_path):
    path = tmp_path / "mean_error.py"
    path.write_text(example(PAGES["metric"]))
    chosen = experiment.load(str(path))
    (metric,) = chosen.metrics
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert metric.measure(x, {"x": x}, None) == {"distance": 0.0, "std_ratio": 1.0}
    found = metric.measure(2 * x + [3.0, 4.0], {"x": x}, None)
    np.testing.assert_allclose(found["distance"], np.linalg.norm(x.mean(0) + np.array([3.0, 4.0])), rtol=1e-6)
    np.testing.assert_allclose(found["std_ratio"], 2.0, rtol=1e-6)
    both = experiment.load(str(path), [("metrics", "SlicedWasserstein,MeanError")])
    assert [each.name for each in both.metrics] == ["wasserstein", "mean_error"]


def test_the_example_launcher_writes_a_job(tmp_path):
    folder = tmp_path / "launch"
    folder.mkdir()
    (folder / "common.sh").write_text((ROOT / "launch" / "common.sh").read_text())
    path = folder / "pbs.sh"
    path.write_text(example(PAGES["launcher"], "sh"))

    def launch(*words):
        return subprocess.run(["bash", str(path), *words], capture_output=True, text=True)

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
