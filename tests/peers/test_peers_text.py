"""Text and molecule metrics against mauve-text, NLTK and RDKit."""

import importlib

import numpy as np
import pytest
from nltk.translate import bleu_score
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from genjax.data.text.smiles import is_balanced
from genjax.metrics.text.mauve import divergence_curve, mauve
from genjax.metrics.text.molecules import canonical, internal_diversity, molecule_report
from genjax.metrics.text.overlap import corpus_bleu

pytestmark = pytest.mark.peers
RNG = np.random.default_rng(0)


def test_mauve_matches_mauve_text():
    """Well-separated clusters, which every k-means finds; and the divergence curve of random counts."""
    angles = 2 * np.pi * np.arange(5) / 5
    centres = 10 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    p, q = (centres[RNG.choice(5, 300, p=RNG.dirichlet(np.ones(5)))] for _ in range(2))
    p, q = (x + RNG.normal(size=x.shape) * 0.1 for x in (p, q))
    program = importlib.import_module("mauve.compute_mauve")  # shadowed by a function of the package
    theirs = program.compute_mauve(p_features=p, q_features=q, num_buckets=5, verbose=False)
    ours = mauve(p, q, cells=5)
    assert ours.score == pytest.approx(theirs.mauve, abs=1e-9)
    assert ours.smoothed == pytest.approx(theirs.mauve_star, abs=1e-9)
    counts = RNG.integers(0, 9, size=(2, 40))
    h = counts / counts.sum(axis=1, keepdims=True)
    curve = program.get_divergence_curve_for_multinomials(h[0], h[1], np.linspace(1e-6, 1 - 1e-6, 25), 5)
    np.testing.assert_allclose(divergence_curve(counts[0], counts[1]), curve, atol=1e-12)


def test_bleu_matches_nltk():
    words = ["the", "cat", "sat", "on", "a", "mat"]
    texts = [[" ".join(RNG.choice(words, size=size)) for size in RNG.integers(8, 15, 30)] for _ in range(3)]
    references = [list(pair) for pair in zip(texts[1], texts[2], strict=True)]
    expected = bleu_score.corpus_bleu(
        [[r.split() for r in some] for some in references], [t.split() for t in texts[0]]
    )
    assert corpus_bleu(texts[0], references) == pytest.approx(100 * expected)


def test_molecule_report_uses_rdkit():
    """Two SMILES of toluene; a ring that cannot be aromatic and a carbon with five bonds, both balanced."""
    made = ["Cc1ccccc1", "c1ccccc1C", "CCO", "c1cccc1", "C(C)(C)(C)(C)C", "C(", "", "CC"]
    report = molecule_report(made, train=["OCC"], test=["CCCO", "CCCN", "X"])
    assert report["validity"] == 4 / 8
    assert report["uniqueness"] == 3 / 4
    assert report["novelty"] == 2 / 3
    assert report["validity_reference"] == 2 / 3
    assert report["novelty_reference"] == report["uniqueness_reference"] == 1.0
    assert report["checked_by"].startswith("RDKit 20")
    assert canonical(made)[0] == canonical(made)[1]
    nothing = molecule_report(["C(", ""], train=["C"], test=["C"])
    assert nothing["validity"] == nothing["uniqueness"] == nothing["novelty"] == 0.0
    assert nothing["internal_diversity"] == 0.0


def test_valid_smiles_are_balanced():
    """Mutated SMILES: no valid one may be reported as unbalanced."""
    base = ["Cc1ccc(CNc2ncnc(N3C[C@@]4(C)C[C@@H]3CC(C)(C)C4)c2N)cc1", "C[NH+]1CC%10CC1C%10"]
    letters = list("CNOcn123()[]=#+-@H%")
    made = list(base)
    for text in base:
        for _ in range(2000):
            characters = list(text)
            for _ in range(RNG.integers(1, 3)):
                characters[RNG.integers(len(characters))] = RNG.choice(letters)
            made.append("".join(characters))
    valid = [text for text, found in zip(made, canonical(made), strict=True) if found]
    assert 100 < len(valid) < len(made)
    assert all(is_balanced(text) for text in valid)


def test_internal_diversity_is_one_minus_the_mean_tanimoto():
    smiles = ["CCO", "CCN", "c1ccccc1", "CC(=O)O"]
    generator = GetMorganGenerator(radius=2, fpSize=2048)
    bits = [set(generator.GetFingerprint(Chem.MolFromSmiles(text)).GetOnBits()) for text in smiles]
    expected = 1 - np.mean([len(a & b) / len(a | b) for a in bits for b in bits])
    assert internal_diversity(smiles) == pytest.approx(expected)
    assert internal_diversity(["CCO", "OCC"]) == pytest.approx(0.0)
