"""The words of a command line that lead from one typed tree to another: the inverse of `tree.override`.

    override(... override(old, *words[0]) ..., *words[-1]) = new,    words = overrides(old, new)

wherever words can say it at all. They cannot name a class or function that a field holds, nor make a tuple of nodes
longer; such differences are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from genjax.core import tree
from genjax.core.alternatives import needs_nothing


def overrides(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What to set so that one tree becomes the other.

    Args:
        old: a tree (see `tree`), such as an experiment as its config has it.
        new: another one of the same kind.
        path: where both stand; "" for whole trees.

    Yields:
        (dotted path, value as written on a command line), in the order in which they are to be applied.
    """
    if tree.is_node(new):
        if type(old) is not type(new):
            if not needs_nothing(type(new)):
                return
            yield path, type(new).__name__
            old = type(new)()
        pairs = [(name, getattr(old, name), value) for name, value in tree.fields(new).items()]
    elif isinstance(new, Mapping):
        pairs = [(name, old[name], value) for name, value in new.items() if name in old]
    elif isinstance(new, tuple) and any(map(_holds_more, new)):
        pairs = [(str(index), *both) for index, both in enumerate(zip(old, new, strict=False))]
    else:
        if old != new and not callable(new):
            yield path, written(new)
        return
    for name, before, after in pairs:
        yield from overrides(before, after, f"{path}.{name}".lstrip("."))


def _holds_more(value: Any) -> bool:
    return tree.is_node(value) or isinstance(value, Mapping | tuple)


def written(value: Any) -> str:
    """A leaf as `tree.parse` reads it: none, true, 0.001, 16,32."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(written, value)) if isinstance(value, tuple) else str(value)
