"""Folders in Hugging Face's layout: what they describe is read exactly, anything else is refused in one line."""

import itertools
import json
import math
import re
import struct
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from damage import damaged
from safetensors.numpy import load_file, save_file

from genjax.core.errors import UserError
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import gpt2, llama

VALUES = 11
NETS = {
    "gpt2": gpt2(2, 8, 2, places=12),
    "llama": llama(2, 8, 4, 2, mlp_ratio=2.5, rotary_base=500.0),
    "tied": llama(1, 8, 2, 1, tied=True),
}
SIZES = {
    "gpt2": ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size"),
    "llama": (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    ),
}
OPTIONAL = {  # with a value that transformers knows and this network is not
    "gpt2": {
        "n_inner": 7,
        "layer_norm_epsilon": 0.5,
        "activation_function": "relu",
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "add_cross_attention": True,
        "tie_word_embeddings": False,
    },
    "llama": {
        "num_key_value_heads": 3,
        "rms_norm_eps": 0.5,
        "hidden_act": "gelu",
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 6,
        "rope_theta": 7.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 7.0},
        "tie_word_embeddings": True,
        "max_position_embeddings": 5,
    },
}
BOTH = ("quantization_config", "architectures", "bos_token_id", "eos_token_id")
WRONG = ("x", [], ["x"], {}, {"x": 1}, True, False, 0, -1, 1.5, math.inf, math.nan, 10**40, [[]])


def make(folder, kind):
    """A model with random weights, and its arrays by Hugging Face's names."""
    net = NETS[kind]
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32), out=VALUES))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    huggingface.write(folder, net, params, {"bos_token_id": 1, "eos_token_id": [2, 3]})
    return params, load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in NETS}
    return {kind: (folder, *make(folder, kind)) for kind, folder in folders.items()}


@pytest.fixture(params=NETS)
def model(made, request, tmp_path):
    """(kind, a copy of its folder, parameters, arrays)."""
    folder, params, arrays = made[request.param]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return request.param.replace("tied", "llama"), tmp_path, params, arrays


def change(path, name="config.json", drop=(), **entries):
    config = {**json.loads((path / name).read_text()), **entries}
    (path / name).write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))


def refusal(folder, call=huggingface.read):
    """The line with which a folder is refused; "" if it is read."""
    try:
        call(folder)
    except UserError as error:
        line = str(error)
    else:
        return ""
    assert line
    assert "\n" not in line
    assert len(line) < 600
    return line


def refused(folder, *words, call=huggingface.read):
    line = refusal(folder, call)
    assert line
    for word in words:
        assert word in line, line


def equal(folder, params):
    jax.tree.map(np.testing.assert_array_equal, huggingface.read(folder)[1], params)


def test_every_size_must_be_there(model):
    kind, folder, _, _ = model
    whole = (folder / "config.json").read_text()
    for name in SIZES[kind]:
        change(folder, drop=(name,))
        refused(folder, "config.json", f"'{name}'")
        for value in (None, *WRONG, "2", [2]):
            change(folder, **{name: value})
            refused(folder, "config.json", name)
        (folder / "config.json").write_text(whole)


def test_null_is_missing_and_no_entry_of_another_type_is_read(model):
    """An optional entry that is null, or missing, gives one network; others are refused by name, or mean themselves."""
    kind, folder, _, _ = model
    whole = json.loads((folder / "config.json").read_text())
    same_as = {"rope_parameters": ("rope_theta",), "rope_theta": ("rope_parameters",)}
    for name in (*OPTIONAL[kind], *BOTH):
        rest = {key: value for key, value in whole.items() if key not in (name, *same_as.get(name, ()))}
        (folder / "config.json").write_text(json.dumps(rest))
        missing = refusal(folder, huggingface.describe)
        expected = None if missing else huggingface.describe(folder)
        (folder / "config.json").write_text(json.dumps({**rest, name: None}))
        if "token" in name:  # null is none; missing is transformers' default
            found = huggingface.describe(folder)
            assert (found.bos if name.startswith("bos") else found.eos) in (None, ())
        elif missing:
            refused(folder, missing, call=huggingface.describe)
        else:
            found = huggingface.describe(folder)
            assert (found.net, found.length, found.eos) == (expected.net, expected.length, expected.eos)
        for value in WRONG:
            (folder / "config.json").write_text(json.dumps({**rest, name: value}))
            line = refusal(folder, huggingface.describe)
            assert name in line if line else allowed(name, value), (name, value, line)


