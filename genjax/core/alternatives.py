"""Which dataclasses can stand where another stands in a tree: its neighbours, looked up and registered nowhere."""

import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType, UnionType
from typing import Any


def alternatives(old: Any, hint: Any) -> dict[str, Any]:
    """What can take a node's place: default instances of the classes beside its own.

    Args:
        old: the node there now.
        hint: the type hint of the field that holds it: a class, an abstract base class, a protocol, or
            a union of such (A | B).

    Returns:
        Class name -> instance, of the dataclasses that need no arguments and fit the hint. They come from the
        subpackage that defines the node's class: from its `__init__` if that exports classes, else from all its
        modules; from the class's module alone if that is no part of a subpackage.
    """
    if not isinstance(hint, type | UnionType):
        return {}
    classes = {name: cls for module in _neighbours(type(old)) for name, cls in _classes(module).items()}
    made = {name: cls() for name, cls in sorted(classes.items()) if needs_nothing(cls)}
    return {name: value for name, value in made.items() if isinstance(value, hint)}


def _neighbours(cls: type) -> list[ModuleType]:
    package = cls.__module__.rpartition(".")[0]
    if "." not in package:
        return [importlib.import_module(cls.__module__)]
    home = importlib.import_module(package)
    if _classes(home):
        return [home]
    return [
        importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(home.__path__)
    ]


def _classes(module: ModuleType) -> dict[str, type]:
    """The public classes that a module defines, or a package exports from its own modules."""
    own = module.__name__
    return {
        name: thing
        for name, thing in vars(module).items()
        if isinstance(thing, type)
        and not name.startswith("_")
        and f"{thing.__module__}.".startswith(f"{own}.")
    }


def needs_nothing(cls: type) -> bool:
    """Whether a class is a dataclass that can be made without arguments."""
    if not dataclasses.is_dataclass(cls) or inspect.isabstract(cls):
        return False
    missing = dataclasses.MISSING
    return all(
        field.default is not missing or field.default_factory is not missing
        for field in dataclasses.fields(cls)
        if field.init
    )
