"""RESULTS.md: seeds in one line, std against hand computation, gaps to published numbers, deterministic text."""

import json
import statistics

import numpy as np
import pytest

from experiments.published import NANOGPT_TEXT, PUBLISHED
from genjax.core.errors import UserError
from genjax.data.text.text import split_contiguous, windows
from genjax.reports.results import Published, markdown
from genjax.reports.runs import read_runs
from genjax.training import experiment

KNOWN = (Published("vae_digits", ("",), "likelihood.bits_per_dim", 2.0, "bits/dim", "A paper", "long"),)


def finish(workdir, spec, overrides=(), **report):
    """A work directory as `train` leaves it, with given numbers."""
    workdir.mkdir(parents=True)
    loaded = experiment.load(spec, overrides)
    experiment.save(loaded, spec, workdir)
    more = {"step": loaded.steps, "parameters": 1234, "seconds_to_train": 60.0, "trained_on": "a machine"}
    (workdir / "evaluation.json").write_text(json.dumps({**more, **report}))
    return workdir


def numbers(bits, ratio):
    return {
        "likelihood": {"bits_per_dim": bits, "bits_per_dim_error": 0.03, "log_prob_kind": "ELBO"},
        "distribution": {"frechet_ratio": ratio, "frechet_ratio_std": 0.125},
    }


def cells(text, number):
    return [cell.strip() for cell in text.splitlines()[number].split("|")[1:-1]]


def test_seeds_share_one_line_and_the_gap_uses_their_mean(tmp_path):
    ratios, bits = [1.2, 1.5, 1.3], [2.3, 2.5, 2.4]
    for seed in range(3):
        words = [("seed", str(seed)), ("steps", "70"), ("checkpoint_every", str(50 + seed))]
        finish(tmp_path / f"run{seed}", "vae_digits", words, **numbers(bits[seed], ratios[seed]))
    text = markdown(read_runs([tmp_path]), KNOWN)
    assert text == markdown(read_runs([tmp_path / f"run{seed}" for seed in (2, 0, 1)]), KNOWN)
    lines = [line for line in text.splitlines() if line.startswith("| VAE")]
    assert len(lines) == 1
    found = cells(lines[0], 0)
    std = statistics.stdev(ratios)
    assert found[:4] == ["VAE", "Digits", "`train --config=vae_digits --config.steps=70`", "0, 1, 2"]
    assert found[4:7] == ["a machine", "70 steps of 128, 60 s", "1,234"]
    assert f"Fréchet ratio {statistics.mean(ratios):.2f} ± {std:.2f}" in found[7]
    assert "2.40 ± 0.10 bits/dim" in found[7]
    assert found[8:] == ["2 bits/dim: A paper; long", "+0.4"]


def test_a_single_seed_has_its_own_error_and_other_settings_have_no_reference(tmp_path):
    finish(tmp_path / "a", "vae_digits", **numbers(2.25, 1.5))
    finish(tmp_path / "b", "gan_digits", distribution={"frechet_ratio": 1.5})
    text = markdown(read_runs([tmp_path / "b", tmp_path / "a"]), KNOWN)
    gan, vae = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("| GAN", "| VAE")
    )
    assert "Fréchet ratio 1.50 ± 0.12; 2.250 ± 0.030 bits/dim" in vae
    assert cells(gan, 0)[-3:] == ["Fréchet ratio 1.5", "", ""]
    needs = Published(
        "vae_digits", ("",), "likelihood.bits_per_dim", 2.0, "u", "s", settings=(("samples", 5),)
    )
    assert "u: s" not in markdown(read_runs([tmp_path / "a"]), (needs,))


def test_runs_with_other_evaluation_settings_are_separate_lines(tmp_path):
    """Seeds 0 and 1 share a line; seed 2, evaluated with more samples, has its own with the override."""
    for seed in range(3):
        more = {"evaluated_with": {"objective.samples": "50"}} if seed == 2 else {}
        finish(tmp_path / str(seed), "vae_digits", [("seed", str(seed))], **numbers(2.0, 1.5), **more)
    lines = [line for line in markdown(read_runs([tmp_path]), ()).splitlines() if line.startswith("| VAE")]
    assert [(cells(line, 0)[2], cells(line, 0)[3]) for line in lines] == [
        ("`train --config=vae_digits`", "0, 1"),
        ("`train --config=vae_digits; evaluate --config.objective.samples=50`", "2"),
    ]


