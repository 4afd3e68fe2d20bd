"""Typed reading of the entries of a JSON file. An entry that is null counts as missing."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError
from genjax.core.json_files import shown

LARGEST = 2**31


@dataclasses.dataclass(frozen=True)
class Entries:
    """The entries of a JSON object.

    Attributes:
        path: of the file, for messages.
        values: the object.
        within: names of the objects around it, for messages.
    """

    path: Path
    values: Mapping[str, Any]
    within: str = ""

    def get(self, name: str) -> Any:
        """An entry; None if it is missing."""
        return self.values.get(name)

    def refuse(self, name: str, expected: str) -> UserError:
        """The error of an entry that cannot be."""
        found = f"{self.within}{name}={shown(self.get(name))}"
        return UserError(f"{self.path} has {found}; {expected}")

    def size(self, name: str, default: int | None = None) -> int:
        """A positive integer.

        Raises:
            UserError: it is none, or missing without a default.
        """
        found = self.get(name)
        if found is None and default is None:
            raise UserError(f"{self.path} lacks '{self.within}{name}'")
        found = default if found is None else found
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < LARGEST:
            raise self.refuse(name, f"it must be a positive integer below {LARGEST}")
        return found

    def positive(self, name: str, default: float) -> float:
        """A positive number; raises UserError for anything else."""
        found = default if self.get(name) is None else self.get(name)
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if not number or not 0.0 < found < math.inf:
            raise self.refuse(name, "it must be a positive number")
        return float(found)

    def flag(self, name: str, default: bool) -> bool:
        """True or false; raises UserError for anything else."""
        found = default if self.get(name) is None else self.get(name)
        if not isinstance(found, bool):
            raise self.refuse(name, "it must be true or false")
        return found

    def only(self, name: str, *supported: Any) -> None:
        """Raises UserError unless an entry is missing or one of the supported values; true is not 1."""
        found = self.get(name)
        same = lambda each: isinstance(found, bool) == isinstance(each, bool) and found == each
        if found is not None and not any(map(same, supported)):
            raise self.refuse(name, f"only {' or '.join(repr(each) for each in supported)} is supported")

    def inner(self, name: str) -> "Entries":
        """An object within; empty if it is missing.

        Raises:
            UserError: it is no object.
        """
        found = {} if self.get(name) is None else self.get(name)
        if not isinstance(found, dict):
            raise self.refuse(name, "it must be an object")
        return Entries(self.path, found, f"{self.within}{name}.")

    def tokens(self, name: str, vocabulary: int) -> tuple[int, ...]:
        """A token or a list of tokens; () if it is missing.

        Raises:
            UserError: it is neither, or outside the vocabulary.
        """
        found = self.get(name)
        each = [] if found is None else found if isinstance(found, list) else [found]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < vocabulary for n in each):
            raise self.refuse(name, f"tokens are integers from 0 to {vocabulary - 1}")
        return tuple(dict.fromkeys(each))
