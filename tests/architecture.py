"""The structure of the code, read from its imports: rooms, floors, arrows, circles."""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "architecture.md"
CODE = ("genjax", "experiments")


def floors() -> dict[str, int]:
    """Room -> floor, from the table in docs/architecture.md."""
    rows = re.findall(r"^\| *(\d) *\| ([^|]*)\|", TABLE.read_text(), re.MULTILINE)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)/`", rooms)}


def room(module: str) -> str:
    """The room of a module: the folder under genjax, or experiments."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] or first if first == "genjax" else first


def folder(module: str) -> str:
    """The folder that holds a module."""
    return module.rpartition(".")[0]


@functools.cache
def modules() -> Mapping[str, Path]:
    """Dotted name -> file of every module."""
    paths = [path for top in CODE for path in sorted((ROOT / top).rglob("*.py"))]
    name = lambda path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return {name(path): path for path in paths}


def _statements(path: Path) -> Iterator[ast.stmt]:
    """The import statements of a file, those inside functions too; a package's table of contents is left out."""
    if path.name != "__init__.py":
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt))


@functools.cache
def imports() -> Mapping[str, frozenset[str]]:
    """Module -> modules of this repository that it imports; a name of a package's contents counts as its own module."""
    found: dict[str, set[str]] = {name: set() for name in modules()}
    for name, path in modules().items():
        for node in _statements(path):
            if isinstance(node, ast.ImportFrom):
                source = _source(name, node)
                for alias in node.names:
                    found[name].add(_defined(source, alias.name))
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
    return {name: frozenset(found[name] & {*modules()} - {name}) for name in found}


def _source(name: str, node: ast.ImportFrom) -> str:
    """The absolute name of what `from ... import` names, relative to the module `name`."""
    parts = name.split(".")[: -node.level] if node.level else []
    return ".".join([*parts, *([node.module] if node.module else [])])


@functools.cache
def contents(package: str) -> Mapping[str, str]:
    """Name -> module, of a package's table of contents."""
    tree = ast.parse(modules()[package].read_text())
    lines = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(line.module) for line in lines for alias in line.names}


def _defined(module: str, name: str) -> str:
    """The module that `from module import name` reaches."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    is_package = module in modules() and modules()[module].name == "__init__.py"
    return contents(module).get(name, module) if is_package else module


def arrows() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(room, room) -> the imports between them."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for module, used in imports().items():
        for other in sorted(used):
            if room(module) != room(other):
                found.setdefault((room(module), room(other)), []).append((module, other))
    return found


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of nodes that reach each other."""
    reach = {node: _reach(node, graph) for node in graph}
    return [{node} for node in graph if node in reach[node]]


def _reach(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [*graph.get(start, ())]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, ())
    return seen


def between(key) -> dict[str, set[str]]:
    """The graph of imports between what `key` maps modules to."""
    graph: dict[str, set[str]] = {key(module): set() for module in modules()}
    for module, used in imports().items():
        graph[key(module)] |= {key(other) for other in used} - {key(module)}
    return graph


def reachable(*starts: str) -> set[str]:
    """The modules that programs import, directly or through others."""
    graph = {module: set(used) for module, used in imports().items()}
    return {*starts}.union(*(_reach(start, graph) for start in starts))
