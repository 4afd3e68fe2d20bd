"""Import and export of language models in the layout of Hugging Face: `config.json` and `*.safetensors`, no pickle.

A table per architecture maps our arrays to theirs. Their names contain the block's number;
ours are stacked over the blocks along the first axis. GPT-2 stores matrices as [in, out], as we do; Llama as [out, in].
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genjax.core.errors import UserError
from genjax.core.extras import safetensors
from genjax.core.types import PyTree
from genjax.networks.transformers.token_transformer import TokenTransformer, gpt2, llama

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays.

    Attributes:
        ours: its path in the parameters.
        theirs: names of the arrays that are concatenated along the last axis; {i} is the block's number.
        transposed: whether theirs are transposed.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False


GPT2 = (
    Entry("tokens", ("transformer.wte.weight",)),
    Entry("positions", ("transformer.wpe.weight",)),
    *(
        Entry(f"blocks/{ours}/{part}", (f"transformer.h.{{i}}.{theirs}.{name}",))
        for ours, theirs, first in (
            ("norm1", "ln_1", "scale"),
            ("qkv", "attn.c_attn", "kernel"),
            ("out", "attn.c_proj", "kernel"),
            ("norm2", "ln_2", "scale"),
            ("mlp_in", "mlp.c_fc", "kernel"),
            ("mlp_out", "mlp.c_proj", "kernel"),
        )
        for part, name in ((first, "weight"), ("bias", "bias"))
    ),
    Entry("out_norm/scale", ("transformer.ln_f.weight",)),
    Entry("out_norm/bias", ("transformer.ln_f.bias",)),
)
LAYER = "model.layers.{i}."
LLAMA = (
    Entry("tokens", ("model.embed_tokens.weight",)),
    Entry("blocks/norm1/scale", (LAYER + "input_layernorm.weight",)),
    Entry("blocks/qkv/kernel", tuple(f"{LAYER}self_attn.{name}_proj.weight" for name in "qkv"), True),
    Entry("blocks/out/kernel", (LAYER + "self_attn.o_proj.weight",), True),
    Entry("blocks/norm2/scale", (LAYER + "post_attention_layernorm.weight",)),
    Entry("blocks/mlp_in/kernel", (LAYER + "mlp.gate_proj.weight", LAYER + "mlp.up_proj.weight"), True),
    Entry("blocks/mlp_out/kernel", (LAYER + "mlp.down_proj.weight",), True),
    Entry("out_norm/scale", ("model.norm.weight",)),
)
HEAD = Entry("out/kernel", ("lm_head.weight",), True)


def _need(config: Mapping[str, Any], **wanted: Any) -> None:
    """Raises if the config has other than the supported values."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise UserError(f"config.json has {name}={config[name]!r}; only {value!r} is supported")


def _from_gpt2(config: Mapping[str, Any]) -> TokenTransformer:
    _need(
        config, activation_function="gelu_new", scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False
    )
    _need(config, add_cross_attention=False, tie_word_embeddings=True)
    width = config["n_embd"]
    return gpt2(
        config["n_layer"],
        width,
        config["n_head"],
        mlp_ratio=(config.get("n_inner") or 4 * width) / width,
        places=config["n_positions"],
        epsilon=config.get("layer_norm_epsilon", 1e-5),
    )


