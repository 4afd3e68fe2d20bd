"""Typed trees of frozen dataclasses: override a leaf, convert to and from JSON, compare.

A tree's nodes are dataclasses (Linen modules are dataclasses too), tuples and mappings with string keys; its
leaves are None, bool, int, float, str, and module-level classes or functions. The type hints of the dataclasses
are the schema.
"""

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from genjax.core import parts
from genjax.core.errors import UserError, nearest
from genjax.core.parts import UNSET, replace

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


def is_node(value: Any) -> bool:
    """Whether `value` is an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields(node: Any) -> dict[str, Any]:
    """The hyperparameters of a dataclass instance, by name."""
    return {field.name: getattr(node, field.name) for field in parts.own_fields(node)}


def hints(node: Any) -> dict[str, Any]:
    """The type hints of a dataclass instance's fields, by name."""
    return typing.get_type_hints(type(node))


def defaults(node: Any) -> dict[str, Any]:
    """The defaults of a dataclass instance's fields that have one, by name."""
    known = {field.name: field.default for field in dataclasses.fields(node)}
    return {name: value for name, value in known.items() if value is not dataclasses.MISSING}


def type_name(hint: Any) -> str:
    """Formats a type for messages: int, tuple[int, ...], Schedule."""
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
    """Parses a command-line value of the hinted type.

    Args:
        text: e.g. "3", "1e-4", "true", "none", "1,2,2".
        hint: type hint of None, bool, int, float, str, Literal, and tuples and unions of these.

    Returns:
        The value.

    Raises:
        ValueError: the text is not a value of that type.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, args)
    if origin is typing.Literal:
        return {str(choice): choice for choice in args}[text] if text in map(str, args) else _invalid(text)
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
    return _invalid(text)


def _invalid(text: str) -> Any:
    raise ValueError(text)


def override(
    tree: Any, path: str, text: str, own: Sequence[ModuleType] = (), *, where: str = "config"
) -> Any:
    """Sets one leaf of a tree by its dotted path, or replaces a part by another one.

    Args:
        tree: a dataclass instance.
        path: e.g. "optimizer.learning_rate", "objective.net.multipliers", "data.transforms.0.low".
        text: the value as written on a command line; for a part, the name of its class; for a tuple of parts,
            comma-separated names.
        own: modules of the config, whose classes can be named too.
        where: name of the tree in error messages.

    Returns:
        A copy of the tree with the leaf or part replaced. Required fields of a part chosen by name hold
        `parts.UNSET`; see `complete`.

    Raises:
        UserError: unknown field (the message suggests the nearest), or not a value of the field's type.
    """
    return _override(tree, path.split("."), text, where, Any, own)


def _override(node: Any, path: list[str], text: str, where: str, hint: Any, own: Sequence[ModuleType]) -> Any:
    if not path:
        return _leaf(node, text, where, hint, own)
    name, here = path[0], f"{where}.{path[0]}"
    if is_node(node):
        if name not in fields(node):
            raise UserError(f"{where} has no field '{name}': {nearest(name, fields(node))}")
        inner = hints(node).get(name, Any)
        return replace(node, **{name: _override(getattr(node, name), path[1:], text, here, inner, own)})
    if isinstance(node, Mapping):
        if name not in node:
            raise UserError(f"{where} has no entry '{name}': {nearest(name, node)}")
        return {**node, name: _override(node[name], path[1:], text, here, _inside(hint, Mapping), own)}
    if isinstance(node, tuple):
        if name not in map(str, range(len(node))):
            raise UserError(
                f"{where} has {len(node)} elements: '{name}' is not an index from 0 to {len(node) - 1}"
            )
        index, inner = int(name), _inside(hint, tuple)
        changed = _override(node[index], path[1:], text, here, inner, own)
        return (*node[:index], changed, *node[index + 1 :])
    raise UserError(f"{where} is the value {node!r} and has no field '{name}'")


def _inside(hint: Any, kind: type) -> Any:
    """The hint of the values of a mapping, or of the elements of a tuple of any length; else Any."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = (_inside(choice, kind) for choice in args)
        return next((inner for inner in found if inner is not Any), Any)
    if kind is Mapping and origin in (Mapping, dict):
        return args[1]
    return args[0] if kind is tuple and origin is tuple and args[1:] == (Ellipsis,) else Any


