"""Messages speak of Python arguments in genjax, and of flags in the programs."""

import ast
import re
from pathlib import Path

import pytest

from experiments import cli

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "experiments").glob("*.py"))


def defined(path: Path) -> set[str]:
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text()))


FLAGS = {path.stem: defined(path) | defined(ROOT / "experiments" / "cli.py") for path in PROGRAMS}


@pytest.mark.parametrize("program", [name for name in FLAGS if len(FLAGS[name]) > 6])
def test_every_flag_of_a_program_is_written_as_a_flag(program):
    for name in FLAGS[program]:
        message = f"{name}=0 must be at least 1, not ({name}=-1): '{name}=2'"
        expected = f"--{name}=0 must be at least 1, not (--{name}=-1): '--{name}=2'"
        assert cli.as_flags(message, FLAGS[program]) == expected


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("config.steps=0 must be at least 1", "--config.steps=0 must be at least 1"),
        ("set config.a.b=c and config.compile=jit", "set --config.a.b=c and --config.compile=jit"),
        (
            "config has no field 'seed': did you mean 'seed'?",
            "config has no field 'seed': did you mean 'seed'?",
        ),
        ("runs/a,seed=0 holds no run", "runs/a,seed=0 holds no run"),
        ("runs/config.py and config.py are damaged", "runs/config.py and config.py are damaged"),
        ("a@objective.sampler.num=3, --num=4", "a@objective.sampler.num=3, --num=4"),
        ("other=1, num_steps=2, num=3", "other=1, num_steps=2, --num=3"),
    ],
)
def test_only_names_of_flags_change(message, shown):
    assert cli.as_flags(message, {"num", "seed", "steps", "compile"}) == shown


def test_no_message_of_genjax_speaks_of_flags():
    """In the arguments of every exception that is raised and of every line that is said."""
    found = []
    for path in sorted((ROOT / "genjax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
                "UserError",
                "say",
                "report",
            ):
                texts = [
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and str(part.value).strip("-\n")
                ]
                found += [
                    (path.name, text) for text in texts if re.search(r"--[a-z{]|--$|local\.sh", str(text))
                ]
    assert not found
