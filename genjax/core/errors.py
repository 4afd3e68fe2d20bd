"""The one exception that a user's mistake raises: it prints as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right; the message is one line that says how.

    Attributes:
        code: of the program's exit.
    """

    code = 2


def nearest(name: str, choices: Iterable[str]) -> str:
    """Words an unknown name's valid choices: "did you mean 'steps'? (one of: seed, steps)".

    Args:
        name: what the user wrote.
        choices: the valid names.

    Returns:
        Text to end an error's line with.
    """
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(one of: {', '.join(names) or 'none'})"
