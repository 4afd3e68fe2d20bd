"""Files that are complete or absent: written beside their place, then renamed."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from genjax.core.errors import UserError

TEMPORARY = ".tmp"  # before the suffix of a file's name, while it is written


def beside(path: Path) -> Path:
    """The path under which a file is written before it is renamed; it has the same suffix."""
    return path.with_name(f"{path.stem}{TEMPORARY}{path.suffix}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replaces a file: yields the path to write, which becomes `path` at the end, and is removed by an exception.

    After a kill, or on a full disk, the file has the old contents or the new ones, complete.
    """
    temporary = beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, text: str) -> None:
    """Replaces the text of a file, see `replacing`."""
    write_all({path: text})


def write_all(texts: Mapping[Path, str]) -> None:
    """Replaces several files, in order, once all of them are written; folders are created.

    Raises:
        OSError: one cannot be written; then none is replaced.
    """
    with contextlib.ExitStack() as stack:
        for path, text in reversed(list(texts.items())):  # the last one entered is the first one renamed
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an error of the system inside the block into one line that names `path`.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(f"cannot write {path}: {reason[0].lower()}{reason[1:]}") from None
