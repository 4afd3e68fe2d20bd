"""Models of Hugging Face's layout from end to end: prompts, samples, fine-tuning and exports."""

import dataclasses
import json
import re

import documented
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_huggingface import refusal

import genjax as gx
from genjax.api import convert
from genjax.core.errors import UserError
from genjax.data import Data
from genjax.data.text import decode_text
from genjax.data.text.tokenized import Encoding, TokenizedText, train_tokenizer
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import gpt2, llama
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.huggingface import HuggingFace
from genjax.objectives.lora import LoRA
from genjax.samplers.decoding import Decoding
from genjax.training import experiment
from genjax.training.loop import prepare

TEXT = "the cat sat on the mat; the dog sat on the log.\n" * 60
SPECIAL = ("<s>", "</s>", "<turn>")
NETS = {"gpt2": gpt2(1, 16, 2, places=16), "llama": llama(1, 16, 4, 2, mlp_ratio=2.0)}
EXTRA = 3  # rows of the embedding that no token of the tokenizer has
SMALL = [
    ("steps", "2"),
    ("batch_size", "8"),
    ("optimizer.learning_rate", "0.01"),
    *((f"evaluation.{name}", "8") for name in ("num", "batch_size", "pictured", "likelihoods")),
]


def template(tokenizer, before, after):
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(),
        special_tokens=[(word, tokenizer.token_to_id(word)) for word in (before, after) if word],
    )


@pytest.fixture(scope="module", params=NETS)
def folder(request, tmp_path_factory):
    """A model with a tokenizer, whose template begins texts of Llama, and a text."""
    path = tmp_path_factory.mktemp(request.param)
    (path / "FILE.txt").write_text(TEXT)
    tokenizer = train_tokenizer([TEXT], 280, path / "tokenizer.json")
    tokenizer.add_special_tokens(list(SPECIAL))
    if request.param == "llama":
        template(tokenizer, "<s>", "")
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (path / "chat_template.jinja").write_text("{{ messages }}")
    size, net = tokenizer.get_vocab_size() + EXTRA, NETS[request.param]
    params = net.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32), out=size)
    params = jax.tree.map(lambda leaf: 6 * np.asarray(leaf), params)
    ids = [tokenizer.token_to_id(word) for word in SPECIAL]
    huggingface.write(path, net, params, {"bos_token_id": ids[0], "eos_token_id": ids[1], "x": 1}, length=16)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids[1:], "top_k": 7}))
    return path


def encoding(folder):
    return Encoding(str(folder / "tokenizer.json"))


def test_prompts_have_special_tokens_and_texts_have_none(folder):
    """A prompt is its parts, joined: special tokens that it spells, the text between them, and the template's."""
    mine = encoding(folder)
    special = {word: mine.tokenizer.token_to_id(word) for word in SPECIAL}
    begin = [special["<s>"]] if "llama" in str(folder) else []
    for prompt in ("the cat", "", "<turn>", "a<turn>the cat</s><s>", "<turn > the<s", "Grüße 🙂"):
        expected = begin.copy()
        for part in re.split("(" + "|".join(SPECIAL) + ")", prompt):
            expected += [special[part]] if part in special else mine.encode(part.encode()).tolist()
        found = mine.encode_prompt(prompt)
        assert found.tolist() == expected
        assert found.dtype == np.int32
        assert mine.decode_completion(found) == re.sub("|".join(SPECIAL), "", prompt)
        assert not set(special.values()) & set(mine.encode(prompt.encode()).tolist())


def test_padding_and_unknown_rows_of_the_embedding_have_no_text(folder):
    mine = encoding(folder)
    text, (begin, end, turn) = mine.encode(b"the cat"), (mine.tokenizer.token_to_id(word) for word in SPECIAL)
    data = Data(TokenizedText("", mine.path, 16))
    for before, after in (([begin], [end] * 5), ([], []), ([turn, begin], [len(mine) + 1])):
        row = np.array([*before, *text, turn, *text, *after], np.int32)
        assert decode_text.decode(data, row[None]) == ["the cat<turn>the cat"]
    assert decode_text.decode(data, np.full((1, 4), end)) == [""]


def test_samples_without_a_prompt_follow_the_given_first_token():
    """Greedy rows, with prompts and without, against a loop over the whole sequence; the first token may be an end."""
    net, values, length, stop = llama(1, 16, 2, 1, mlp_ratio=2.0), 12, 10, (5, 9, 2)
    params = net.init(jax.random.key(3), jnp.zeros((1, 2), jnp.int32), out=values)
    params = jax.tree.map(lambda leaf: 5 * leaf, params)
    logits = jax.jit(lambda x: net.apply(params, x, out=values))
    model = Autoregressive(net, (length,), values, start=False, decoding=Decoding(temperature=0.0), stop=stop)
    draw = jax.jit(
        lambda prompt, count, first: dataclasses.replace(model, first=first).sample(
            {"net": params}, {}, jax.random.key(0), 4, {"prompt": prompt, "count": count}
        ),
        static_argnums=2,
    )
    prompt, count = jnp.array([[1, 3], [4, 0], [0, 0], [2, 2]]), jnp.array([2, 1, 0, 2])
    for first in (2, 7):
        found, ended = np.asarray(draw(prompt, count, first)), 0
        for given, number, row in zip(prompt.tolist(), count.tolist(), found.tolist(), strict=True):
            expected = given[:number] or [first]
            begun = len(expected)
            while len(expected) < length and not (len(expected) > begun and expected[-1] in stop):
                padded = jnp.array([expected + [0] * (length - len(expected))])
                expected.append(int(jnp.argmax(logits(padded)[0, len(expected) - 1])))
            ended += len(expected) < length
            assert row == expected + [expected[-1]] * (length - len(expected))
        assert ended