def allowed(name, value):
    """What an optional entry may be."""
    if name in ("bos_token_id", "eos_token_id"):
        return value == 0 or value == []
    if name == "architectures":
        return value == []
    if name in ("rope_scaling", "rope_parameters"):
        return isinstance(value, dict)
    if (
        name in ("tie_word_embeddings", "attention_bias", "mlp_bias")
        or "scale_attn" in name
        or "add_" in name
    ):
        return isinstance(value, bool)
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if name in ("n_inner", "max_position_embeddings"):
        return number and isinstance(value, int) and value < 2**31
    return number and name in ("rms_norm_eps", "layer_norm_epsilon", "rope_theta")


def test_a_network_that_is_not_ours_is_refused(model):
    """Each entry with another value: the network has it, or the line names it; the weights tell the rest."""
    kind, folder, _, _ = model
    before = huggingface.describe(folder)
    whole = (folder / "config.json").read_text()
    for name, value in OPTIONAL[kind].items():
        drop = ("rope_parameters",) if name == "rope_theta" else ()
        change(folder, drop=drop, **{name: value})
        if line := refusal(folder, huggingface.describe):
            assert name in line
        else:
            found = huggingface.describe(folder)
            assert (found.net, found.length) != (before.net, before.length) or before.net.tied
        (folder / "config.json").write_text(whole)
    for entries, word in (
        ({"model_type": "bert"}, "supported are gpt2, llama"),
        ({"model_type": ["gpt2"]}, "supported are gpt2, llama"),
        ({"model_type": None}, "supported are gpt2, llama"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
    ):
        change(folder, **entries)
        refused(folder, "config.json", word)
        (folder / "config.json").write_text(whole)
    for text in ("", "[]", "3", "null", '"x"', "{", "[" * 100_000, "\xff", "1" * 5000, '{"a": 1} x'):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        refused(folder, "config.json")


def stored(folder, header, data, name="model.safetensors"):
    """A .safetensors file from its specification."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2}
WIDTHS |= {"F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8}
FLOATS = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}


def with_dtype(folder, arrays, chosen, dtype):
    """The arrays, one of them with another dtype."""
    header, data = {}, b""
    for name, array in arrays.items():
        own = dtype if name == chosen else "F32"
        raw = array.astype(FLOATS[own]).tobytes() if own in FLOATS else bytes(array.size * WIDTHS[own])
        header[name] = {
            "dtype": own,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    stored(folder, header, data)


@pytest.mark.parametrize("dtype", WIDTHS)
def test_floating_point_numbers_are_read_and_others_are_refused(made, tmp_path, dtype):
    folder, params, arrays = made["gpt2"]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    name = "transformer.h.1.attn.c_attn.weight"
    with_dtype(tmp_path, arrays, name, dtype)
    if dtype not in FLOATS:
        return refused(tmp_path, name, dtype, "model.safetensors")
    found = huggingface.read(tmp_path)[1]["params"]["blocks"]["qkv"]["kernel"]
    assert found.dtype == np.float32
    exact = params["params"]["blocks"]["qkv"]["kernel"]
    np.testing.assert_array_equal(found[0], exact[0])
    np.testing.assert_array_equal(found[1], exact[1].astype(FLOATS[dtype]).astype(np.float32))


def test_each_array_must_be_there_with_its_shape_and_finite_values(model):
    kind, folder, params, arrays = model
    save = lambda changed: save_file(
        {name: np.ascontiguousarray(array) for name, array in changed.items()}, folder / "model.safetensors"
    )
    for name, array in arrays.items():
        save({other: found for other, found in arrays.items() if other != name})
        refused(folder, "lack", name)
        for other in (array[..., :-1], np.concatenate([array] * 2), array[None], array.reshape(-1, 1)):
            save({**arrays, name: other})
            refused(folder, name, str(tuple(array.shape)))
        for value in (np.nan, np.inf, -np.inf, 1e39):
            spoilt = array.astype(np.float64)
            spoilt.flat[-1] = value
            save({**arrays, name: spoilt})
            refused(folder, name, "NaN or infinity")
    prefix = "transformer." if kind == "gpt2" else "model."
    more = np.zeros((2, 2), np.float32)
    for name in ("score.weight", f"{prefix}more.weight", f"{prefix}layers.0.q_proj.weight.absmax", "x"):
        save({**arrays, name: more})
        refused(folder, name, "the weights in")
    block = next(name for name in arrays if ".0." in name)
    deeper = block.replace(".0.", f".{NETS['gpt2'].depth if len(arrays) > 12 else 1}.")
    save({**arrays, deeper: arrays[block]})
    refused(folder, "blocks", "n_layer" if kind == "gpt2" else "num_hidden_layers")
    save(arrays)
    equal(folder, params)


def test_forms_of_one_model_are_read_alike(model):
    """Without the prefix, with the buffers of older versions, with the tied output matrix, in two files by an index."""
    kind, folder, params, arrays = model
    prefix, tokens = ("transformer.", "wte") if kind == "gpt2" else ("model.", "embed_tokens")
    bare = {name.removeprefix(prefix): array for name, array in arrays.items()}
    buffer = np.ones((1, 1, 12, 12), np.float32)
    if kind == "gpt2":
        old = {f"h.{i}.attn.{name}": buffer for i in range(2) for name in ("bias", "masked_bias")}
    else:
        old = {"layers.0.self_attn.rotary_emb.inv_freq": buffer, "rotary_emb.inv_freq": buffer}
    tied = {} if "lm_head.weight" in arrays else {"lm_head.weight": arrays[f"{prefix}{tokens}.weight"]}
    for form in (
        bare,
        {**bare, **old},
        {**arrays, **{prefix + n: a for n, a in old.items()}},
        {**arrays, **tied},
    ):
        save_file(form, folder / "model.safetensors")
        equal(folder, params)
    if tied:
        save_file({**arrays, "lm_head.weight": -tied["lm_head.weight"]}, folder / "model.safetensors")
        refused(folder, "lm_head.weight", "tie_word_embeddings")


def shard(folder, arrays):
    """Two files with an index."""
    names = list(arrays)
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: arrays[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def test_only_the_files_of_the_layout_are_read(model):
    """Other .safetensors, whatever is in them, change nothing: beside the one file, or beside those of an index."""
    _, folder, params, arrays = model
    other = {name: -array for name, array in arrays.items()}
    strays = ("adapter_model.safetensors", "model copy.safetensors", "a.safetensors", "zz.safetensors")
    for name in strays:
        save_file(other, folder / name)
    (folder / "b.safetensors").write_bytes(b"damaged")
    equal(folder, params)
    shard(folder, arrays)
    save_file(other, folder / "model-00003-of-00003.safetensors")
    equal(folder, params)
    index = folder / "model.safetensors.index.json"
    whole, first = json.loads(index.read_text()), next(iter(arrays))
    for value in (None, [], {}, "x", 3, {**whole["weight_map"], first: 3}):
        index.write_text(json.dumps({"weight_map": value}))
        refused(folder, "index.json")
    for file in (
        "../x.safetensors",
        "/etc/passwd",
        "gone.safetensors",
        "model.bin",
        "a/b.safetensors",
        "b.safetensors",
    ):
        index.write_text(json.dumps({"weight_map": {**whole["weight_map"], first: file}}))
        refused(folder, file)
    index.write_text(json.dumps({"weight_map": {**whole["weight_map"], "more": "zz.safetensors"}}))
    refused(folder, "'more' is not in zz.safetensors")
    index.unlink()
    refused(folder, "no model.safetensors", "a.safetensors")


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {"bos_token_id": 4, "eos_token_id": 5}, (4, (5,))),
        (None, {"bos_token_id": None, "eos_token_id": [5, 6, 5]}, (None, (5, 6))),
        ({"bos_token_id": 7, "eos_token_id": [8, 9]}, {"bos_token_id": 4, "eos_token_id": 5}, (7, (8, 9))),
        ({"eos_token_id": 8}, {"bos_token_id": 4, "eos_token_id": 5}, (None, (8,))),
        ({}, {"bos_token_id": 4, "eos_token_id": 5}, (None, ())),
    ],
)
def test_ends_are_those_of_generation_config_or_else_of_config(model, generation, config, expected):
    _, folder, _, _ = model
    change(folder, **config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    found = huggingface.describe(folder)
    assert (found.bos, found.eos) == expected
    where = "config.json" if generation is None else "generation_config.json"
    for name, value in itertools.product(
        ("bos_token_id", "eos_token_id"), (VALUES, -1, "x", True, [1, VALUES])
    ):
        (folder / where).write_text(
            json.dumps({**json.loads((folder / where).read_text()), **config, name: value})
        )
        refused(folder, where, name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_damaged_files_are_read_or_refused_in_one_line(made, tmp_path, name, request):
    """A header, its length, a config, an index: a model of the right shapes, or one line. `--fuzz=N` files of each."""
    folder, params, arrays = made["llama"]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if "index" in name:
        shard(tmp_path, arrays)
    data, rng = (tmp_path / name).read_bytes(), np.random.default_rng(zlib.crc32(name.encode()))
    end = 8 + struct.unpack("<Q", data[:8])[0] if name.endswith("safetensors") else len(data)
    read = 0
    for _ in range(request.config.getoption("--fuzz")):
        (tmp_path / name).write_bytes(damaged(data[:end], rng) + data[end:])
        if line := refusal(tmp_path):
            assert re.search(r"\.json|\.safetensors|the weights in", line)
            continue
        read += 1
        net, found, _ = huggingface.read(tmp_path)
        jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), found, params)
        assert net.depth == 2
    assert read < request.config.getoption("--fuzz")
