"""Typed trees of frozen dataclasses: override a leaf, write as json, read back, compare.

A tree's nodes are dataclasses (Linen modules are dataclasses too), tuples and mappings with string keys; its
leaves are None, bool, int, float, str, and classes or functions that a module defines. The tree needs no
schema: the dataclasses' type hints are the schema.
"""

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from genjax.core.alternatives import alternatives
from genjax.core.errors import UserError, nearest

LINEN_OWN = ("parent", "name")  # fields that Linen adds to every module; they are not hyperparameters
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


def is_node(value: Any) -> bool:
    """Whether `value` is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields(node: Any) -> dict[str, Any]:
    """The hyperparameters of a dataclass instance, by name."""
    own = LINEN_OWN if hasattr(node, "clone") else ()
    names = [field.name for field in dataclasses.fields(node) if field.init and field.name not in own]
    return {name: getattr(node, name) for name in names}


def hints(node: Any) -> dict[str, Any]:
    """The type hints of a dataclass instance's fields, by name."""
    return typing.get_type_hints(type(node))


def defaults(node: Any) -> dict[str, Any]:
    """The defaults of a dataclass instance's fields that have one, by name."""
    known = {field.name: field.default for field in dataclasses.fields(node)}
    return {name: value for name, value in known.items() if value is not dataclasses.MISSING}


def type_name(hint: Any) -> str:
    """Writes a type as a reader would: int, tuple[int, ...], Schedule."""
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace("typing.", "")
    )


def _parse_sequence(text: str, items: tuple[Any, ...]) -> tuple:
    words = [word.strip() for word in text.strip().strip("()[]").split(",") if word.strip()]
    if len(items) == 1 or items[1:] == (Ellipsis,):
        return tuple(parse(word, items[0]) for word in words)
    if len(items) != len(words):
        raise ValueError(text)
    return tuple(parse(word, item) for word, item in zip(words, items, strict=True))


def _parse_union(text: str, choices: tuple[Any, ...]) -> Any:
    if type(None) in choices and text.lower() == "none":
        return None
    for choice in (choice for choice in choices if choice is not type(None)):
        try:
            return parse(text, choice)
        except ValueError:
            continue
    raise ValueError(text)


