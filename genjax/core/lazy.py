"""Lazy packages: `__init__` lists the public names, and a module is imported on the first use of its names.

    if TYPE_CHECKING:
        from genjax.data.data import Data

    __all__, __getattr__, __dir__ = attach(__name__, __file__)

Type checkers and editors evaluate the imports; at run time they are parsed and resolved one at a time (PEP 562).
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def contents(file: str) -> dict[str, tuple[str, str | None]]:
    """Reads the table of contents of an `__init__.py`.

    Args:
        file: path of the file.

    Returns:
        Public name -> (module, name in it), (module, None) for a module itself.
    """
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    found |= {alias.asname or alias.name: (line.module, alias.name) for alias in line.names}
                elif isinstance(line, ast.Import):
                    found |= {alias.name.rpartition(".")[2]: (alias.name, None) for alias in line.names}
    return found


def attach(package: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Makes `__all__`, `__getattr__` and `__dir__` of a package from its table of contents.

    Args:
        package: its `__name__`.
        file: its `__file__`.

    Returns:
        The three, in this order.
    """
    table = contents(file)

    def get(name: str) -> Any:
        if name not in table:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = _load(*table[name])
        setattr(sys.modules[package], name, value)
        return value

    return sorted(table), get, lambda: sorted({*table, *vars(sys.modules[package])})


def _load(module: str, name: str | None) -> Any:
    """What `import module` (without a name) or `from module import name` binds; the name may be that of a submodule."""
    loaded = importlib.import_module(module)
    if name is None:
        return loaded
    try:
        return getattr(loaded, name)
    except AttributeError:
        return importlib.import_module(f"{module}.{name}")
