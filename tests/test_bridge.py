"""Import and export of weights in Hugging Face's layout; errors about missing or damaged files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_networks import filled

from genjax.api import convert
from genjax.api.complete import complete
from genjax.api.load import load
from genjax.core.errors import UserError
from genjax.data import TokenizedText
from genjax.networks import TokenTransformer, huggingface
from genjax.networks.transformers.token_transformer import gpt2, llama

IDS = jnp.asarray(np.random.default_rng(0).integers(0, 300, (2, 9)))
NETS = {
    "gpt2": gpt2(2, 16, 2, places=32),
    "llama": llama(2, 16, 4, 2, mlp_ratio=2.5, rotary_base=5000.0),
    "llama, tied": llama(1, 16, 2, 1, tied=True),
}


@pytest.mark.parametrize("name", NETS)
def test_weights_round_trip_and_have_the_names_of_the_layout(name, tmp_path):
    net = NETS[name]
    params = jax.tree.map(np.asarray, filled(net, IDS, out=300))
    assert huggingface.write(tmp_path, net, params, {"eos_token_id": 7}) == name.split(",")[0]
    again, read, config = huggingface.read(tmp_path)
    assert config["eos_token_id"] == 7
    jax.tree.map(np.testing.assert_array_equal, read, params)
    apply = lambda net, params: np.asarray(jax.jit(lambda x: net.apply(params, x, out=300))(IDS))
    exact = jax.tree.map(jnp.asarray, params)
    np.testing.assert_array_equal(apply(again, exact), apply(net, exact))
    theirs = load_file(tmp_path / "model.safetensors")
    if name == "gpt2":
        np.testing.assert_array_equal(
            theirs["transformer.h.1.attn.c_attn.weight"], params["params"]["blocks"]["qkv"]["kernel"][1]
        )
    if name == "llama":
        assert theirs["model.layers.1.self_attn.k_proj.weight"].shape == (8, 16)
        np.testing.assert_array_equal(
            theirs["model.layers.0.mlp.up_proj.weight"].T,
            params["params"]["blocks"]["mlp_in"]["kernel"][0][:, 40:],
        )
    assert ("lm_head.weight" in theirs) == (name == "llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small GPT-2 with a tokenizer of 300 tokens, and a text."""
    path = tmp_path_factory.mktemp("model")
    text = path / "text.txt"
    text.write_text("the cat sat on the mat; the dog sat on the log. " * 60)
    convert.train_bpe(text, 300, path / "tokenizer.json")
    size = len(TokenizedText("", str(path / "tokenizer.json")).vocabulary)
    net = gpt2(2, 16, 2, places=32)
    huggingface.write(path, net, filled(net, IDS, out=size), {"eos_token_id": 0})
    return path


@pytest.mark.slow
def test_import_completion_and_export_round_trip(folder, tmp_path, capsys):
    workdir, text = tmp_path / "run", ("data.source.path", str(folder / "text.txt"))
    convert.import_weights(str(folder), workdir, [text, ("evaluation.batch_size", "2"), ("batch_size", "8")])
    again = tmp_path / "again"
    convert.export_weights(workdir, again)
    jax.tree.map(np.testing.assert_array_equal, huggingface.read(again)[1], huggingface.read(folder)[1])
    assert (again / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    text = complete(load(workdir, {"objective.decoding.temperature": 0}), "the cat")
    net, arrays, config = huggingface.read(folder)
    params = jax.tree.map(jnp.asarray, arrays)
    row = TokenizedText("", str(folder / "tokenizer.json")).vocabulary.encode(b"the cat").tolist()
    apply = jax.jit(lambda x: net.apply(params, x, out=config["vocab_size"]))
    while len(row) < 32 and row[-1] != 0:
        logits = apply(jnp.asarray([row + [0] * (32 - len(row))]))
        row.append(int(jnp.argmax(logits[0, len(row) - 1])))
    written = TokenizedText("", str(folder / "tokenizer.json")).vocabulary.decode_completion(np.array(row))
    assert text == written
    assert written.startswith("the cat")


def test_tokenizer_round_trips_any_text(folder):
    encoding = TokenizedText("", str(folder / "tokenizer.json")).vocabulary
    for text in ("the cat sat", "Grüße, 世界 \n\t 🙂", ""):
        assert encoding.decode(encoding.encode(text.encode())) == text
    whole = TokenizedText(str(folder / "text.txt"), str(folder / "tokenizer.json"), length=16)
    joined = "".join(
        encoding.decode(row) for row in whole.load("test")[np.arange(len(whole.load("test")))]["x"]
    )
    assert joined in (folder / "text.txt").read_text()
    assert len(encoding.encode(b"the cat sat on the mat; " * 10)) < 120, "pairs are joined"


@pytest.mark.parametrize(
    ("words", "spoil"),
    [
        ("config.json: No such file", lambda path: (path / "config.json").unlink()),
        ("is not valid JSON", lambda path: (path / "config.json").write_text("{")),
        ("a 'bert'; supported are gpt2, llama", lambda path: change(path, model_type="bert")),
        ("activation_function='relu'", lambda path: change(path, activation_function="relu")),
        ("no model.safetensors", lambda path: (path / "model.safetensors").unlink()),
        ("is damaged", lambda path: (path / "model.safetensors").write_bytes(b"\x10" * 99)),
        (
            "the weights have 1 blocks",
            lambda path: save_file({"h.0.x": np.zeros(3)}, path / "model.safetensors"),
        ),
        ("has the shape", lambda path: change(path, n_positions=9)),
    ],
)
def test_a_damaged_folder_raises_a_one_line_error(folder, tmp_path, words, spoil):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    with pytest.raises(UserError, match=words) as error:
        convert.import_weights(
            str(tmp_path), tmp_path / "run", [("data.source.path", str(folder / "text.txt"))]
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def change(path, **entries):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | entries))


def test_an_unsupported_network_raises_with_the_reason():
    with pytest.raises(UserError, match=r"not gpt2: .*position.*; not llama: .*norm"):
        huggingface.kind_of(TokenTransformer(causal=True))
