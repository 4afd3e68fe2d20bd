"""Rooms and floors: imports point down, nothing runs in a circle, and a reader can find their way."""

import ast
import re
import subprocess
import sys
from collections import Counter

import architecture
import documented
import pytest

FLOORS = architecture.floors()
ROOMS = sorted({architecture.room(module) for module in architecture.modules()} - {"genjax"})


def test_every_room_has_a_line_in_the_table():
    assert sorted(FLOORS) == ROOMS


def test_imports_point_to_lower_floors():
    wrong = {
        arrow: lines
        for arrow, lines in architecture.arrows().items()
        if "genjax" not in arrow and FLOORS[arrow[0]] <= FLOORS[arrow[1]]
    }
    assert not wrong


@pytest.mark.parametrize(
    "key", [str, architecture.folder, architecture.room], ids=["modules", "folders", "rooms"]
)
def test_there_are_no_circles(key):
    assert not architecture.circles(architecture.between(key))


def test_the_checks_see_what_they_look_for():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert architecture.circles(graph) == [{"b"}, {"c"}]
    assert architecture.room("genjax.data.text.tokens") == "data"
    assert "genjax.data.data" in architecture.imports()["genjax.training.experiment"]
    assert FLOORS["core"] == 1
    assert FLOORS["experiments"] == 7


def test_the_drawn_arrows_are_imports():
    drawn = {
        (a.strip(), b.strip())
        for left, right in re.findall(
            r"^  ([\w &]+) --> ([\w &]+)$", architecture.TABLE.read_text(), re.MULTILINE
        )
        for a in left.split("&")
        for b in right.split("&")
    }
    assert {room for arrow in drawn for room in arrow} == set(ROOMS)
    assert drawn <= set(architecture.arrows())


def test_the_files_that_the_pages_name_exist():
    """Paths in backticks, of the repository or below genjax/, and links; not a file that the reader makes."""
    folders = {path.name for path in (architecture.ROOT / "genjax").iterdir() if path.is_dir()}
    folders |= {"genjax", "experiments", "tests", "launch", "docs"}
    for page in documented.PAGES:
        for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|sh|md))`", page.read_text()):
            if path.partition("/")[0] in folders and not re.search(rf"into\s`{path}`", page.read_text()):
                there = [(root / path).exists() for root in (architecture.ROOT, architecture.ROOT / "genjax")]
                assert any(there), f"{page.name}: {path}"
        for path in re.findall(r"\]\(([\w/.]+\.\w+)\)", page.read_text()):
            assert (page.parent / path).exists(), f"{page.name}: {path}"


def test_no_folder_is_crowded():
    folders = Counter(architecture.folder(module) for module in architecture.modules())
    assert {name: count for name, count in folders.items() if count > 25} == {}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "experiments"])
def test_a_room_says_what_lives_in_it_what_it_imports_and_where_to_start(room):
    text = ast.get_docstring(ast.parse(architecture.modules()[f"genjax.{room}"].read_text())) or ""
    assert "Imports: " in text
    _, found, start = text.partition("Start with `")
    assert found
    assert (architecture.ROOT / "genjax" / room / start.partition("`")[0]).is_file()


def test_flax_is_imported_under_networks_alone():
    for name, path in architecture.modules().items():
        used = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert (
            not any(module.partition(".")[0] == "flax" for module in used)
            or architecture.room(name) == "networks"
        )


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_import_genjax_is_light():
    found = loaded("import genjax")
    assert not {name.partition(".")[0] for name in found} & {
        "jax",
        "orbax",
        "sklearn",
        "flax",
        "numpy",
        "matplotlib",
    }


def test_figures(capsys):
    """Within the aims, printed with `-s`."""
    inner = {arrow for arrow in architecture.arrows() if "genjax" not in arrow}
    main = architecture.reachable("experiments.train", "experiments.configs.diffusion.diffusion_digits")
    visited = {architecture.room(module) for module in main} - {"genjax"}
    with capsys.disabled():
        print(f"\nrooms {len(ROOMS)}, floors {len({*FLOORS.values()})}, arrows {len(inner)}")
        print(
            f"the main job imports {len(main)} modules in {len(visited)} rooms: {', '.join(sorted(visited))}"
        )
        for package in ("genjax", "genjax.reports", "genjax.objectives"):
            count = sum(name.startswith(("genjax", "experiments")) for name in loaded(f"import {package}"))
            print(f"import {package}: {count} modules of genjax")
    assert len(ROOMS) <= 18
    assert len({*FLOORS.values()}) == 7
    assert len(inner) <= 90
    assert len(visited) <= 14


# Of other libraries or of the language: arrays, jaxprs, devices, Linen modules, protocols, fields, the system.
PROBES = {
    "dtype", "eqns", "jaxpr", "slice_index", "clone", "num_classes", "sched_getaffinity", "sched_setaffinity",
    "_is_protocol", "__module__", "__qualname__",
}  # fmt: skip


def probes(tree: ast.AST) -> set[str]:
    """Names of attributes that code asks for without knowing whether they exist."""
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    probing = [
        node.args[1]
        for node in calls
        if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
    ]
    return {node.value if isinstance(node, ast.Constant) else ast.unparse(node) for node in probing}


def test_no_code_probes_for_members_outside_the_contract():
    assert probes(ast.parse("getattr(x, 'a', 0), hasattr(x, n), getattr(x, 'b')")) == {"a", "n"}
    paths = architecture.modules().items()
    found = {name: probes(ast.parse(path.read_text())) - PROBES - {"field.name"} for name, path in paths}
    assert {name: names for name, names in found.items() if names} == {}
