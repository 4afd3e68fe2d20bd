"""Files of molecules (.smi): what a line means, and which lines are molecules.

A line is SMILES, then optionally blanks or a tab and a title (Daylight, OpenSMILES). Lines that begin with # are
comments. The first other line is a header if its first word has "smiles" in it, which no molecule spells.
"""

import re
from collections.abc import Sequence
from types import ModuleType

from genjax.core.errors import UserError

RING_BONDS = re.compile(
    r"\[[^\[\]]*\]|%\d\d|\d|[^\d]"
)  # in bracket atoms digits are isotopes, charges, counts
COLUMN = re.compile(r"(\w*_)?smiles", re.IGNORECASE)
CHECKED = 20_000  # molecules; RDKit parses about as many in a second


def molecules(lines: Sequence[str], path: str) -> list[str]:
    """The SMILES of a file.

    Args:
        lines: of the file, without empty ones, nor blanks around them.
        path: for the message.

    Returns:
        The SMILES of each line that is neither a comment nor the header.

    Raises:
        UserError: the header says that SMILES are not the first column, or that commas separate columns.
    """
    rows = [line for line in lines if not line.startswith("#")]
    if not rows:
        return []
    first, *others = re.split(r"[ \t,;]+", rows[0])
    if "," in rows[0] and any(map(COLUMN.fullmatch, [first, *others])):
        raise UserError(
            f"the columns of {path!r} are separated by commas: a line is SMILES, a tab and a title"
        )
    if "smiles" not in first.casefold() and any(map(COLUMN.fullmatch, others)):
        raise UserError(f"SMILES must be the first column of {path!r}; its first one is {first!r}")
    return [re.split(r"[ \t]", row, maxsplit=1)[0] for row in rows["smiles" in first.casefold() :]]


def describe_invalid(smiles: Sequence[str]) -> str:
    """How many of the first strings are no molecules, "" if all are."""
    some = smiles[:CHECKED]
    chem = rdkit_chem()
    if chem is None:
        count, what = sum(not is_balanced(text) for text in some), "with unmatched brackets or ring bonds"
    else:
        from rdkit import rdBase

        with rdBase.BlockLogs():
            count = sum(not (found := chem.MolFromSmiles(text)) or not found.GetNumAtoms() for text in some)
        what = "no molecules to RDKit"
    where = f", of the first {CHECKED:,}" if len(smiles) > CHECKED else ""
    return f"{what}{where}: {count:,}" if count else ""


def rdkit_chem() -> ModuleType | None:
    """RDKit's `Chem`, or None where it is not installed."""
    try:
        from rdkit import Chem
    except ImportError:
        return None
    return Chem


def is_balanced(smiles: str) -> bool:
    """Whether brackets match, no branch is empty and every ring bond is closed; checks no chemistry."""
    depth, before = 0, ""
    open_rings: set[str] = set()
    for part in RING_BONDS.findall(smiles):
        if part in "[]":  # an unmatched bracket
            return False
        if part == "(":
            depth += 1
        elif part == ")":
            depth -= 1
            if depth < 0 or before == "(":
                return False
        elif part[-1].isdigit():
            open_rings ^= {part.lstrip("%0") or "0"}
        before = part
    return bool(smiles) and depth == 0 and not open_rings
