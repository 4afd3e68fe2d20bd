"""Validity, uniqueness, novelty and diversity of molecules as SMILES.

Of n strings, V are those that RDKit parses as a molecule of at least one atom (including its valence rules), U the
distinct molecules of V (by canonical SMILES), T those of the training data (Brown et al. 2019, GuacaMol,
arXiv:1811.09621):

    validity = |V| / n,    uniqueness = |U| / |V|,    novelty = |U \\ T| / |U|,
    internal diversity = 1 - mean of T(a, b) over all pairs of U, self-pairs included (Benhenda 2017, arXiv:1708.08227)

with the Tanimoto similarity T of Morgan fingerprints (radius 2, 2048 bits). Without RDKit no validity is reported, only
"balanced": the share of strings whose brackets and ring bonds are matched, a necessary condition of validity.
"""

from collections.abc import Sequence

import numpy as np

from genjax.core.errors import UserError
from genjax.core.extras import require
from genjax.data.text.smiles import is_balanced, rdkit_chem


def canonical(smiles: Sequence[str]) -> list[str | None]:
    """The canonical SMILES of each string by RDKit; None where a string is not a molecule or is empty.

    Raises:
        UserError: RDKit is not installed.
    """
    chem = require("rdkit.Chem", "science", "canonical SMILES")
    with require("rdkit.rdBase", "science", "canonical SMILES").BlockLogs():
        molecules = [chem.MolFromSmiles(text) for text in smiles]
        return [chem.MolToSmiles(found) if found and found.GetNumAtoms() else None for found in molecules]


def internal_diversity(smiles: Sequence[str], max_molecules: int = 1000) -> float:
    """Internal diversity of the first molecules, 0 ... 1; 0 if all are equal.

    Args:
        smiles: valid SMILES, at least one.
        max_molecules: upper limit on the molecules compared.

    Raises:
        UserError: RDKit is not installed, or there is no molecule.
    """
    chem = require("rdkit.Chem", "science", "internal diversity")
    if not smiles:
        raise UserError("internal diversity needs at least one molecule")
    fingerprints = require("rdkit.Chem.rdFingerprintGenerator", "science", "internal diversity")
    similarities = require("rdkit.DataStructs", "science", "internal diversity").BulkTanimotoSimilarity
    generator = fingerprints.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(chem.MolFromSmiles(text)) for text in smiles[:max_molecules]]
    return 1.0 - float(np.mean([similarities(one, prints) for one in prints]))


def molecule_report(
    samples: Sequence[str], train: Sequence[str], test: Sequence[str]
) -> dict[str, float | str]:
    """Evaluates generated SMILES.

    Args:
        samples: generated strings, at least one.
        train: training strings.
        test: held-out strings, at least one; the first len(samples) of them are the reference.

    Returns:
        "checked_by", and with RDKit "validity", "uniqueness", "novelty" and "internal_diversity" (0 where there are no
        molecules to count), each with "_reference" for test molecules; without RDKit "balanced".

    Raises:
        UserError: no samples or no test molecules.
    """
    if not samples or not test:
        raise UserError(f"molecules: {len(samples)} samples and {len(test)} of the test split; needs both")
    sets = {"": list(samples), "_reference": list(test[: len(samples)])}
    chem = rdkit_chem()
    if chem is None:
        shares = {f"balanced{name}": float(np.mean([is_balanced(s) for s in x])) for name, x in sets.items()}
        return {"checked_by": "brackets and ring bonds only, no chemistry (RDKit is not installed)", **shares}
    from rdkit import __version__ as version

    known, found = set(canonical(train)), {}
    for suffix, strings in sets.items():
        valid = [text for text in canonical(strings) if text is not None]
        unique = list(dict.fromkeys(valid))
        found[f"validity{suffix}"] = len(valid) / len(strings)
        found[f"uniqueness{suffix}"] = len(unique) / max(1, len(valid))
        found[f"novelty{suffix}"] = sum(text not in known for text in unique) / max(1, len(unique))
        found[f"internal_diversity{suffix}"] = internal_diversity(unique) if unique else 0.0
    return {"checked_by": f"RDKit {version}", "count": float(len(samples)), **found}
