"""Completions: beam search with scores, speculative decoding with a draft model, and incompatible flags."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS, on_one_device
from test_autoregressive import NETS
from test_networks import filled
from test_programs import program

from genjax.api.complete import complete, write_completions
from genjax.api.decoding import search
from genjax.api.load import TrainedRun, load
from genjax.core.errors import UserError
from genjax.data import Data, TextFile
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding
from genjax.samplers.decoding.beam import Beam
from genjax.training import experiment as experiments
from genjax.training import workdir as workdirs
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment

pytestmark = pytest.mark.xdist_group("completion")  # shared fixtures are built once, in one process
GREEDY = [("objective.decoding.temperature", "0")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Work directories of random models over eight characters: large, small, short context, other characters."""
    root = tmp_path_factory.mktemp("completion")
    (root / "config.py").write_text("")
    for name, text in (("text", "a cat sat, a bat "), ("other", "12 345 ")):
        (root / f"{name}.txt").write_text(text * 30)
    kinds = {
        "large": ("llama", "text", 8),
        "small": ("tied, window", "text", 8),
        "short": ("llama", "text", 5),
        "other": ("llama", "other", 8),
    }
    for name, (net, text, length) in kinds.items():
        data = Data(TextFile(str(root / f"{text}.txt"), length, unit="char"))
        objective = Autoregressive(NETS[net], (length,), 8, decoding=Decoding(top_k=2))
        save(root, name, Experiment(objective, data, batch_size=8), filled)
    save(root, "points", ROWS["vae-points"], None)
    return root


def save(root, name, experiment, fill):
    template = on_one_device(experiment).template()
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    if fill is not None:
        objective = experiment.objective
        x = jnp.zeros((1, *objective.shape, 1), jnp.int32)
        state = dataclasses.replace(
            state, ema={"net": fill(objective.net, x, None, None, out=objective._out)}
        )
    (root / name).mkdir()
    experiments.save(experiment, str(root / "config.py"), root / name)
    with Checkpoints(root / name / "checkpoints") as checkpoints:
        checkpoints.save(0, state)


@pytest.mark.slow
def test_beams_are_sorted_by_their_own_log_probability(runs, capsys):
    """Scores are nats of the continuation over its length to the penalty; no truncation of the config's applies."""
    out = write_completions(load(runs / "large"), ["a c", "sat,"], beam=Beam(3, 0.5))
    printed = capsys.readouterr().out
    assert out.read_text().strip() in printed
    run, state = workdirs.reopen_trained(runs / "large", [])
    objective, vocabulary = run.experiment.objective, run.experiment.data.source.vocabulary
    found = out.read_text().strip().split("\n---\n")
    assert len(found) == 6
    scores = [float(line[1:].partition("]")[0]) for line in found]
    texts = [line.partition("] ")[2] for line in found]
    assert [text[:3] for text in texts] == ["a c"] * 3 + ["sat"] * 3
    assert scores[:3] == sorted(scores[:3], reverse=True)
    rows = [vocabulary.encode(text.encode()) for text in texts]
    x = jnp.asarray([np.pad(row, (0, 8 - len(row))) for row in rows])
    log_p = np.asarray(jax.nn.log_softmax(objective.outputs(state.ema, x)[:, :, 0]))
    for row, score, each, begun in zip(rows, scores, log_p, [3] * 3 + [4] * 3, strict=True):
        nats = sum(each[i, row[i]] for i in range(begun, len(row)))
        assert len(row) == begun + 4
        assert score == pytest.approx(nats / 4**0.5, abs=1e-3)


@pytest.mark.slow
def test_greedy_drafts_give_the_models_own_greedy_text(runs, capsys):
    prompts = ["a c", "b"]
    large, small = load(runs / "large", GREEDY), load(runs / "small")
    expected = complete(large, prompts)
    assert complete(large, prompts[0]) == complete(large, prompts[:1])[0] == expected[0]
    assert complete(large, prompts, draft=small, drafts=2) == expected
    capsys.readouterr()
    drafted = write_completions(large, prompts, draft=small, drafts=2, out=runs / "drafted")
    assert drafted.read_text() == "\n---\n".join(expected) + "\n"
    assert "% of the drafts, 2 per round" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_accepts_all_its_own_drafts(runs, capsys):
    large = load(runs / "large")
    write_completions(large, ["a"], draft=large, drafts=1)
    assert "accepted 100.0% of the drafts, 1 per round" in capsys.readouterr().out


def test_beam_search_and_drafts_exclude_each_other():
    run = object.__new__(TrainedRun)  # nothing of it is read
    with pytest.raises(UserError, match="give one of them"):
        complete(run, "a c", beam=Beam(), draft=run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "draft", "prompt"),
    [
        ("of the same tokens", "other", "a c"),
        ("reads 5 tokens, the model 8", "short", "a c"),
        ("must be an autoregressive model, this is VAE", "points", "a c"),
        ("a prompt of 9 tokens does not fit a model of 8", None, "a cat sat"),
    ],
)
def test_incompatible_models_and_prompts_raise_one_line(runs, words, draft, prompt):
    with pytest.raises(UserError, match=words) as error:
        complete(load(runs / "large"), prompt, draft=load(runs / draft) if draft else None)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_program_searches_drafts_and_rejects_flags_without_effect(runs):
    workdir = f"--workdir={runs / 'large'}"
    searched = program("sample", workdir, "--prompt=a c", "--beams=2", "--length_penalty=0.5")
    assert searched.returncode == 0, searched.stderr
    assert searched.stdout.count("] a c") == 2
    drafted = program("sample", workdir, "--prompt=a c", f"--draft={runs / 'small'}", "--drafts=2")
    assert drafted.returncode == 0, drafted.stderr
    assert "of the drafts, 2 per round" in drafted.stdout
    refused = {
        "--beams needs --prompt": ["--beams=2"],
        "--length_penalty needs --beams": ["--prompt=a", "--length_penalty=1"],
        "--drafts needs --draft": ["--prompt=a", "--drafts=2"],
        "give one of them": ["--prompt=a", "--beams=2", "--draft=x"],
        "--label is for samples": ["--prompt=a", "--label=1"],
    }
    for message, words in refused.items():
        done = program("sample", workdir, *words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_beam_search_returns_at_most_the_existing_continuations(runs):
    """Nine beams with one position left and a vocabulary of eight tokens."""
    run, state = workdirs.reopen_trained(runs / "large", [])
    found = search(run, state, ["a cat s"], Beam(9))[0]
    assert len(found) == 8
    assert np.exp([score for _, score in found]).sum() == pytest.approx(1.0, abs=1e-5)
