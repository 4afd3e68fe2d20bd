"""Shared by the command-line programs: config overrides beside absl flags, and one-line errors.

Overrides such as `--config.a.b=value` are removed from the command line before absl parses the rest; absl passes their
list to `main`.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax
from absl import app, flags, logging

from genjax.core.errors import UserError
from genjax.parallel import multihost
from genjax.parallel.hosts import cluster

PREFIX = "--config."
Overrides = list[tuple[str, str]]

flags.DEFINE_bool("traceback", False, "Show the traceback of a user error, not only its message.")
flags.DEFINE_string(
    "compilation_cache",
    str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genjax" / "xla"),
    "Folder of the persistent compilation cache; empty for none.",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of a multi-process run; see docs/hosts.md.")
flags.DEFINE_integer("num_processes", None, "Number of processes; default: from the environment.")
flags.DEFINE_integer("process_id", None, "Index of this process, 0 ... num_processes - 1.")
flags.DEFINE_float(
    "watchdog", 300.0, "Seconds without a heartbeat or a step after which a multi-process run ends."
)


def as_flags(message: str, names: Collection[str]) -> str:
    """Writes Python arguments in a message as flags: "num=0" becomes "--num=0", "config.steps" "--config.steps".

    Messages of `genjax` speak of arguments, as `name=value`; a program's user gave flags.

    Args:
        message: of a `UserError`.
        names: the program's flags.

    Returns:
        The message; names that are no flags, and names inside paths and file names, are unchanged.
    """
    name = r"(?<![\w./,@=-])(config(?=\.(?!py\b)[a-z])|\w+(?==))"  # before it no part of a path or of a flag
    write = lambda match: f"--{match[0]}" if match[0] == "config" or match[0] in names else match[0]
    return re.sub(name, write, message)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], Overrides]:
    """Takes `--config.a.b=value` and `--config.a.b value` out of a command line.

    Args:
        argv: the program's name and its arguments.

    Returns:
        (arguments for absl, overrides in order).

    Raises:
        UserError: an override without a value.
    """
    rest, overrides = [], []
    words = iter(argv)
    for word in words:
        if not word.startswith(PREFIX):
            rest.append(word)
            continue
        path, equals, text = word.removeprefix(PREFIX).partition("=")
        if not equals:
            following = next(words, "--")
            if following.startswith("--"):
                raise UserError(f"{word} needs a value: {word}=VALUE")
            text = following
        overrides.append((path, _with_home(text)))
    return rest, overrides


def _with_home(text: str) -> str:
    """A path that begins with ~, with the home folder: shells leave it in `--flag=~/path`."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def parse(argv: Sequence[str]) -> Overrides:
    """Parses a command line: absl flags into `flags.FLAGS`, overrides as (path, value).

    Raises:
        UserError: an unknown flag, a wrong value, or an argument that is no flag.
    """
    rest, overrides = split_overrides(argv)
    try:
        stray = flags.FLAGS(rest)[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    for name in flags.FLAGS:
        if isinstance(value := flags.FLAGS[name].value, str):
            flags.FLAGS[name].value = _with_home(value)
    if stray:
        raise UserError(
            f"unexpected argument '{stray[0]}': did you mean '--{stray[0]}' or '--config.{stray[0]}'?"
        )
    return overrides


def _place(alone: bool) -> cluster.Place | None:
    """This process's place in a multi-process run; None for a single process.

    Raises:
        UserError: the flags contradict each other, or the program supports one process only.
    """
    given = flags.FLAGS
    place = cluster.find(given.coordinator, given.num_processes, given.process_id)
    if place is not None and alone:
        raise UserError(
            f"{Path(sys.argv[0]).stem} supports one process, but {place.found} gives {place.count}: "
            "add --num_processes=1 and start it once"
        )
    return place


def run(main: Callable[[Overrides], None], alone: bool = False) -> None:
    """Runs a program: parses its flags, calls `main(overrides)`, and prints a user error as one line.

    Exit codes: 0; 2 after a user error; 143 or 130 after SIGTERM or SIGINT, with a checkpoint saved; 75 if another
    process of the run was lost or did not join.

    Args:
        main: called after the flags are parsed and all processes of the run have joined.
        alone: the program supports one process only.
    """

    def start(overrides: Overrides) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        jax.config.update("jax_compilation_cache_dir", flags.FLAGS.compilation_cache or None)
        with multihost.join_processes(_place(alone), flags.FLAGS.watchdog):
            main(overrides)
        sys.stdout.flush()

    try:
        app.run(start, flags_parser=parse)
    except UserError as error:
        if flags.FLAGS.is_parsed() and flags.FLAGS.traceback:
            raise
        print(f"error: {as_flags(str(error), {*flags.FLAGS})}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:  # training has saved
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of stdout closed the pipe, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
