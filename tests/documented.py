"""The documentation's code blocks, and its commands run in this process up to `--dry_run`."""

import importlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from absl import flags

from experiments import cli, dry_run

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
]
FLAGS = flags.FLAGS


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of each command in the bash blocks of a page, without comments; `&&` separates commands."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            parts = itertools.groupby(words, lambda word: word == "&&")
            found += [list(part) for joint, part in parts if not joint]
    return found


def alternatives(words: list[str]) -> list[list[str]]:
    """A command without its optional parts, as in `gan_digits[:dcgan|:ada]`, and with each choice of one of them."""
    plain = [re.sub(r"\[[^\]]*\]", "", word) for word in words]
    found = [[word for word in plain if word]]
    for place, word in enumerate(words):
        if match := re.search(r"\[([^\]]*)\]", word):
            for choice in match[1].split("|"):
                chosen = plain.copy()
                chosen[place] = word.replace(match[0], choice)
                found.append([word for word in chosen if word])
    return found


def _is_program(module: str) -> bool:
    """Whether a module is a program, or a part of one, with flags of its own."""
    return module.startswith("experiments.") and module not in (cli.__name__, dry_run.__name__)


@contextmanager
def program(verb: str) -> Iterator[ModuleType]:
    """A program with its flags at their defaults; all other programs' flags are unknown inside."""
    owners = FLAGS.flags_by_module_dict()
    hidden = [(owner, flag) for owner in owners if _is_program(owner) for flag in owners[owner]]
    modules = {name: sys.modules.pop(name) for name in set(sys.modules) if _is_program(name)}
    for _, flag in hidden:
        delattr(FLAGS, flag.name)
    known, loaded = set(FLAGS), set(sys.modules)
    values = {name: FLAGS[name].value for name in known}
    try:
        yield importlib.import_module(f"experiments.{verb}")
    finally:
        for name in set(FLAGS) - known:
            delattr(FLAGS, name)
        for name in known:
            FLAGS[name].value = values[name]
        for name in set(sys.modules) - loaded:
            if _is_program(name):
                del sys.modules[name]
                package, _, own = name.rpartition(".")
                vars(sys.modules.get(package, sys)).pop(own, None)
        sys.modules.update(modules)
        for name, module in modules.items():
            package, _, own = name.rpartition(".")
            setattr(sys.modules[package], own, module)
        for owner, flag in hidden:
            FLAGS[flag.name] = flag
            FLAGS.register_flag_by_module(owner, flag)


def run(verb: str, words: list[str]) -> None:
    """Runs a program in this process."""
    with program(verb) as module:
        module.main(cli.parse([verb, *words]))
