"""The manifest of a checkpoint: a sum of every file, so that not one bit changes unnoticed.

    {"format", "step", "arrays": name -> dtype and shape, "files": path -> size and sha256, "sha256"}

The last entry is the sum of all before it, and the text must be the one that writing it anew gives.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
NAME = "manifest.json"


class Damaged(Exception):
    """Says what is wrong with one checkpoint, and is passed over by whoever looks for a good one."""


def sealed(body: Mapping[str, Any]) -> str:
    """The exact text of a json file, with the sum of itself as last entry."""
    text = json.dumps(body, indent=1)
    return json.dumps({**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def summed(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def unsealed(path: Path) -> dict[str, Any]:
    """Reads what `sealed` wrote, without its sum.

    Raises:
        Damaged: it is missing, or not what was written.
    """
    try:
        text = path.read_bytes().decode()
        body = json.loads(text)
        body.pop("sha256")
        intact = text == sealed(body)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise Damaged(f"{path.name} is damaged")
    return body


def write(folder: Path, step: int, arrays: Mapping[str, Any]) -> None:
    """Seals a folder: sums every file in it and writes the manifest atomically, as the last of them.

    Args:
        folder: holds a complete checkpoint.
        step: number of steps taken.
        arrays: name -> {"dtype", "shape"}.

    Raises:
        OSError: the file system refused.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != f"{NAME}.tmp")
    files = {p.relative_to(folder).as_posix(): summed(p) for p in paths}
    temporary = folder / f"{NAME}.tmp"
    with temporary.open("w") as file:
        file.write(sealed({"format": FORMAT, "step": step, "arrays": arrays, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    for changed in (folder, folder.parent):  # the names, too, are to survive a loss of power
        descriptor = os.open(changed, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read(folder: Path) -> dict[str, Any]:
    """Reads a manifest, without looking at the files that it names.

    Returns:
        {"format", "step", "arrays", "files"}.

    Raises:
        Damaged: it is missing, or not what was written, or of another format.
    """
    body = unsealed(folder / NAME)
    if body["format"] != FORMAT:
        raise Damaged(f"its format is {body['format']}, this version reads {FORMAT}")
    return body


def verify(folder: Path) -> None:
    """Raises `Damaged` unless every file is there and has the manifest's size and sum."""
    for name, expected in read(folder)["files"].items():
        try:
            found = summed(folder / name)
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from None
        if found["size"] != expected["size"]:
            raise Damaged(f"{name} has {found['size']} bytes instead of {expected['size']}")
        if found != expected:
            raise Damaged(f"{name} has changed since it was written")
