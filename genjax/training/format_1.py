"""Work directories of format 1: their experiments, config files, metrics and reports, in the names of today.

The names are in `core.renamed`. Besides them one part of the tree has changed: an objective's `classes` and
`label_dropout` are `condition=Labels(classes, dropout)`, or None for 0 classes.
"""

import contextlib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from genjax.core import renamed
from genjax.core.renamed import FIELDS, LABEL_DROPOUT, LABELS, METRIC_FIELDS

SHIPPED = (
    "experiments.configs"  # shipped configs imported each other from here; now they are modules by themselves
)
ROOT = Path(__file__).parents[2]


def upgrade(described: Any, bases: Callable[[str], Sequence[str]] = lambda reference: ()) -> Any:
    """Converts a described tree of format 1.

    Args:
        described: "experiment" of experiment.json, or a part of it.
        bases: reference of a class of the config's own -> present references of the classes that it derives from;
            called for each class that is not part of genjax.

    Returns:
        The same tree as `tree.describe` writes it today.
    """
    again = functools.partial(upgrade, bases=bases)
    if isinstance(described, list):
        return [again(child) for child in described]
    if not isinstance(described, dict):
        return described
    if "@ref" in described:
        return {"@ref": renamed.reference(described["@ref"])}
    if "@type" not in described:
        return {name: again(child) for name, child in described.items()}
    kind = renamed.reference(described["@type"])
    lineage = [kind] if kind.startswith("genjax.") else [kind, *bases(kind)]
    node: dict[str, Any] = {"@type": kind}
    for name, child in described.items():
        if name != "@type":
            paths = [f"{cls}.{name}" for cls in lineage]
            new = next((FIELDS[path] for path in paths if path in FIELDS), name)
            names_metric = any(path in METRIC_FIELDS for path in paths)
            node[new] = renamed.metric(child) if names_metric else again(child)
    dropout = next((LABEL_DROPOUT[cls] for cls in lineage if cls in LABEL_DROPOUT), None)
    return node if dropout is None else _with_condition(node, dropout)


def _with_condition(node: Mapping[str, Any], default: float) -> dict[str, Any]:
    """An objective with `condition` in place of `classes` and `label_dropout`."""
    classes, dropout = node.get("classes", 0), node.get("label_dropout", default)
    condition = {"@type": LABELS, "classes": classes, "dropout": dropout} if classes else None
    kept = {name: value for name, value in node.items() if name not in ("classes", "label_dropout")}
    return {**kept, "condition": condition}


def upgrade_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl of format 1, with the names of today."""
    return {renamed.metric(name): value for name, value in row.items()}


def upgrade_report(report: Any) -> Any:
    """An evaluation.json without a format, with the names of today."""
    if isinstance(report, list):
        return [upgrade_report(child) for child in report]
    if not isinstance(report, dict):
        return report
    if "@type" in report:
        return upgrade(report)
    return {renamed.metric(name): upgrade_report(value) for name, value in report.items()}


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """Makes the modules and names of format 1 importable, for the time in which a config file of format 1 is executed.

    A module that no longer exists is a stand-in, which finds its names where they are now; one that exists gets the
    names that are no longer in it.
    """
    old = {*renamed.MODULES, *(reference.partition(":")[0] for reference in renamed.NAMES)}
    old |= {name.rpartition(".")[0] for name in old}  # their packages, which hold them as attributes
    existing = {name: importlib.import_module(name) for name in sorted(old) if _exists(name)}
    stand_ins = {name: ModuleType(name) for name in (*(old - existing.keys()), SHIPPED)}
    getters = {name: vars(module).get("__getattr__") for name, module in existing.items()}
    for name, module in (existing | stand_ins).items():
        vars(module)["__getattr__"] = functools.partial(_get, name, getters.get(name))
    hidden = {name: sys.modules[name] for name in stand_ins.keys() & sys.modules.keys()}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(hidden)
        for name, getter in getters.items():
            if getter is None:
                del vars(existing[name])["__getattr__"]
            else:
                vars(existing[name])["__getattr__"] = getter


def _exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _get(module: str, getter: Callable[[str], Any] | None, name: str) -> Any:
    """An attribute of a module of format 1: by its present `__getattr__`, a module in it, or by its present name."""
    if getter is not None:
        with contextlib.suppress(AttributeError):
            return getter(name)
    missing = AttributeError(f"module '{module}' has no attribute '{name}'")
    if name.startswith("__"):
        raise missing
    if f"{module}.{name}" in sys.modules:
        return sys.modules[f"{module}.{name}"]
    if module == SHIPPED:
        return importlib.import_module(name)
    old = f"{module}:{name}"
    new_module, _, new = renamed.reference(old).partition(":")
    if f"{new_module}:{new}" == old:
        raise missing
    return getattr(importlib.import_module(new_module), new)


def present_name(error: ImportError) -> str:
    """The present name of what an import statement did not find, if it is a name of format 1; "" if not."""
    found = re.match(r"cannot import name '(\w+)'", str(error))
    if error.name in (SHIPPED, SHIPPED.partition(".")[0]):
        return found[1] if found else "a module by itself"
    if found and (module := renamed.MODULES.get(f"{error.name}.{found[1]}")):
        return module
    old = f"{error.name}:{found[1] if found else ''}"
    new = renamed.reference(old)
    return "" if new == old else new.rstrip(":").replace(":", ".")
