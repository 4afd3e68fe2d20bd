"""The numbers of the README, reproduced by the unmodified shipped configs. Each test takes minutes:

./launch/local.sh test -m slow tests/test_results.py
"""

import json

import numpy as np
import pytest
from sklearn.svm import SVC
from test_programs import program

from genjax.data import Digits


def run(name: str, workdir, *words: str) -> dict:
    """Trains a shipped config and returns its evaluation."""
    done = program("train", f"--config={name}", f"--workdir={workdir}", *words, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads((workdir / "evaluation.json").read_text())


def reference_classifier() -> tuple[SVC, float]:
    """A support-vector machine trained on the real digits, and its accuracy on the test split."""
    real = {split: Digits().load(split)[np.arange(len(Digits().load(split)))] for split in ("train", "test")}
    classifier = SVC(C=10).fit(flat(real["train"]["x"]), real["train"]["label"])
    return classifier, classifier.score(flat(real["test"]["x"]), real["test"]["label"])


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1) / 16.0


def test_the_classifier_that_checks_requested_digits_is_accurate():
    assert reference_classifier()[1] > 0.97


@pytest.mark.slow
def test_diffusion_draws_the_requested_digit(tmp_path):
    """Label accuracy by an independent classifier: a support-vector machine trained on the real digits."""
    report = run("diffusion_digits", tmp_path)["distribution"]
    assert program("sample", f"--workdir={tmp_path}", "--num=1000", "--seed=7").returncode == 0
    drawn = np.load(tmp_path / "samples.npz")
    classifier, _ = reference_classifier()
    assert classifier.score(flat(drawn["samples"]), drawn["label"]) >= 0.97
    assert report["frechet_ratio"] <= 3.0
    assert report["near_copies"] <= 0.01
    assert report["exact_duplicates"] == 0.0
    assert report["nearer_than_neighbours"] <= report["nearer_than_neighbours_test"] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion_mixture", "vae_mixture", "gan_mixture"])
def test_all_modes_of_the_mixture_are_covered(name, tmp_path):
    modes = run(name, tmp_path)["modes"]
    assert modes["modes_covered"] == modes["modes"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gan_digits"])
def test_the_other_families_draw_digits(name, tmp_path):
    report = run(name, tmp_path)["distribution"]
    assert report["label_accuracy"] >= 0.9
    assert report["near_copies"] <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ratio"), [("consistency_digits", 2.0), ("mean_flow_digits", 3.5)])
def test_one_step_models_draw_digits_without_a_teacher(name, ratio, tmp_path):
    report = run(name, tmp_path)["distribution"]
    assert report["frechet_ratio"] <= ratio
    assert report["label_accuracy"] >= 0.93


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A work directory of the main job."""
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    run("diffusion_digits", workdir)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("name", ["consistency_digits:distilled", "progressive_digits", "reflow_digits"])
def test_distilled_models_draw_digits_in_one_or_two_steps(name, teacher, tmp_path):
    report = run(name, tmp_path / "run", f"--config.objective.teacher.weights.workdir={teacher}")[
        "distribution"
    ]
    assert report["frechet_ratio"] <= 3.5
    assert report["label_accuracy"] >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits", "ratio"),
    [("ladder_digits", 1.85, 2.0), ("flow_digits", 2.05, 3.0), ("vae_digits", 2.45, 2.0)],
)
def test_likelihoods_of_digits(name, bits, ratio, tmp_path):
    report = run(name, tmp_path)
    assert report["likelihood"]["bits_per_dim"] <= bits
    assert report["distribution"]["frechet_ratio"] <= ratio
    assert report["distribution"]["label_accuracy"] >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("toy", ["moons", "mixture", "rings", "spirals"])
def test_spline_flows_are_within_a_twentieth_of_a_nat_of_the_entropy(toy, tmp_path):
    assert run(f"flow_toys:spline-{toy}", tmp_path)["likelihood"]["excess_nats"] <= 0.05


TWO_STAGES = [
    ("kl_digits", "latent_diffusion_digits:{}", 2.0, 0.93),
    ("vqvae_digits", "vq_prior_digits:{}", 2.5, 0.75),
    ("vqvae2_digits", "vqvae2_digits:{}", 2.0, 0.9),
]


@pytest.mark.slow
@pytest.mark.parametrize(("coder", "model", "ratio", "accuracy"), TWO_STAGES)
def test_models_of_latents_draw_digits(coder, model, ratio, accuracy, tmp_path):
    first = run(coder, tmp_path / "first")["held_out"]
    assert first.get("vqvae/mse", 0.0) <= 0.022
    report = run(model.format(tmp_path / "first"), tmp_path / "second")["distribution"]
    assert report["frechet_ratio"] <= ratio
    assert report["label_accuracy"] >= accuracy


@pytest.mark.slow
def test_translated_outlines_are_nearer_to_their_digit_than_the_nearest_neighbour(tmp_path):
    found = run("pix2pix_digits", tmp_path)["translation"]
    assert found["l1"] <= 0.8 * found["l1_neighbour"]
