"""experiment.json, the description of an experiment in its work directory: the file, and the names in it.

    {"format": 2, "config": "FILE[:variant]", "experiment": {"@type": "module:Class", field: value, ...}}

Classes and functions are referred to by "module:name". They are looked up in genjax and in the config's own module
only, so that a description cannot name anything else that is installed. The module of a config file is called
`CONFIG_MODULE` and a hash of the file.
"""

import ast
import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.core.json_files import read_object

DESCRIPTION = "experiment.json"
FORMAT = 2
OLDEST = 1  # format that is still read; see `format_1`
CLASS_NAMES = "class_names"  # key of the names of the classes, by label
CONFIG_MODULE = "genjax_config_"  # prefix of modules loaded from config files
PACKAGE = "genjax"


def read(workdir: Path) -> dict[str, Any]:
    """The contents of experiment.json as stored.

    Raises:
        UserError: there is none, it is damaged, or of another format.
    """
    path = workdir / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{workdir} is not the work directory of a run: it has no {DESCRIPTION}")
    stored = read_object(path)
    found = stored.get("format")
    if found not in range(OLDEST, FORMAT + 1):
        raise UserError(f"{path} has format {found}; this genjax reads formats {OLDEST} to {FORMAT}")
    return stored


def is_old(workdir: Path) -> bool:
    """Whether a directory holds a run of format 1; False for one without a run."""
    return (workdir / DESCRIPTION).is_file() and read(workdir)["format"] < FORMAT


def find(reference: str, config: Callable[[], ModuleType], where: Path) -> Any:
    """The class or function that a reference names.

    Args:
        reference: "module:name"; name may be dotted.
        config: executes the work directory's config file, for a reference to its own module, or to a module that it
            imports from.
        where: path of the description, for error messages.

    Returns:
        The class or function.

    Raises:
        UserError: it is neither part of genjax nor in the namespace of the config, or there is none of that name.
    """
    if not isinstance(reference, str):
        raise UserError(f"{where} is damaged: {reference!r} names no class")
    module_name, _, name = reference.partition(":")
    try:
        if module_name.split(".")[0] == PACKAGE:
            module, expected = importlib.import_module(module_name), reference
        elif module_name.startswith(CONFIG_MODULE):
            module = config()  # its hash is another one if the file was changed
            expected = f"{module.__name__}:{name}"
        else:
            return _imported_by(config(), reference)
        found: Any = module
        for part in name.split("."):
            found = vars(found)[part]
        if _is(found, expected):
            return found
    except (ImportError, KeyError, TypeError) as error:
        raise UserError(f"{where} needs {reference}, which cannot be found: {error}") from None
    raise UserError(f"{where} needs {reference}, which is not defined there")


def _imported_by(config: ModuleType, reference: str) -> Any:
    """The class or function of a config's namespace, or of a module in it, that has the given reference."""
    module_name, _, name = reference.partition(":")
    for value in vars(config).values():
        candidates = [value]
        if isinstance(value, ModuleType) and value.__name__ == module_name:
            candidates = [vars(value).get(name)]
        for found in candidates:
            if _is(found, reference):
                return found
    raise KeyError("it is neither part of genjax nor imported by the config")


def _is(found: Any, reference: str) -> bool:
    """Whether `found` is the class or function that a reference names."""
    try:
        return callable(found) and not tree.is_node(found) and tree.reference(found, "") == reference
    except UserError:  # it has no name
        return False


def comparable(described: Any) -> Any:
    """A described tree in which a class of a config's own is named by its definition, not by the config's hash.

    So a change of the config's imports, comments or other parts leaves the tree as it is, and a change of the class or
    of anything in the file that it uses does not.

    Args:
        described: output of `tree.describe`, of an experiment whose config module is loaded.

    Returns:
        The tree.
    """
    if isinstance(described, list):
        return [comparable(child) for child in described]
    if not isinstance(described, dict):
        return described
    return {
        name: _by_definition(child) if name in ("@type", "@ref") else comparable(child)
        for name, child in described.items()
    }


def _by_definition(reference: str) -> str:
    module_name, _, name = reference.partition(":")
    if not module_name.startswith(CONFIG_MODULE):
        return reference
    return f"{name} of the config ({definition_hash(vars(sys.modules[module_name])['__source__'], name)})"


def definition_hash(source: str, name: str) -> str:
    """A hash of a definition at the top level of a Python file, and of those that it uses.

    Imports, comments and docstrings do not count.
    """
    defined: dict[str, ast.stmt] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            defined[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
            defined |= dict.fromkeys(names, statement)
    used, todo = set[str](), [name.partition(".")[0]]
    while todo:
        if (here := todo.pop()) in defined and here not in used:
            used.add(here)
            todo += [node.id for node in ast.walk(defined[here]) if isinstance(node, ast.Name)]
    text = "\n".join(ast.unparse(_NoDocstrings().visit(defined[name])) for name in sorted(used)) or source
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class _NoDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Replaces a string that is a statement."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if text else node