def _from_llama(config: Mapping[str, Any]) -> TokenTransformer:
    _need(config, hidden_act="silu", attention_bias=False, mlp_bias=False)
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise UserError(f"config.json scales rotary positions, {scaling}; only the default is supported")
    width, heads = config["hidden_size"], config["num_attention_heads"]
    _need(config, head_dim=width // heads)
    return llama(
        config["num_hidden_layers"],
        width,
        heads,
        config.get("num_key_value_heads") or heads,
        mlp_ratio=config["intermediate_size"] / width,
        epsilon=config.get("rms_norm_eps", 1e-6),
        rotary_base=float(scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _to_gpt2(net: TokenTransformer, params: Mapping[str, Any]) -> dict[str, Any]:
    places = len(params["positions"])
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": net.depth,
        "n_embd": net.width,
        "n_head": net.heads,
        "n_inner": round(net.mlp_ratio * net.width),
        "n_positions": places,
        "n_ctx": places,
        "layer_norm_epsilon": net.epsilon,
        "activation_function": "gelu_new",
        "vocab_size": len(params["tokens"]),
    }


def _to_llama(net: TokenTransformer, params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": net.depth,
        "hidden_size": net.width,
        "num_attention_heads": net.heads,
        "num_key_value_heads": net.groups or net.heads,
        "intermediate_size": round(net.mlp_ratio * net.width),
        "rms_norm_eps": net.epsilon,
        "rope_theta": net.rotary_base,
        "hidden_act": "silu",
        "tie_word_embeddings": net.tied,
        "vocab_size": len(params["tokens"]),
    }


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture: its table of arrays, and conversions between its config and our network."""

    table: tuple[Entry, ...]
    network: Callable[[Mapping[str, Any]], TokenTransformer]
    config: Callable[[TokenTransformer, Mapping[str, Any]], dict[str, Any]]

    def entries(self, net: TokenTransformer) -> tuple[Entry, ...]:
        """The table of a network; with an output matrix unless it is tied."""
        return self.table if net.tied else (*self.table, HEAD)


ARCHITECTURES = {
    "gpt2": Architecture(GPT2, _from_gpt2, _to_gpt2),
    "llama": Architecture(LLAMA, _from_llama, _to_llama),
}


def kind_of(net: TokenTransformer) -> str:
    """The architecture of a network.

    Raises:
        UserError: no known architecture has its form.
    """
    form: dict[str, Callable[..., TokenTransformer]] = {"gpt2": gpt2, "llama": llama}
    free = {
        "depth",
        "width",
        "heads",
        "groups",
        "mlp_ratio",
        "epsilon",
        "rotary_base",
        "remat",
        "dtype",
        "dropout",
    }
    free |= {"places", "init_std", "parent", "name"}
    differing = {}
    for name, make in form.items():
        like = make()
        free_here = free | ({"tied"} if name == "llama" else set())
        names = [field.name for field in dataclasses.fields(net) if field.name not in free_here]
        differing[name] = [n for n in names if getattr(net, n) != getattr(like, n)]
        if not differing[name]:
            return name
    reasons = "; ".join(f"not {name}: {', '.join(names)} differ" for name, names in differing.items())
    raise UserError(f"no supported architecture has the form of this network ({reasons})")


def to_ours(kind: str, net: TokenTransformer, theirs: Mapping[str, np.ndarray]) -> PyTree:
    """Parameters of `net` from arrays by Hugging Face's names.

    Args:
        kind: "gpt2" or "llama".
        net: network of the config.
        theirs: name -> array; GPT-2's may lack the prefix "transformer.".

    Returns:
        {"params": ...}, as `net.init` makes them, in the arrays' dtypes.

    Raises:
        UserError: an array is missing.
    """

    def find(name: str) -> np.ndarray:
        for known in (name, name.removeprefix("transformer.")):
            if known in theirs:
                return theirs[known]
        raise UserError(f"the weights lack '{name}'")

    out: dict[str, Any] = {}
    for entry in ARCHITECTURES[kind].entries(net):
        whole = []
        stacked = entry.ours.startswith("blocks/")
        for block in range(net.depth if stacked else 1):
            parts = [find(name.format(i=block)) for name in entry.theirs]
            whole.append(np.concatenate([part.T if entry.transposed else part for part in parts], axis=-1))
        node = out
        *folders, leaf = entry.ours.split("/")
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.stack(whole) if stacked else whole[0]
    return {"params": out}


def to_theirs(kind: str, net: TokenTransformer, params: PyTree) -> Arrays:
    """The inverse of `to_ours`.

    Args:
        kind: "gpt2" or "llama".
        net: the network.
        params: its parameters.

    Returns:
        Arrays by Hugging Face's names.
    """
    groups = net.groups or net.heads
    d, hidden = net.width // net.heads, round(net.mlp_ratio * net.width)
    widths = {
        "blocks/qkv/kernel": (net.heads * d, groups * d, groups * d),
        "blocks/mlp_in/kernel": (hidden, hidden),
    }
    theirs: Arrays = {}
    for entry in ARCHITECTURES[kind].entries(net):
        node: Any = params["params"]
        for folder in entry.ours.split("/"):
            node = node[folder]
        stacked = entry.ours.startswith("blocks/")
        for block, whole in enumerate(node if stacked else [node]):
            ends = np.cumsum(widths[entry.ours])[:-1] if len(entry.theirs) > 1 else np.array([], int)
            for name, part in zip(entry.theirs, np.split(np.asarray(whole), ends, axis=-1), strict=True):
                theirs[name.format(i=block)] = np.ascontiguousarray(part.T if entry.transposed else part)
    return theirs


def describe(folder: Path) -> tuple[TokenTransformer, dict[str, Any]]:
    """The network that a folder's config.json describes, and the config.

    Raises:
        UserError: it is missing or damaged, or the architecture is another.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except OSError as error:
        raise UserError(f"cannot read {folder / 'config.json'}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not valid JSON: {error}") from None
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError(f"{folder} is a '{kind}': supported are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind].network(config), config


def read(folder: Path) -> tuple[TokenTransformer, PyTree, dict[str, Any]]:
    """Reads a model from a folder.

    Args:
        folder: holds config.json and one or more *.safetensors.

    Returns:
        (network, its float32 parameters, the config).

    Raises:
        UserError: a file is missing or damaged, or the architecture is another.
    """
    net, config = describe(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no *.safetensors (pickled weights are not read)")
    theirs: Arrays = {}
    library, arrays = safetensors()
    for file in files:
        try:
            theirs |= arrays.load_file(file)
        except (library.SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged: {error}") from None
    params = to_ours(
        config["model_type"], net, {name: np.asarray(array, np.float32) for name, array in theirs.items()}
    )
    return net, params, config


def write(folder: Path, net: TokenTransformer, params: PyTree, more: Mapping[str, Any] | None = None) -> str:
    """Writes a model to a folder, as `read` reads it.

    Args:
        folder: created if missing.
        net: network of a supported architecture.
        params: its parameters.
        more: additional entries of config.json, e.g. "eos_token_id".

    Returns:
        The architecture.

    Raises:
        UserError: no architecture has this form, or the folder cannot be written.
    """
    kind, arrays = kind_of(net), safetensors()[1]
    config = {"model_type": kind, **ARCHITECTURES[kind].config(net, params["params"]), **(more or {})}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrays.save_file(to_theirs(kind, net, params), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None
    return kind
