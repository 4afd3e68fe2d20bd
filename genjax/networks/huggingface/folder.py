"""Reads and writes folders in Hugging Face's layout.

The weights are those of model.safetensors or, without it, of the files that model.safetensors.index.json lists: other
files (adapters, copies, other formats) are not read. Every array of the network must be there, and no other.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genjax.core.errors import UserError, nearest
from genjax.core.extras import safetensors
from genjax.core.files import replacing, write_all, writing
from genjax.core.json_files import read_object, shown
from genjax.core.types import PyTree
from genjax.networks.huggingface import arrays
from genjax.networks.huggingface.config import (
    ARCHITECTURES,
    BOS,
    CONFIG,
    EOS,
    GENERATION,
    Description,
    config_of,
    describe,
    kind_of,
)
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.networks.weight_files import WeightFile, open_weights

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
(HEAD,) = arrays.HEAD.theirs
NOT_KEPT = ("torch_dtype", "_name_or_path", "rope_scaling")  # said otherwise in what is written
Stored = Mapping[str, tuple[WeightFile, str]]  # name as in `arrays` -> file, and the name in it


def read(folder: Path) -> tuple[TokenTransformer, PyTree, dict[str, Any]]:
    """Reads a model from a folder.

    Args:
        folder: holds config.json and model.safetensors, or the files of model.safetensors.index.json.

    Returns:
        (network, its float32 parameters, the contents of config.json).

    Raises:
        UserError: a file is missing or damaged, the architecture is another, or the arrays are not those of the
            network: missing, unknown, of another shape, quantised, or not finite.
    """
    model = describe(folder)
    with contextlib.ExitStack() as stack:
        stored = _named(model.kind, _open(folder, stack))
        _check(folder, model, stored)
        _check_tied(model, stored)
        params = arrays.to_ours(model.kind, model.net, lambda name: stored[name][0].weights(stored[name][1]))
    return model.net, params, dict(model.config)


def _open(folder: Path, stack: contextlib.ExitStack) -> dict[str, WeightFile]:
    """The file of each array, by its name.

    Raises:
        UserError: there are no weights, or the index and the files disagree.
    """
    if (folder / WEIGHTS).exists():
        file = stack.enter_context(open_weights(folder / WEIGHTS))
        return dict.fromkeys(file.names, file)
    if not (folder / INDEX).exists():
        others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:4])
        has = f": it has {others}" if others else ""
        raise UserError(f"{folder} has no {WEIGHTS} and no {INDEX} (pickled weights are not read){has}")
    listed = _listed(folder / INDEX)
    files = {
        name: stack.enter_context(open_weights(folder / name)) for name in dict.fromkeys(listed.values())
    }
    for name, where in listed.items():
        if name not in files[where].names:
            raise UserError(f"{folder / INDEX}: '{name}' is not in {where}")
    return {name: files[where] for name, where in listed.items()}


def _listed(index: Path) -> dict[str, str]:
    """Name of an array -> name of a file, from an index.

    Raises:
        UserError: it is damaged, or names a file outside the folder.
    """
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UserError(f"{index} lacks 'weight_map', the file of each array")
    for name, file in listed.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise UserError(f"{index}: '{name}' is in {shown(file)}, which is no .safetensors of this folder")
    return listed


def _named(kind: str, files: Mapping[str, WeightFile]) -> Stored:
    """Gives arrays the prefix that models without an output matrix lack, and leaves out what is no parameter."""
    prefix = arrays.PREFIXES[kind]
    bare = not any(name.startswith(prefix) for name in files)
    named = {
        f"{prefix}{name}" if bare and name != HEAD else name: (file, name) for name, file in files.items()
    }
    return {name: where for name, where in named.items() if not re.fullmatch(arrays.BUFFERS[kind], name)}


def _check(folder: Path, model: Description, stored: Stored) -> None:
    """Checks names and shapes.

    Raises:
        UserError: they differ from those of the network; names an array.
    """
    depth = 1 + max(
        (int(number) for name in stored for number in re.findall(r"\.(?:h|layers)\.(\d{1,9})\.", name)),
        default=-1,
    )
    if depth != model.net.depth:
        entry = ARCHITECTURES[model.kind].depth
        raise UserError(f"{folder / CONFIG} has {entry}={model.net.depth}, the weights have {depth} blocks")
    expected = arrays.shapes(model.kind, model.net, model.values)
    also = {HEAD} if model.net.tied else set()
    if missing := [name for name in expected if name not in stored]:
        raise UserError(f"the weights in {folder} lack {_some(missing)}")
    if unknown := [name for name in stored if name not in expected and name not in also]:
        hint = nearest(unknown[0], expected).partition("(")[0]
        raise UserError(
            f"the weights in {folder} have {_some(unknown)}, which {model.kind} has not {hint}".rstrip()
        )
    for name, shape in expected.items():
        file, own = stored[name]
        if file.shape(own) != shape:
            raise UserError(
                f"{file.path}: '{own}' has the shape {file.shape(own)}, {CONFIG} asks for {shape}"
            )


def _check_tied(model: Description, stored: Stored) -> None:
    """Checks that an output matrix is the embedding of tokens, if they are tied.

    Raises:
        UserError: it is another one.
    """
    if not model.net.tied or HEAD not in stored:
        return
    embedding = arrays.EMBEDDING[model.kind]
    head, tokens = (file.weights(name) for file, name in (stored[HEAD], stored[embedding]))
    if not np.array_equal(head, tokens):
        raise UserError(
            f"{stored[HEAD][0].path}: '{HEAD}' is not '{embedding}', but {CONFIG} ties them: set "
            "tie_word_embeddings"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more arrays" if len(names) > 1 else ""
    return f"'{names[0]}'{more}"


def write(
    folder: Path,
    net: TokenTransformer,
    params: PyTree,
    more: Mapping[str, Any] | None = None,
    *,
    origin: Path | None = None,
    length: int | None = None,
) -> str:
    """Writes a model to a folder, as `read` reads it.

    Args:
        folder: created if missing.
        net: network of a supported architecture.
        params: its parameters.
        more: additional entries of config.json, such as those of `ends`, which generation_config.json has too.
        origin: a folder with the model in an earlier state: entries of its config.json and generation_config.json that
            say other things than the network and `more` are kept.
        length: maximum number of tokens of a text, if neither the network nor the origin knows it.

    Returns:
        The architecture.

    Raises:
        UserError: no architecture has this form, the origin is damaged, or the folder cannot be written.
    """
    kind, (_, library) = kind_of(net), safetensors()
    more, known = more or {}, {} if length is None else {ARCHITECTURES[kind].places: length}
    config = config_of(net, params, {**known, **_entries(origin, CONFIG), **more})
    texts = {folder / CONFIG: config}
    if (generation := _entries(origin, GENERATION)) or (folder / GENERATION).exists():
        texts[folder / GENERATION] = {
            **generation,
            **{name: more[name] for name in (BOS, EOS) if name in more},
        }
    theirs = {
        name: np.ascontiguousarray(array) for name, array in arrays.to_theirs(kind, net, params).items()
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as path:
            library.save_file(theirs, path, {"format": "pt"})
        write_all({path: json.dumps(body, indent=1) + "\n" for path, body in texts.items()})
    return kind


def _entries(folder: Path | None, name: str) -> dict[str, Any]:
    """The entries of a JSON file of a folder that are kept; none if there is no such file."""
    if folder is None or not (folder / name).exists():
        return {}
    return {key: value for key, value in read_object(folder / name).items() if key not in NOT_KEPT}
