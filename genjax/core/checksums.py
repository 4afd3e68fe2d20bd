"""The manifest of a checkpoint: the SHA-256 of every file, which detects any changed bit.

    {"format", "step", "arrays": name -> dtype and shape, "files": path -> size and sha256, "sha256"}

The last entry is the checksum of the entries before it; reading requires the exact text that writing produces.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
NAME = "manifest.json"


class ChecksumError(Exception):
    """A file is missing or differs from its checksum; the message names the file and the fault."""


def with_checksum(body: Mapping[str, Any]) -> str:
    """The exact text of a JSON file, with the SHA-256 of its other entries as last entry."""
    text = json.dumps(body, indent=1)
    return json.dumps({**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=1)


def file_checksum(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_checksummed(path: Path) -> dict[str, Any]:
    """Reads a file written by `with_checksum` and returns its entries without the checksum.

    Raises:
        ChecksumError: the file is missing, or differs from what was written.
    """
    try:
        text = path.read_bytes().decode()
        body = json.loads(text)
        body.pop("sha256")
        intact = text == with_checksum(body)
    except FileNotFoundError:
        raise ChecksumError(f"{path.name} is missing") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise ChecksumError(f"{path.name} is damaged")
    return body


def write(folder: Path, step: int, arrays: Mapping[str, Any]) -> None:
    """Writes the manifest with the checksum of every file in a folder, atomically and after all other files.

    Args:
        folder: holds a complete checkpoint.
        step: number of completed training steps.
        arrays: name -> {"dtype", "shape"}.

    Raises:
        OSError: a file cannot be read or written.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != f"{NAME}.tmp")
    files = {p.relative_to(folder).as_posix(): file_checksum(p) for p in paths}
    temporary = folder / f"{NAME}.tmp"
    with temporary.open("w") as file:
        file.write(with_checksum({"format": FORMAT, "step": step, "arrays": arrays, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    for changed in (folder, folder.parent):  # directory entries must survive a power failure too
        descriptor = os.open(changed, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read(folder: Path) -> dict[str, Any]:
    """Reads a manifest without checking the files that it lists.

    Returns:
        {"format", "step", "arrays", "files"}.

    Raises:
        ChecksumError: the manifest is missing, differs from what was written, or has another format.
    """
    body = read_checksummed(folder / NAME)
    if body["format"] != FORMAT:
        raise ChecksumError(f"its format is {body['format']}, this version reads {FORMAT}")
    return body


def verify(folder: Path) -> None:
    """Raises `ChecksumError` unless every listed file exists with the manifest's size and checksum."""
    for name, expected in read(folder)["files"].items():
        try:
            found = file_checksum(folder / name)
        except OSError as error:
            raise ChecksumError(f"{name}: {error.strerror}") from None
        if found["size"] != expected["size"]:
            raise ChecksumError(f"{name} has {found['size']} bytes instead of {expected['size']}")
        if found != expected:
            raise ChecksumError(f"{name} has changed since it was written")
