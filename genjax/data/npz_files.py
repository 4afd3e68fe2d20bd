"""One reader of .npz files: headers are checked against the file before arrays are read, pickles are never loaded."""

import contextlib
import dataclasses
import math
import os
import zipfile
from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from genjax.core.errors import UserError

DEFLATE = 1032  # largest ratio of compression
READABLE = "biufUS"  # kinds of dtypes: numbers and strings


@dataclasses.dataclass(frozen=True)
class Header:
    """Shape and dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


@contextlib.contextmanager
def open_npz(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens an .npz file; any exception in the context becomes a UserError with the file's name.

    Raises:
        UserError: the file is missing, is not an .npz file, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"no file '{path}'") from error
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"'{path}' is not an .npz file, or is damaged ({text})") from error


def read_names(path: str) -> tuple[str, ...]:
    """Names of the arrays of an .npz file.

    Raises:
        UserError: see `open_npz`.
    """
    with open_npz(path) as file:
        return tuple(name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy"))


def read_header(path: str, key: str) -> Header:
    """Reads shape and dtype of one array of an .npz file.

    Raises:
        UserError: see `open_npz`; or the array holds Python objects or records, or is not as large as its header says.
    """
    what = f"array '{key}' of {path}"
    with open_npz(path) as file, file.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
        size, begin = file.getinfo(f"{key}.npy").file_size, member.tell()
        if dtype.hasobject:
            raise UserError(f"{what} holds Python objects, which are never loaded: save numbers or strings")
        if dtype.kind not in READABLE or (dtype.kind == "f" and dtype.itemsize > 8):
            raise UserError(f"{what} is {dtype}: save integers, floating point of up to 64 bits, or strings")
        if not shape:
            raise UserError(f"{what} is a single value")
        bytes_ = math.prod(shape) * dtype.itemsize
        if begin + bytes_ != size or size > DEFLATE * os.path.getsize(path):
            raise UserError(f"{what} is damaged: its header says {bytes_:,} bytes, it has {size - begin:,}")
    return Header(tuple(shape), dtype)


def read_array(path: str, key: str) -> Shaped[np.ndarray, "n *rest"]:
    """Reads one array of an .npz file, in the byte order of this machine.

    Raises:
        UserError: see `read_header`; or the array has no examples.
    """
    if read_header(path, key).shape[0] == 0:
        raise UserError(f"array '{key}' of {path} has no examples")
    with open_npz(path), np.load(path, allow_pickle=False) as arrays:
        array: np.ndarray = arrays[key]
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_finite(x: Shaped[np.ndarray, "n *rest"], what: str, row: str = "example") -> None:
    """Checks that all values are finite, in float32 too.

    Args:
        x: examples of any dtype.
        what: description of the array, for the message.
        row: noun for what its first axis counts.

    Raises:
        UserError: some value is not; the message names the first such row.
    """
    if x.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(x.astype(np.float32, copy=False)).reshape(len(x), -1)
    if not finite.all():
        index = int(finite.all(axis=1).argmin())
        bad = x.reshape(len(x), -1)[index, finite[index].argmin()]
        raise UserError(f"{what} holds {bad:g} in {row} {index}: values must be finite in float32")
