"""Folders of models and tokenizers against transformers: prompts, ends of texts, completions and exports."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors

from genjax.api import convert
from genjax.api.complete import complete
from genjax.api.load import load
from genjax.api.sample import sample
from genjax.api.train import train
from genjax.data.text.tokenized import Encoding, train_tokenizer
from genjax.training import experiment

pytestmark = pytest.mark.peers
TEXT = "the cat sat on the mat; the dog sat on the log. " * 60
SPECIAL = ("<s>", "</s>", "<turn>")
PROMPTS = ("the cat", "", " the  dog\n", "<s>the", "a<turn>b</s>", "Grüße, 世界 🙂")


def template(tokenizer, *, before="", after=""):
    """A tokenizer whose template adds special tokens."""
    words = [word for word in (before, after) if word]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(),
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in words],
    )


def tokenizer_of(folder, *, before="", after="", settings=None):
    """Writes tokenizer.json, and tokenizer_config.json with settings; returns its size."""
    folder.mkdir(exist_ok=True)
    tokenizer = train_tokenizer([TEXT], 280, folder / "tokenizer.json")
    tokenizer.add_special_tokens(list(SPECIAL))
    if before or after:
        template(tokenizer, before=before, after=after)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        **(settings or {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


FORMS = {
    "plain": {},
    "begins": {"before": "<s>"},
    "begins and ends": {"before": "<s>", "after": "</s>"},
    "add_bos_token": {"settings": {"add_bos_token": True}},
    "add_eos_token": {"settings": {"add_eos_token": True}},
    "add_bos_token, which the template overrules": {"before": "<s>", "settings": {"add_bos_token": False}},
}


@pytest.mark.parametrize("form", FORMS)
def test_prompts_have_the_same_tokens(form, tmp_path):
    tokenizer_of(tmp_path, **FORMS[form])
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    mine = Encoding(str(tmp_path / "tokenizer.json"))
    for prompt in PROMPTS:
        assert mine.encode_prompt(prompt).tolist() == peer(prompt)["input_ids"], prompt
        ids = np.array(peer(prompt)["input_ids"], np.int32)
        assert mine.decode_completion(ids) == peer.decode(ids, skip_special_tokens=True)


PADDING = 5  # rows of the embedding that no token of the tokenizer has
LENGTH = 24
MODELS = {
    "gpt2": lambda size: transformers.GPT2Config(
        vocab_size=size, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=4, embd_pdrop=0.1
    ),
    "llama": lambda size: transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        rope_theta=500.0,
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def published(request, tmp_path_factory):
    """A folder as transformers writes it, with a text: random weights, whose greedy texts end at different lengths."""
    folder = tmp_path_factory.mktemp(request.param)
    size = tokenizer_of(folder, before="<s>" if request.param == "llama" else "")
    (folder / "text.txt").write_text(TEXT)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    config = MODELS[request.param](size + PADDING)
    config.bos_token_id, config.eos_token_id = size - 3, size - 2
    make = transformers.GPT2LMHeadModel if request.param == "gpt2" else transformers.LlamaForCausalLM
    torch.manual_seed(0)
    model = make(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = [size - 2, *range(30, 100)]
    model.save_pretrained(folder)
    return folder


OVERRIDES = [("batch_size", "8"), ("evaluation.batch_size", "8"), ("evaluation.num", "8")]


def theirs(folder, prompt):
    """The greedy completion: (tokens, text)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = {} if prompt is None else tokenizer(prompt, return_tensors="pt")
    given = {name: given[name] for name in ("input_ids", "attention_mask") if name in given}
    out = model.generate(**given, max_length=LENGTH, do_sample=False, pad_token_id=0)[0]
    return out.tolist(), tokenizer.decode(out, skip_special_tokens=True)


def logits(folder, ids):
    with torch.no_grad():
        return (
            transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor(ids)).logits.numpy()
        )


def our_logits(run, ids):
    opened, state = run.merged()
    net, values = opened.experiment.objective.net, opened.experiment.objective.values
    return np.asarray(jax.jit(lambda x: net.apply(state.ema["net"], x, out=values))(jnp.asarray(ids)))


def test_completions_samples_and_exports_agree(published, tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    convert.import_weights(
        str(published), workdir, [("data.source.path", str(published / "text.txt")), *OVERRIDES]
    )
    run = load(workdir, {"objective.decoding.temperature": 0, "objective.decoding.top_p": 1.0})
    ended = 0
    for prompt in ("the cat", "dog", "<turn>the"):
        ids, text = theirs(published, prompt)
        assert complete(run, prompt) == text
        ended += len(ids) < LENGTH
    assert ended, "at least one text ends before the maximum length"
    ids, _ = theirs(published, None)
    row = sample(run, 1)[0].tolist()
    assert row[: len(ids)] == ids
    assert set(row[len(ids) :]) <= {ids[-1]}
    assert len(ids) > 2
    convert.export_weights(workdir, out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (published / name).read_bytes()
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads((folder / name).read_text()) for folder in (published, out))
        spelled = {"n_inner", "n_ctx", "rope_theta", "dtype", "architectures"}
        spelled |= (
            {"eos_token_id"} if name == "config.json" else set()
        )  # generation_config.json has precedence
        assert {k: v for k, v in after.items() if k not in spelled} == {
            k: v for k, v in before.items() if k not in spelled
        }
    for prompt in ("the cat", "dog", None):
        assert theirs(out, prompt) == theirs(published, prompt)
    ids = np.random.default_rng(0).integers(0, 270, (3, LENGTH))
    np.testing.assert_array_equal(logits(out, ids), logits(published, ids))


@pytest.mark.parametrize("config", ["ar_gpt2", "ar_lora"])
def test_a_fine_tuned_model_is_theirs_after_export(published, config, tmp_path):
    spec = f"{config}:{published}"
    given = [
        ("data.source.path", str(published / "text.txt")),
        ("steps", "3"),
        ("optimizer.learning_rate", "0.01"),
        *OVERRIDES,
    ]
    tuned = train(experiment.load(spec, given), tmp_path / "run", spec=spec)
    convert.export_weights(tmp_path / "run", tmp_path / "out")
    ids = np.random.default_rng(0).integers(0, 270, (3, LENGTH))
    expected, start = our_logits(tuned, ids), logits(published, ids)
    assert np.abs(expected - start).max() > 1e-4 * np.abs(start).max(), "training has changed the weights"
    assert np.abs(logits(tmp_path / "out", ids) - expected).max() < 2e-5 * np.abs(expected).max()
    name = "objective.inner.decoding" if config == "ar_lora" else "objective.decoding"
    run = load(tmp_path / "run", {f"{name}.temperature": 0, f"{name}.top_p": 1.0})
    for prompt in ("the cat", "dog"):
        assert complete(run, prompt) == theirs(tmp_path / "out", prompt)[1]
