"""Parts by name: finds the dataclasses that fit a field of a typed tree, by the type of the field.

A part is a public dataclass of genjax or of the config's own modules. Those of genjax are found by scanning the sources
for class statements; a module is imported only when one of its classes is requested. There is no registry.
"""

import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parents[1]
LINEN_OWN = ("parent", "name")  # fields that Linen adds to every module; not hyperparameters
LEAVES = (int, float, str, bool, bytes, type(None), object, type)


class Unset:
    """Placeholder in a required field until a flag sets it."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


@functools.lru_cache(maxsize=1)
def index() -> Mapping[str, tuple[str, ...]]:
    """Public class name -> modules of genjax that define it; scanned from the sources without imports."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "experiments"):
            continue  # the programs and configs, where they are installed
        module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        for name in re.findall(r"^class ([A-Z]\w*)", path.read_text(), re.MULTILINE):
            found[name] = (*found.get(name, ()), module)
    return found


def part_types(hint: Any) -> tuple[type, ...]:
    """The classes, abstract classes and protocols among a hint's alternatives; none for a hint of plain values."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(part for choice in typing.get_args(hint) for part in part_types(choice))
    plain = not isinstance(hint, type) or typing.get_origin(hint) is not None or hint in (*LEAVES, Any)
    return () if plain or issubclass(hint, (tuple, list, dict)) else (hint,)


@functools.cache
def _members(protocol: type) -> dict[str, Any]:
    """What a class must have to satisfy a protocol: member name -> the protocol's function, property or None."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    known = {name: None for base in bases for name in inspect.get_annotations(base)}
    known |= {name: member for base in reversed(bases) for name, member in vars(base).items()}
    return {name: member for name, member in known.items() if name == "__call__" or not name.startswith("_")}


def _takes(method: Any, protocols: Any) -> bool:
    """Whether a class's method can be called as the protocol's: by position, and in genjax also by name."""
    if not inspect.isfunction(method):
        return False
    parameters = inspect.signature(method).parameters.values()
    signature = inspect.Signature([p for p in parameters if p.kind is not p.KEYWORD_ONLY])
    names = [p.name for p in inspect.signature(protocols).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    try:
        signature.bind(*names)
        if method.__module__.partition(".")[0] == PACKAGE.name:
            signature.bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True


@functools.cache
def _satisfies(cls: type, protocol: type) -> bool:
    own = {field.name for field in dataclasses.fields(cls)} | set(dir(cls))
    methods = dict(inspect.getmembers(cls, inspect.isfunction))
    return all(
        name in own and (not inspect.isfunction(member) or _takes(methods.get(name), member))
        for name, member in _members(protocol).items()
    )


def fits(cls: type, hint: Any) -> bool:
    """Whether instances of a dataclass satisfy a hint: by inheritance, or by the members of a protocol.

    A class has a protocol's method if its own takes the same arguments.
    """
    if not dataclasses.is_dataclass(cls) or inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        return False
    return any(
        _satisfies(cls, part) if getattr(part, "_is_protocol", False) else issubclass(cls, part)
        for part in part_types(hint)
    )


def blank(cls: type) -> Any:
    """An instance with its defaults, and `UNSET` in fields without one; see `tree.complete`.

    Args:
        cls: a dataclass, or a Linen module.

    Returns:
        The instance; if a field is unset, its `__post_init__` has not run.
    """
    values: dict[str, Any] = {}
    for field in own_fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        else:
            values[field.name] = UNSET if field.default is dataclasses.MISSING else field.default
    return _make(cls, values)


def own_fields(cls: Any) -> list[dataclasses.Field]:
    """The fields of a dataclass, or of an instance of one, that are its hyperparameters."""
    hidden = LINEN_OWN if hasattr(cls, "clone") else ()
    return [field for field in dataclasses.fields(cls) if field.init and field.name not in hidden]


def unset(value: Any) -> bool:
    """Whether a required field of a part, or of a part within it, is unset."""
    if isinstance(value, Mapping):
        return any(map(unset, value.values()))
    if isinstance(value, tuple):
        return any(map(unset, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(unset(getattr(value, field.name)) for field in own_fields(value))
    return value is UNSET


def _make(cls: type, values: Mapping[str, Any]) -> Any:
    """An instance; without its `__init__` and `__post_init__` while something in it is unset."""
    if not unset(values):
        return cls(**values)
    node: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(node, name, value)
    return node


def replace(node: Any, **changes: Any) -> Any:
    """A copy of a dataclass instance, or of a Linen module, with some fields changed."""
    return _make(type(node), {field.name: getattr(node, field.name) for field in own_fields(node)} | changes)


def candidates(name: str, near: Sequence[str], own: Sequence[ModuleType]) -> Iterator[type]:
    """Classes of a given name: of the config first, then of genjax, from the nearest module first.

    Args:
        name: name of the class.
        near: dotted module names; modules that share more leading parts with one of them come earlier.
        own: modules of the config.

    Yields:
        The classes, imported one at a time.
    """
    for module in own:
        if isinstance(found := vars(module).get(name), type):
            yield found

    def shared(module: str) -> int:
        pairs = (zip(module.split("."), other.split("."), strict=False) for other in near)
        return max(
            sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], pair)) for pair in pairs
        )

    for module_name in sorted(index().get(name, ()), key=shared, reverse=True):
        yield getattr(importlib.import_module(module_name), name)


def choose(name: str, old: Any, hint: Any, own: Sequence[ModuleType] = ()) -> type | None:
    """The dataclass of a given name that fits a field.

    Args:
        name: name of the class, as written on a command line.
        old: current value of the field; among classes of the same name the one nearest to its module is chosen.
        hint: type hint of the field.
        own: modules of the config, whose classes come first.

    Returns:
        The class; None if no class of that name fits.
    """
    near = [type(old).__module__, *(part.__module__ for part in part_types(hint))]
    return next((cls for cls in candidates(name, near, own) if fits(cls, hint)), None)


def choices(old: Any, hint: Any, own: Sequence[ModuleType] = ()) -> list[str]:
    """Names of the classes that fit a field, for messages; imports the packages of `old` and of the hint."""
    rooms = {".".join(part.__module__.split(".")[:2]) for part in (type(old), *part_types(hint))}
    names = {name for module in own for name, thing in vars(module).items() if isinstance(thing, type)}
    names |= {name for name, modules in index().items() if any(_room(m) in rooms for m in modules)}
    return sorted(name for name in names if choose(name, old, hint, own))


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])
