"""What config.json and generation_config.json say of a language model.

An entry that is null counts as missing: it has the default of transformers, or is refused if it is a size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError
from genjax.core.json_files import read_object, shown
from genjax.core.types import PyTree
from genjax.networks.huggingface.entries import Entries
from genjax.networks.transformers.token_transformer import TokenTransformer, gpt2, llama

CONFIG, GENERATION = "config.json", "generation_config.json"
BOS, EOS = "bos_token_id", "eos_token_id"
# Fields of the network that change no weights.
FREE = frozenset({"dropout", "init_std", "unroll", "remat", "dtype", "parent", "name"})
SIZES = frozenset({"depth", "width", "heads", "groups", "mlp_ratio", "epsilon", "rotary_base", "places"})


def _from_gpt2(config: Entries) -> TokenTransformer:
    config.only("activation_function", "gelu_new", "gelu_pytorch_tanh")  # two names of one function
    for name, only in {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    }.items():
        config.only(name, only)
    width = config.size("n_embd")
    return gpt2(
        config.size("n_layer"),
        width,
        _divisor(config, "n_head", width, "n_embd"),
        mlp_ratio=config.size("n_inner", 4 * width) / width,
        places=config.size("n_positions"),
        epsilon=config.positive("layer_norm_epsilon", 1e-5),
    )


def _from_llama(config: Entries) -> TokenTransformer:
    config.only("hidden_act", "silu", "swish")  # two names of one function
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    width = config.size("hidden_size")
    heads = _divisor(config, "num_attention_heads", width, "hidden_size")
    config.only("head_dim", width // heads)
    if width // heads % 2:
        raise config.refuse("num_attention_heads", f"a head of {width // heads} features cannot be rotated")
    return llama(
        config.size("num_hidden_layers"),
        width,
        heads,
        _divisor(config, "num_key_value_heads", heads, "num_attention_heads", heads),
        mlp_ratio=config.size("intermediate_size") / width,
        epsilon=config.positive("rms_norm_eps", 1e-6),
        rotary_base=_rotary_base(config),
        tied=config.flag("tie_word_embeddings", False),
    )


def _divisor(config: Entries, name: str, whole: int, of: str, default: int | None = None) -> int:
    """A size that divides another one."""
    found = config.size(name, default)
    if whole % found:
        raise config.refuse(name, f"it must divide {of}={whole}")
    return found


def _rotary_base(config: Entries) -> float:
    """The base of unscaled rotary positions, which versions of transformers store in three places."""
    base = config.positive("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        given = config.inner(name)
        for key in ("type", "rope_type"):
            given.only(key, "default")
        given.only("partial_rotary_factor", 1.0)
        base = given.positive("rope_theta", base)
    config.only("partial_rotary_factor", 1.0)
    return base


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
        "rope_parameters": {"rope_type": "default", "rope_theta": net.rotary_base},
        "hidden_act": "silu",
        "tie_word_embeddings": net.tied,
        "vocab_size": len(params["tokens"]),
    }


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture: conversions between its config and our network.

    Attributes:
        models: classes of transformers that hold a language model of it, with or without the output matrix.
        places: entry with the maximum length.
        length: its default.
        depth: entry with the number of blocks.
        ends: transformers' defaults of the tokens that start and end a text.
        network: makes the network.
        config: makes the config of a network and its parameters.
    """

    models: tuple[str, ...]
    places: str
    length: int
    depth: str
    ends: tuple[int, int]
    network: Callable[[Entries], TokenTransformer]
    config: Callable[[TokenTransformer, Mapping[str, Any]], dict[str, Any]]


ARCHITECTURES = {
    "gpt2": Architecture(
        ("GPT2LMHeadModel", "GPT2Model"),
        "n_positions",
        1024,
        "n_layer",
        (50_256, 50_256),
        _from_gpt2,
        _to_gpt2,
    ),
    "llama": Architecture(
        ("LlamaForCausalLM", "LlamaModel"),
        "max_position_embeddings",
        2048,
        "num_hidden_layers",
        (1, 2),
        _from_llama,
        _to_llama,
    ),
}


@dataclasses.dataclass(frozen=True)
class Description:
    """What a folder says of its model, without the weights.

    Attributes:
        kind: "gpt2" or "llama".
        net: the network.
        values: number of tokens that it knows; the tokenizer may have fewer.
        length: maximum number of tokens of a text.
        bos: token that starts a text, or None.
        eos: tokens that end one.
        config: the contents of config.json.
    """

    kind: str
    net: TokenTransformer
    values: int
    length: int
    bos: int | None
    eos: tuple[int, ...]
    config: Mapping[str, Any]


def describe(folder: Path) -> Description:
    """Reads the config.json of a folder, and its generation_config.json if there is one.

    Raises:
        UserError: one is missing or damaged, or the architecture is another; names the file and the entry.
    """
    path = folder / CONFIG
    config = Entries(path, read_object(path))
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(f"{path} is of a {shown(kind)}; supported are {', '.join(ARCHITECTURES)}")
    known = ARCHITECTURES[kind]
    models = config.get("architectures")
    named = isinstance(models, list) and (not models or any(each in known.models for each in models))
    if models is not None and not named:
        raise config.refuse("architectures", f"supported are {' and '.join(known.models)}")
    if config.get("quantization_config") is not None:
        raise config.refuse("quantization_config", "quantised weights are not read: give the original ones")
    values = config.size("vocab_size")
    bos, eos = _ends(folder, config, values, known.ends)
    return Description(
        kind, known.network(config), values, config.size(known.places, known.length), bos, eos, config.values
    )


def _ends(
    folder: Path, config: Entries, values: int, default: tuple[int, int]
) -> tuple[int | None, tuple[int, ...]]:
    """The tokens that start and end a text: generation_config.json has precedence, as a whole, over config.json."""
    path = folder / GENERATION
    if path.exists():
        source = Entries(path, read_object(path))
    else:
        own = {name: token for name, token in zip((BOS, EOS), default, strict=True) if token < values}
        source = Entries(config.path, {**own, **config.values})
    bos = source.tokens(BOS, values)
    if len(bos) > 1:
        raise source.refuse(BOS, "it must be one token")
    return bos[0] if bos else None, source.tokens(EOS, values)


def ends(bos: int | None, eos: tuple[int, ...]) -> dict[str, Any]:
    """The entries of the tokens that start and end a text."""
    return {BOS: bos, EOS: eos[0] if len(eos) == 1 else list(eos) or None}


def kind_of(net: TokenTransformer) -> str:
    """The architecture of a network.

    Raises:
        UserError: no known architecture has its form.
    """
    form: dict[str, Callable[..., TokenTransformer]] = {"gpt2": gpt2, "llama": llama}
    differing = {}
    for name, make in form.items():
        like = make()
        free_here = FREE | SIZES | ({"tied"} if name == "llama" else set())
        names = [field.name for field in dataclasses.fields(net) if field.name not in free_here]
        differing[name] = [n for n in names if getattr(net, n) != getattr(like, n)]
        if not differing[name]:
            return name
    reasons = "; ".join(f"not {name}: {', '.join(names)} differ" for name, names in differing.items())
    raise UserError(f"no supported architecture has the form of this network ({reasons})")


def config_of(net: TokenTransformer, params: PyTree, more: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a network.

    Args:
        net: of a supported architecture.
        params: its parameters.
        more: further entries; those of the network have precedence.

    Returns:
        The contents.

    Raises:
        UserError: no architecture has this form.
    """
    kind = kind_of(net)
    own = {"model_type": kind, **ARCHITECTURES[kind].config(net, params["params"]), "dtype": "float32"}
    return {**more, **own}
