"""JSON files of work directories and tokenizers: damaged ones are read, or refused in one line that names the file."""

import json
import zlib

import numpy as np
import pytest
from damage import damaged, values_changed

from genjax.core.errors import UserError
from genjax.data import Tokens
from genjax.data.text import token_files
from genjax.data.text.tokenized import Encoding, train_tokenizer
from genjax.reports.results import markdown
from genjax.reports.runs import read_runs
from genjax.training import experiment
from genjax.training.workdir import read_report
from genjax.training.writers import metric_rows, rewrite_metrics

TEXT = "".join(f"the cat {number} sat on the mat\n" for number in range(60))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A work directory with a report and metrics, token files and a tokenizer."""
    folder = tmp_path_factory.mktemp("made")
    experiment.save(experiment.load("vae_digits"), "vae_digits", folder)
    report = {"format": 2, "step": 3, "parameters": 5, "seconds_to_train": 2.0, "trained_on": "a machine"}
    report |= {"likelihood": {"bits_per_dim": 2.0, "bits_per_dim_error": 0.1, "log_prob_kind": "ELBO"}}
    report |= {"distribution": {"frechet_ratio": 1.2, "frechet_ratio_std": 0.1}}
    (folder / "evaluation.json").write_text(json.dumps(report))
    rows = [{"step": step, "time": 0.1 * step, "net/loss": 1.0 / step} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text(TEXT)
    token_files.write([str(folder / "text.txt")], "byte", folder / "tokens", separator="\n")
    train_tokenizer([TEXT], 280, folder / "tokenizer.json")
    return folder


READERS = {
    "experiment.json": experiment.restore,
    "evaluation.json": lambda folder: (read_report(folder), markdown(read_runs([folder]), ())),
    "metrics.jsonl": lambda folder: (
        list(metric_rows(folder / "metrics.jsonl")),
        rewrite_metrics(folder / "metrics.jsonl"),
    ),
    "tokens/tokens.json": lambda folder: Tokens(str(folder / "tokens"), 4).load("train"),
    "tokenizer.json": lambda folder: Encoding(str(folder / "tokenizer.json")).encode_prompt("the cat"),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(made, name, request):
    """Bytes changed, or entries missing and of other types. `--fuzz=N` files of each."""
    path, rng = made / name, np.random.default_rng(zlib.crc32(name.encode()))
    data, refused = path.read_bytes(), 0
    number = request.config.getoption("--fuzz")
    try:
        for turn in range(number):
            if turn % 2 or name.endswith("jsonl"):
                path.write_bytes(damaged(data, rng))
            else:
                path.write_text(json.dumps(values_changed(json.loads(data), rng)))
            try:
                READERS[name](made)
            except UserError as error:
                line = str(error)
            else:
                continue
            refused += 1
            assert "\n" not in line
            assert path.name in line or path.parent.name in line, line
    finally:
        path.write_bytes(data)
    READERS[name](made)
    assert refused or name == "metrics.jsonl"