def test_a_seed_without_the_number_has_no_gap(tmp_path):
    finish(tmp_path / "0", "vae_digits", **numbers(2.25, 1.5))
    finish(tmp_path / "1", "vae_digits", [("seed", "1")], distribution={"frechet_ratio": 1.5})
    assert "A paper" not in markdown(read_runs([tmp_path]), KNOWN)


def test_lines_of_an_earlier_file_are_kept_unless_replaced(tmp_path):
    finish(tmp_path / "a", "vae_digits", **numbers(2.25, 1.5))
    finish(tmp_path / "b", "gan_digits", distribution={"frechet_ratio": 1.5})
    finish(tmp_path / "c", "vae_digits", [("seed", "1")], **numbers(2.5, 1.75))
    a, b, c = (read_runs([tmp_path / name]) for name in "abc")
    both = markdown([*a, *b], ())
    assert markdown(b, (), markdown(a, ())) == markdown(a, (), markdown(b, ())) == both
    assert markdown(b, (), both) == both
    assert markdown(c, (), both) == markdown([*b, *c], ()), "a new run of the same command replaces the line"
    with pytest.raises(UserError, match="cannot be kept"):
        markdown(a, (), both.replace("| gap |", "|"))
    with pytest.raises(UserError, match="cannot be kept"):
        markdown(a, (), "# Another file")


def test_pretrained_parts_have_no_line_and_paths_are_shortened(tmp_path):
    coder = finish(tmp_path / "coder,seed=0", "vqvae_digits", **numbers(3.0, 9.0))
    finish(tmp_path / "prior,seed=0", f"vq_prior_digits:{coder}", **numbers(3.5, 1.5))
    text = markdown(read_runs([tmp_path]), ())
    assert "VQVAE" not in text
    assert "`train --config=vq_prior_digits:coder,seed=0`" in text
    assert "120 s with earlier stages" in text
    assert str(tmp_path) not in text


def test_missing_runs_and_evaluations_raise(tmp_path):
    with pytest.raises(UserError, match="at least one, run=DIR"):
        read_runs([])
    with pytest.raises(UserError, match="contains none"):
        read_runs([tmp_path])
    workdir = finish(tmp_path / "a", "vae_digits")
    (workdir / "evaluation.json").unlink()
    with pytest.raises(UserError, match="has not been evaluated"):
        read_runs([workdir])


def test_nanogpt_is_compared_on_tiny_shakespeare_only(tmp_path):
    """The last tenth of its 1,115,394 characters in windows of 65."""
    test = split_contiguous(np.zeros(1_115_394, np.int32), ("train", "validation", "test"), 0.9, 0.0)["test"]
    ((_, count),) = NANOGPT_TEXT
    assert len(windows(test, 65, "test")) == count
    text = tmp_path / "any.txt"
    text.write_text("".join(map(chr, range(40, 105))) * 99)
    for number, examples in enumerate([int(count), int(count) - 1]):
        found = {"nats_per_token": 1.5, "examples": examples}
        finish(tmp_path / str(number), f"ar_shakespeare:{text}", [("seed", str(number))], likelihood=found)
        lines = markdown(read_runs([tmp_path / str(number)]), PUBLISHED).splitlines()
        assert ("nanoGPT" in lines[-1]) == (examples == count)


@pytest.mark.parametrize("reference", PUBLISHED, ids=lambda p: f"{p.config}-{p.variants[0]}")
def test_published_numbers_have_a_shipped_config_and_a_source(reference):
    assert reference.config in experiment.shipped()
    assert reference.source
    assert reference.number.startswith("likelihood.")
    for variant in reference.variants:
        if variant != "*":
            experiment.load(f"{reference.config}:{variant}" if variant else reference.config)
