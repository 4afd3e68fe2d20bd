"""Optional dependencies: imported where they are used, with one clear line where they are missing."""

import importlib
from types import ModuleType

from genjax.core.errors import UserError

DISTRIBUTION = "genjax-research"


def require(module: str, extra: str, use: str) -> ModuleType:
    """Imports a module of an optional dependency.

    Args:
        module: its dotted name.
        extra: the extra of pyproject.toml that installs it.
        use: what needs it, the start of the message.

    Returns:
        The module.

    Raises:
        UserError: it is not installed; the message names the extra.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != top:
            raise
        how = f"pip install '{DISTRIBUTION}[{extra}]', or -r requirements-{extra}.txt in a clone"
        raise UserError(f"{use} needs {top}, of the extra '{extra}': {how}") from None


def safetensors() -> tuple[ModuleType, ModuleType]:
    """The library safetensors, and its functions of NumPy arrays.

    Raises:
        UserError: it is not installed.
    """
    use = "a file of weights (.safetensors)"
    return require("safetensors", "multimodal", use), require("safetensors.numpy", "multimodal", use)