def _leaf(old: Any, text: str, where: str, hint: Any, own: Sequence[ModuleType]) -> Any:
    if hint is Any and old is not None:
        hint = type(old)
    if parts.part_types(hint):
        if (chosen := parts.choose(text, old, hint, own)) is not None:
            return parts.blank(chosen)
        if is_node(old) and not (text.lower() == "none" and type(None) in typing.get_args(hint)):
            known = parts.choices(old, hint, own)
            inside = f"{where} is a {type(old).__name__}: set one of its fields ({', '.join(fields(old))})"
            other = f", or replace it: {nearest(text, known)}" if len(known) > 1 else ""
            raise UserError(inside + other)
    element = _inside(hint, tuple)
    if parts.part_types(element):
        names = [name.strip() for name in text.split(",") if name.strip()]
        return tuple(_leaf(None, name, f"{where}.{i}", element, own) for i, name in enumerate(names))
    try:
        return parse(text, hint)
    except ValueError:
        known = parts.choices(old, hint, own)
        other = f"; its alternatives: {nearest(text, known)}" if known else ""
        raise UserError(f"{where}={text!r} is not of type {type_name(hint)} (now {old!r}){other}") from None


def complete(node: Any, where: str = "config") -> Any:
    """Checks that no required field is unset, and runs the deferred `__post_init__` checks of parts made by name.

    Args:
        node: a tree after its overrides.
        where: its path, for error messages.

    Returns:
        The tree, equal to `node`.

    Raises:
        UserError: a required field is unset.
    """
    if node is UNSET:
        raise UserError(f"{where} has no default: set {where}=VALUE")
    if is_node(node):
        return replace(
            node, **{name: complete(value, f"{where}.{name}") for name, value in fields(node).items()}
        )
    if isinstance(node, Mapping):
        return {name: complete(value, f"{where}.{name}") for name, value in node.items()}
    if isinstance(node, tuple) and type(node) is tuple:
        return tuple(complete(value, f"{where}.{index}") for index, value in enumerate(node))
    return node


def tunable(default: Any) -> Any:
    """A dataclass field that does not affect the training result: a resumed run may change it.

    Args:
        default: the field's default value.

    Returns:
        A dataclass field.
    """
    return dataclasses.field(default=default, metadata={"tunable": True})


def untunable(node: Any) -> Any:
    """The fields of a dataclass instance that are not `tunable`, by name."""
    tunables = {field.name for field in dataclasses.fields(node) if field.metadata.get("tunable")}
    return {name: value for name, value in fields(node).items() if name not in tunables}


def describe(value: Any, where: str = "config", fields: Callable[[Any], Mapping[str, Any]] = fields) -> Any:
    """Converts a tree to JSON types.

    Args:
        value: a tree.
        where: its path, for error messages.
        fields: selects the fields of a node: `fields`, or `untunable` for those that affect the training result.

    Returns:
        A dataclass becomes {"@type": "module:Class", field: ...}, a class or function {"@ref": ...}.

    Raises:
        UserError: a leaf has a type that JSON cannot represent.
    """
    if is_node(value):
        inner = {name: describe(child, f"{where}.{name}", fields) for name, child in fields(value).items()}
        return {"@type": reference(type(value), where), **inner}
    if isinstance(value, Mapping):
        return {str(name): describe(child, f"{where}.{name}", fields) for name, child in value.items()}
    if isinstance(value, tuple | list):
        return [describe(child, f"{where}.{index}", fields) for index, child in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"@float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or callable(value):
        return {"@ref": reference(value, where)}
    raise UserError(
        f"{where}={value!r} cannot be written to JSON: use a number, a string, or a dataclass of these"
    )


def reference(thing: Any, where: str) -> str:
    """The "module:name" of a class or function.

    Raises:
        UserError: it has no name at the top level of a module.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "<lambda>")
    if module is None or "<" in name:
        raise UserError(
            f"{where}: define {thing!r} by name at the top level of a module, so that it can be imported"
        )
    return f"{module}:{name}"


def restore(value: Any, find: Callable[[str], Any]) -> Any:
    """Converts the output of `describe` back to the tree.

    Args:
        value: parsed JSON.
        find: "module:name" -> the class or function.

    Returns:
        The tree; sequences come back as tuples.

    Raises:
        UserError: a class is no dataclass, or no longer has a field that the JSON names.
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
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise UserError(f"{value['@type']} is no dataclass")
    known = {field.name for field in dataclasses.fields(cls)}
    for name in children:
        if name not in known:
            raise UserError(f"{value['@type']} no longer has the field '{name}': {nearest(name, known)}")
    return cls(**children)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, value) of every leaf and every node's "@type" in the output of `describe`."""
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
    """Compares two outputs of `describe`: (path, old, new) where they differ; None where one lacks the path."""
    before, after = dict(leaves(old)), dict(leaves(new))
    paths = [*before, *(path for path in after if path not in before)]
    return [
        (path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]
