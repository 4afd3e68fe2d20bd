"""The names, shapes and order of the arrays of a language model, here and in Hugging Face's layout.

A table per architecture maps our arrays to theirs. Their names contain the block's number;
ours are stacked over the blocks along the first axis. GPT-2 stores matrices as [in, out], as we do; Llama as [out, in].
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.types import PyTree
from genjax.networks.transformers.token_transformer import TokenTransformer

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


TABLES = {"gpt2": GPT2, "llama": LLAMA}
EMBEDDING = {
    kind: table[0].theirs[0] for kind, table in TABLES.items()
}  # also the output matrix of tied models
PREFIXES = {"gpt2": "transformer.", "llama": "model."}  # which models without an output matrix lack
BUFFERS = {  # arrays that older versions of transformers store, and that are no parameters
    "gpt2": r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",
    "llama": r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
}


def entries(kind: str, net: TokenTransformer) -> tuple[Entry, ...]:
    """The table of a network; with an output matrix unless it is tied."""
    return TABLES[kind] if net.tied else (*TABLES[kind], HEAD)


def _stacked(entry: Entry) -> bool:
    """Whether an array of ours holds those of all blocks."""
    return entry.ours.startswith("blocks/")


def to_ours(kind: str, net: TokenTransformer, find: Callable[[str], np.ndarray]) -> PyTree:
    """Parameters of `net` from arrays by Hugging Face's names.

    Args:
        kind: "gpt2" or "llama".
        net: network of the config.
        find: name -> array.

    Returns:
        {"params": ...}, as `net.init` makes them, in the arrays' dtypes.
    """
    out: dict[str, Any] = {}
    for entry in entries(kind, net):
        whole = []
        for block in range(net.depth if _stacked(entry) else 1):
            parts = [find(name.format(i=block)) for name in entry.theirs]
            whole.append(np.concatenate([part.T if entry.transposed else part for part in parts], axis=-1))
        node = out
        *folders, leaf = entry.ours.split("/")
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.stack(whole) if _stacked(entry) else whole[0]
    return {"params": out}


def to_theirs(kind: str, net: TokenTransformer, params: PyTree) -> Arrays:
    """The inverse of `to_ours`.

    Args:
        kind: "gpt2" or "llama".
        net: the network.
        params: its parameters.

    Returns:
        Arrays by Hugging Face's names; views of the parameters.
    """
    groups = net.groups or net.heads
    d, hidden = net.width // net.heads, round(net.mlp_ratio * net.width)
    widths = {
        "blocks/qkv/kernel": (net.heads * d, groups * d, groups * d),
        "blocks/mlp_in/kernel": (hidden, hidden),
    }
    theirs: Arrays = {}
    for entry in entries(kind, net):
        node: Any = params["params"]
        for folder in entry.ours.split("/"):
            node = node[folder]
        for block, whole in enumerate(node if _stacked(entry) else [node]):
            ends = np.cumsum(widths[entry.ours])[:-1] if len(entry.theirs) > 1 else np.array([], int)
            for name, part in zip(entry.theirs, np.split(np.asarray(whole), ends, axis=-1), strict=True):
                theirs[name.format(i=block)] = part.T if entry.transposed else part
    return theirs


@functools.lru_cache(maxsize=16)
def shapes(kind: str, net: TokenTransformer, values: int) -> Mapping[str, tuple[int, ...]]:
    """The shapes of all arrays by Hugging Face's names.

    Args:
        kind: "gpt2" or "llama".
        net: the network.
        values: number of tokens.

    Returns:
        name -> shape.
    """
    made = jax.eval_shape(
        functools.partial(net.init, out=values), jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), made)  # no memory
    return {name: array.shape for name, array in to_theirs(kind, net, empty).items()}