def config(folder, kind, overrides=()):
    text = [("data.source.path", str(folder / "FILE.txt")), *SMALL]
    return experiment.load(f"{kind}:{folder}", [*text, *overrides])


def test_a_run_starts_from_the_weights_of_the_folder(folder):
    chosen = config(folder, "ar_gpt2")
    _, params, _ = huggingface.read(folder)
    state = prepare(chosen).make_state()
    for found in (state.params["net"], state.ema["net"]):
        jax.tree.map(np.testing.assert_array_equal, found, params)
    lora = config(folder, "ar_lora").objective
    assert lora == LoRA(chosen.objective, HuggingFace(str(folder)), path=r"blocks/.*kernel$")
    batch = {"x": jnp.zeros((1, 16), jnp.int32)}
    merged = lora.merged(*lora.init(jax.random.key(0), batch))[0]["net"]
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    assert chosen.objective.stop == tuple(
        encoding(folder).tokenizer.token_to_id(word) for word in SPECIAL[1:]
    )


def test_weights_of_another_model_are_refused(folder):
    right = config(folder, "ar_gpt2").objective
    batch = {"x": jnp.zeros((1, 16), jnp.int32)}
    load = lambda objective: HuggingFace(str(folder)).load(objective, jax.random.key(0), batch)
    load(dataclasses.replace(right, net=right.net.clone(remat="full", dtype="bfloat16", dropout=0.1)))
    for other, words in (
        (dataclasses.replace(right, net=right.net.clone(epsilon=0.5)), "net.epsilon"),
        (dataclasses.replace(right, net=right.net.clone(window=4)), "net.window"),
        (dataclasses.replace(right, values=right.values - 1), "tokens"),
        (dataclasses.replace(right, start=True, net=right.net.clone(extra=1)), "net.extra"),
    ):
        with pytest.raises(UserError, match=words):
            load(other)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = encoding(folder)._open()
    for number in range(EXTRA + 1):
        tokenizer.add_tokens([f"more{number}"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    given = [("data.source.path", str(folder / "FILE.txt"))]
    line = refusal(tmp_path, lambda path: convert.import_weights(str(path), path / "run", given))
    assert re.search(r"the tokenizer in .* has \d+ tokens, the weights have \d+", line)
    assert not (tmp_path / "run").exists()


COMMANDS = [
    words
    for command in documented.commands(documented.ROOT / "docs" / "autoregressive.md")
    for words in documented.alternatives(command)
    if any(re.search(r"FOLDER|runs/gpt2", word) for word in words)
    and "ar_lora:runs/gpt2" not in " ".join(words)
]


@pytest.mark.slow
def test_the_documented_commands_fine_tune_and_export(folder, tmp_path, monkeypatch, capsys):
    """All of them, whole and in their order, on a small model; the export is the work directory's model."""
    monkeypatch.chdir(tmp_path)
    for source, target in ((folder, "FOLDER"), (folder / "FILE.txt", "FILE.txt")):
        (tmp_path / target).symlink_to(source)
    assert [words[1] for words in COMMANDS] == ["train", "train", "convert", "sample", "train", "convert"]
    for _, verb, *words in COMMANDS:
        small = [f"--config.{name}={value}" for name, value in SMALL] if verb == "train" else []
        documented.run(verb, [*words, *small])
    shown = capsys.readouterr().out
    assert re.search(r"^the cat", shown, re.MULTILINE)
    run = gx.load("runs/gpt2", {"objective.decoding.temperature": 0, "objective.decoding.top_p": 1.0})
    _, params, written = huggingface.read(tmp_path / "FOLDER2")
    jax.tree.map(np.testing.assert_array_equal, run.state.ema["net"], params)
    before = huggingface.read(folder)[1]
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True))
    assert written["x"] == 1
    assert huggingface.describe(tmp_path / "FOLDER2") == dataclasses.replace(
        huggingface.describe(folder), config=written
    )
    assert json.loads((tmp_path / "FOLDER2" / "generation_config.json").read_text())["top_k"] == 7
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "FOLDER2" / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(UserError, match="imported from"):
        convert.export_weights(tmp_path / "runs" / "gpt2", folder)
    for name in ("gpt2", "tuned", "factors"):
        rows = gx.sample(gx.load(f"runs/{name}"), 8)
        assert len(set(rows[:, 1].tolist())) > 1, "samples go on after the token that begins them"
