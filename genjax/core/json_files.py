"""JSON files from outside: an object, or one line that says what is wrong with the file."""

import json
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        UserError: it cannot be read, is not JSON in UTF-8, or holds something else than an object.
    """
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is not valid JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a JSON object: it is damaged")
    return found


def shown(value: Any) -> str:
    """A value of a JSON file for a message: on one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
