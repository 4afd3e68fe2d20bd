"""Files of weights (.safetensors): what the library raises becomes one line with the file's name.

The header is read and checked when a file is opened; arrays are read one at a time.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float32, Shaped

from genjax.core.errors import UserError
from genjax.core.extras import safetensors

FLOATS = ("F32", "BF16", "F16", "F64")
assert ml_dtypes.bfloat16  # its import is what makes "bfloat16" the name of a dtype


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # the library raises many kinds
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{path} is damaged: {reason}") from None


class WeightFile:
    """An open file of weights.

    Attributes:
        path: of the file.
        names: of its arrays.
        metadata: strings by name.
    """

    def __init__(self, path: Path, file: Any):
        """Reads the header.

        Args:
            path: of the file.
            file: as the library opens it.
        """
        self.path, self._file = path, file
        with _reading(path):
            self.names: tuple[str, ...] = tuple(sorted(file.keys()))
            self.metadata: dict[str, str] = dict(file.metadata() or {})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""
        with _reading(self.path):
            return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Dtype of an array, as the format names it: "F32", "BF16", "I8", ..."""
        with _reading(self.path):
            return str(self._file.get_slice(name).get_dtype())

    def array(self, name: str) -> Shaped[np.ndarray, "..."]:
        """An array as stored."""
        with _reading(self.path):
            return np.asarray(self._file.get_tensor(name))

    def weights(self, name: str) -> Float32[np.ndarray, "..."]:
        """An array of floating point numbers, in single precision.

        Raises:
            UserError: it has another dtype, or holds NaN or infinity.
        """
        if (dtype := self.dtype(name)) not in FLOATS:
            raise UserError(
                f"{self.path}: '{name}' has the dtype {dtype}, it may be quantised: only {', '.join(FLOATS)} are read"
            )
        with np.errstate(over="ignore"):
            found = self.array(name).astype(np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{self.path}: '{name}' holds NaN or infinity: the weights are damaged")
        return found


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[WeightFile]:
    """Opens a .safetensors file.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    library, _ = safetensors()
    with contextlib.ExitStack() as stack:
        with _reading(path):
            if not path.is_file():
                raise UserError(f"cannot read {path}: no such file")
            file = stack.enter_context(library.safe_open(path, framework="numpy"))
        yield WeightFile(path, file)
