"""The exception for errors that the user can fix: programs print it as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix; the message is one line that says how.

    Attributes:
        code: exit code of the program.
    """

    code = 2


def nearest(name: str, choices: Iterable[str]) -> str:
    """Lists the valid choices for an unknown name: "did you mean 'steps'? (one of: seed, steps)".

    Args:
        name: the unknown name, as the user wrote it.
        choices: the valid names.

    Returns:
        Text for the end of an error message.
    """
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(one of: {', '.join(names) or 'none'})"