def _parse_bool(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


def parse(text: str, hint: Any) -> Any:
    """Reads a command line's word as a value of the hinted type.

    Args:
        text: e.g. "3", "1e-4", "true", "none", "1,2,2".
        hint: a type hint of None, bool, int, float, str, Literal, and tuples and unions of these.

    Returns:
        The value.

    Raises:
        ValueError: the text is no such value.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, args)
    if origin is typing.Literal:
        return {str(choice): choice for choice in args}[text] if text in map(str, args) else _refuse(text)
    if origin in (tuple, Sequence):
        return _parse_sequence(text, args)
    if hint is bool:
        return _parse_bool(text)
    if hint in (int, float, str):
        return hint(text)
    if hint is Any:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            return text
    return _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def replace(node: Any, **changes: Any) -> Any:
    """A copy of a dataclass instance with some fields changed (for Linen modules: `clone`)."""
    return node.clone(**changes) if hasattr(node, "clone") else dataclasses.replace(node, **changes)


def override(tree: Any, path: str, text: str) -> Any:
    """Sets one leaf of a tree by its dotted path.

    Args:
        tree: a dataclass instance.
        path: e.g. "optimizer.learning_rate", "objective.net.multipliers", "data.transforms.0.low".
        text: the value as written on a command line; for a node the name of one of its `alternatives`.

    Returns:
        A copy of the tree with the leaf or node replaced; `tree` itself never changes.

    Raises:
        UserError: no such field (the nearest is named), or not a value of the field's type.
    """
    return _override(tree, path.split("."), text, "config", None)


def _override(node: Any, path: list[str], text: str, where: str, hint: Any) -> Any:
    if not path:
        return _leaf(node, text, where, hint)
    name, here = path[0], f"{where}.{path[0]}"
    if is_node(node):
        if name not in fields(node):
            raise UserError(f"{where} has no field '{name}': {nearest(name, fields(node))}")
        return replace(
            node, **{name: _override(getattr(node, name), path[1:], text, here, hints(node).get(name, Any))}
        )
    if isinstance(node, Mapping):
        if name not in node:
            raise UserError(f"{where} has no entry '{name}': {nearest(name, node)}")
        return {**node, name: _override(node[name], path[1:], text, here, Any)}
    if isinstance(node, tuple):
        if name not in map(str, range(len(node))):
            raise UserError(f"{where} has {len(node)} elements: '{name}' is none of 0 to {len(node) - 1}")
        index = int(name)
        return (*node[:index], _override(node[index], path[1:], text, here, Any), *node[index + 1 :])
    raise UserError(f"{where} is the value {node!r} and has no field '{name}'")


def _leaf(old: Any, text: str, where: str, hint: Any) -> Any:
    if is_node(old):
        others = alternatives(old, hint)
        if text in others:
            return others[text]
        inside = f"{where} is a {type(old).__name__}: set one of its fields ({', '.join(fields(old))})"
        if len(others) < 2:
            raise UserError(inside)
        raise UserError(f"{inside}, or give another in its place: {nearest(text, others)}")
    if hint is Any and old is not None:
        hint = type(old)
    try:
        return parse(text, hint)
    except ValueError:
        raise UserError(f"{where}={text!r} is not of type {type_name(hint)} (now {old!r})") from None


def tunable(default: Any) -> Any:
    """A dataclass field that training does not depend on: a resumed run may change it.

    Args:
        default: the field's default value.

    Returns:
        A dataclass field.
    """
    return dataclasses.field(default=default, metadata={"tunable": True})


def untunable(node: Any) -> Any:
    """A dataclass instance's fields without those made by `tunable`, by name."""
    free = {field.name for field in dataclasses.fields(node) if field.metadata.get("tunable")}
    return {name: value for name, value in fields(node).items() if name not in free}


def describe(value: Any, where: str = "config", fields: Callable[[Any], Mapping[str, Any]] = fields) -> Any:
    """Turns a tree into what json can hold.

    Args:
        value: a tree.
        where: its path, for the error's line.
        fields: which of a node's fields to write: `fields`, or `untunable` for what a run depends on.

    Returns:
        A dataclass becomes {"@type": "module:Class", field: ...}, a class or function {"@ref": ...}.

    Raises:
        UserError: a leaf is of a kind that json cannot give back.
    """
    if is_node(value):
        inner = {name: describe(child, f"{where}.{name}", fields) for name, child in fields(value).items()}
        return {"@type": _reference(type(value), where), **inner}
    if isinstance(value, Mapping):
        return {str(name): describe(child, f"{where}.{name}", fields) for name, child in value.items()}
    if isinstance(value, tuple | list):
        return [describe(child, f"{where}.{index}", fields) for index, child in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"@float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or callable(value):
        return {"@ref": _reference(value, where)}
    raise UserError(
        f"{where}={value!r} cannot be written to json: use a number, a string, or a dataclass of these"
    )


def _reference(thing: Any, where: str) -> str:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "<lambda>")
    if module is None or "<" in name:
        raise UserError(
            f"{where}: give {thing!r} a name at the top of a module, so that it can be found again"
        )
    return f"{module}:{name}"


def restore(value: Any, find: Callable[[str], Any]) -> Any:
    """Turns `describe`'s output back into the tree.

    Args:
        value: what json held.
        find: "module:name" -> the class or function.

    Returns:
        The tree; sequences come back as tuples.

    Raises:
        UserError: a class has lost or renamed a field.
    """
    if isinstance(value, list):
        return tuple(restore(child, find) for child in value)
    if not isinstance(value, dict):
        return value
    if "@float" in value:
        return float(value["@float"])
    if "@ref" in value:
        return find(value["@ref"])
    children = {name: restore(child, find) for name, child in value.items() if name != "@type"}
    if "@type" not in value:
        return children
    cls = find(value["@type"])
    known = {field.name for field in dataclasses.fields(cls)}
    for name in children:
        if name not in known:
            raise UserError(f"{value['@type']} has no field '{name}' any more: {nearest(name, known)}")
    return cls(**children)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walks `describe`'s output: (dotted path, value) of every leaf and of every node's "@type"."""
    children: Mapping[str, Any]
    if isinstance(value, dict) and not {"@ref", "@float"} & set(value):
        children = value
    elif isinstance(value, list) and value:
        children = {str(index): child for index, child in enumerate(value)}
    else:
        yield path, value
        return
    for name, child in children.items():
        here = path if name == "@type" else f"{path}.{name}".lstrip(".")
        yield from leaves(child, here)


def differences(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Compares two outputs of `describe`: (path, old, new) wherever they differ, None for "not there"."""
    before, after = dict(leaves(old)), dict(leaves(new))
    paths = [*before, *(path for path in after if path not in before)]
    return [
        (path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]
