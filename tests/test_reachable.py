"""Everything in a room's table of contents is part of a shipped config, or can be chosen by flags."""

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from typing import Any

from genjax.core import lazy, parts, tree
from genjax.core.objective import Objective
from genjax.core.parts import UNSET
from genjax.training import experiment

ROOMS = (
    "objectives",
    "samplers",
    "distributions",
    "conditioning",
    "training",
    "networks",
    "data",
    "diffusion",
)
ROOMS += ("adversarial",)
# Public classes that are no part of an experiment, each with the reason.
EXEMPT = {
    "Batches": "made by the training loop from `data` and `seed`",
    "Table": "what a source loads",
    "Windows": "what a source loads",
    "Vocabulary": "what a source of text computes",
    "Quantized": "what a quantizer returns",
    "SelfConditioned": "made by `Diffusion` where `objective.self_conditioning` > 0",
}
# Required fields that no flag can set: the part is for config files.
IN_FILES = {"FromNNX": "holds a function"}


@functools.cache
def public() -> list[type]:
    """The dataclasses in the tables of contents of the rooms of parts."""
    found = set()
    for room in ROOMS:
        for init in (parts.PACKAGE / room).rglob("__init__.py"):
            for module, name in lazy.contents(str(init)).values():
                thing = getattr(importlib.import_module(module), name) if name else None
                if dataclasses.is_dataclass(thing) and not getattr(thing, "_is_protocol", False):
                    found.add(thing)
    return sorted(found, key=lambda cls: (cls.__module__, cls.__name__))


def nodes(value: Any, hint: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, value, hint) of everything in a tree."""
    yield path, value, hint
    if tree.is_node(value):
        inner = [(name, child, tree.hints(value).get(name)) for name, child in tree.fields(value).items()]
    elif isinstance(value, tuple):
        inner = [(str(i), child, tree._inside(hint, tuple)) for i, child in enumerate(value)]
    elif isinstance(value, dict):
        inner = [(name, child, None) for name, child in value.items()]
    else:
        return
    for name, child, of in inner:
        yield from nodes(child, of, f"{path}.{name}".lstrip("."))


load = functools.cache(experiment.load)


@functools.cache
def shipped() -> tuple[set[type], dict[Any, tuple[str, str]]]:
    """The classes within shipped configs; type hint -> (config, path) of a field that has it."""
    used, fields = set(), {}
    for name in experiment.shipped():
        for path, value, hint in nodes(load(name), None):
            if tree.is_node(value):
                used.add(type(value))
            if parts.part_types(hint) or parts.part_types(tree._inside(hint, tuple)):
                fields.setdefault(str(hint), (hint, name, path))
    return used, fields


@functools.cache
def choosing(cls: type) -> tuple[str, str] | None:
    """(config, path) of a field that the class's name sets to an instance of it."""
    for hint, name, path in shipped()[1].values():
        for part in (hint, tree._inside(hint, tuple)):
            if parts.fits(cls, part) and parts.choose(cls.__name__, None, part) is cls:
                return name, path
    return None


def test_every_public_part_is_shipped_or_can_be_chosen():
    used, _ = shipped()
    missing = [cls for cls in public() if cls not in used and choosing(cls) is None]
    assert {cls.__name__ for cls in missing} == set(EXEMPT)


def test_every_objective_has_a_shipped_config():
    found = [(name, module) for name, modules in parts.index().items() for module in modules]
    classes = {getattr(importlib.import_module(m), n) for n, m in found if m.startswith("genjax.objectives.")}
    objectives = {cls for cls in classes if parts.fits(cls, Objective)}
    assert len(objectives) >= 20
    assert objectives <= shipped()[0]
    assert {cls.__name__ for cls in objectives} <= set(
        lazy.contents(str(parts.PACKAGE / "objectives/__init__.py"))
    )


def settable(hint: Any) -> bool:
    """Whether a flag can set a field: a part, a tuple of parts, or a plain value."""
    if parts.part_types(hint) or parts.part_types(tree._inside(hint, tuple)):
        return True
    for text in ("1", "a", "1,1", "a,b"):
        try:
            tree.parse(text, hint)
        except ValueError:
            continue
        return True
    return False


def test_flags_choose_each_part_and_set_its_required_fields():
    """`--config.PATH=NAME` makes an instance of exactly this class; what it lacks can be set by flags."""
    in_files = set()
    for cls, found in ((cls, choosing(cls)) for cls in public()):
        if found is None:
            continue
        changed = tree.override(load(found[0]), found[1], cls.__name__)
        for part in found[1].split("."):
            changed = changed[part] if isinstance(changed, dict) else getattr(changed, part)
        chosen = changed[0] if isinstance(changed, tuple) else changed
        assert type(chosen) is cls
        lacking = {name for name, value in tree.fields(chosen).items() if value is UNSET}
        if not all(settable(tree.hints(chosen)[name]) for name in lacking):
            in_files.add(cls.__name__)
    assert in_files == set(IN_FILES)
