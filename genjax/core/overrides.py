"""The command-line overrides that turn one typed tree into another: the inverse of `tree.override`.

    override(... override(old, *pairs[0]) ..., *pairs[-1]) = new,    pairs = overrides(old, new)

Differences that no override can express are left out: a class or function as a leaf, a mapping in place of a part.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from genjax.core import parts, tree


def overrides(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the overrides that turn one tree into the other.

    Args:
        old: a tree (see `tree`), e.g. an experiment as its config defines it.
        new: another tree of the same type.
        path: dotted path of both within the whole tree; "" for whole trees.

    Yields:
        (dotted path, value as written on a command line), in the order to apply them.
    """
    if tree.is_node(new):
        if type(old) is not type(new):
            yield path, type(new).__name__
            old = parts.blank(type(new))
        pairs = [(name, getattr(old, name), value) for name, value in tree.fields(new).items()]
    elif isinstance(new, Mapping):
        entries = old if isinstance(old, Mapping) else {}
        pairs = [(name, entries[name], value) for name, value in new.items() if name in entries]
    elif isinstance(new, tuple) and any(map(_has_children, new)):
        if all(map(tree.is_node, new)) and _types(old) != _types(new):
            yield path, ",".join(kind.__name__ for kind in _types(new))
            old = tuple(map(parts.blank, _types(new)))
        elements = old if isinstance(old, tuple) else ()
        pairs = [(str(index), *both) for index, both in enumerate(zip(elements, new, strict=False))]
    else:
        if old != new and not callable(new):
            yield path, format_value(new)
        return
    for name, before, after in pairs:
        yield from overrides(before, after, f"{path}.{name}".lstrip("."))


def _types(value: Any) -> tuple[type, ...]:
    """The classes of a tuple's elements; none for another value."""
    return tuple(map(type, value)) if isinstance(value, tuple) else ()


def _has_children(value: Any) -> bool:
    return tree.is_node(value) or isinstance(value, Mapping | tuple)


def format_value(value: Any) -> str:
    """Formats a leaf so that `tree.parse` reads it back: none, true, 0.001, 16,32."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(format_value, value)) if isinstance(value, tuple) else str(value)
