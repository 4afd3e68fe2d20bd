"""Molecules without chemistry: bracket matching, and no validity without RDKit (see tests/peers)."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.data import Data, Smiles
from genjax.data.text.smiles import is_balanced
from genjax.evaluation.evaluate import evaluate
from genjax.evaluation.text import text_metrics
from genjax.metrics.text import molecules
from genjax.networks.transformers.token_transformer import gpt2
from genjax.training import experiment, loop
from genjax.training.experiment import Evaluation

GOOD = [
    "C",
    "c1ccccc1",
    "C[C@@H]1CC(=O)N1",
    "C%12CC%12",
    "[13CH4]",
    "C(C(C)C)C",
    "C1CC1C1CC1",
    "[O-][N+](=O)C",
    "C.C",
]
BAD = ["", "C1CC", "C(C", "C)C", "C()C", "[CH4", "CH4]", "C%12CC%1", "[]", "[[C]]", "C)(C", "c1ccccc2"]


@pytest.mark.parametrize(("texts", "balanced"), [(GOOD, True), (BAD, False)])
def test_brackets_and_ring_bonds_match(texts, balanced):
    assert [is_balanced(text) for text in texts] == [balanced] * len(texts)


def test_digits_in_brackets_are_not_ring_bonds():
    assert is_balanced("[13C]1CC1")
    assert not is_balanced("[13C]CC1")


def test_molecules_are_embedded():
    train, test = Smiles().documents("train"), Smiles().documents("test")
    assert len(set(train + test)) == 25
    assert len(test) > 1
    assert all(map(is_balanced, train + test))


def test_without_rdkit_no_validity_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    report = molecules.molecule_report([*GOOD, *BAD, "C(C)(C)(C)(C)C"], GOOD, GOOD)
    assert report["balanced"] == (len(GOOD) + 1) / (len(GOOD) + len(BAD) + 1)
    assert report["balanced_reference"] == 1.0
    assert "RDKit is not installed" in report["checked_by"]
    assert not [name for name in report if "valid" in name]
    for call in (molecules.canonical, molecules.internal_diversity):
        with pytest.raises(UserError, match=r"\A[^\n]* needs rdkit, of the extra .science.[^\n]*\Z"):
            call(["C"])
    path = tmp_path / "smiles.txt"
    path.write_text("\n".join("C" * n + end for n in range(1, 40) for end in ("", "O", "N")))
    data = Data(Smiles(str(path), length=48))
    found = text_metrics(data, data.load("train")[np.arange(20)]["x"], 0)
    assert found["molecules"]["balanced"] == 1.0
    assert found["text"]["unit"] == "character"


def test_shares_follow_the_formulas(monkeypatch):
    """With a fake RDKit on letters: upper case is canonical, "?" is invalid."""
    library = types.ModuleType("rdkit")
    library.Chem, library.__version__ = types.ModuleType("rdkit.Chem"), "of letters"
    monkeypatch.setitem(sys.modules, "rdkit", library)
    monkeypatch.setattr(
        molecules, "canonical", lambda texts: [None if s == "?" else s.upper() for s in texts]
    )
    monkeypatch.setattr(molecules, "internal_diversity", lambda texts: len(texts) / 10)
    train, test = ["C", "n", "?"], ["o", "f", "s", "c", "S", "O", "?"]
    assert molecules.molecule_report(["c", "C", "n", "o", "?", "f"], train, test) == {
        "checked_by": "RDKit of letters",
        "count": 6.0,
        "validity": 5 / 6,
        "uniqueness": 4 / 5,
        "novelty": 2 / 4,
        "internal_diversity": 0.4,
        "validity_reference": 1.0,
        "uniqueness_reference": 4 / 6,
        "novelty_reference": 3 / 4,
        "internal_diversity_reference": 0.4,
    }
    assert molecules.molecule_report(["?"], train, test)["novelty"] == 0.0


def test_molecules_need_samples_and_an_existing_file():
    with pytest.raises(UserError, match="0 samples and 1"):
        molecules.molecule_report([], [], ["C"])
    with pytest.raises(UserError, match="cannot read the text file 'none"):
        Smiles("none.txt").load("train")


@pytest.mark.slow
def test_an_evaluation_of_molecules_has_all_sections(monkeypatch):
    """An untrained network with the shipped config; SMILES are ASCII, so a byte is a character."""
    monkeypatch.setitem(sys.modules, "rdkit", None)
    shipped = experiment.load("ar_smiles")
    small = dataclasses.replace(
        shipped.objective, net=gpt2(depth=1, width=16, heads=2, position="rotary", extra=1)
    )
    how = Evaluation(num=8, batch_size=8)
    run = loop.prepare(dataclasses.replace(shipped, objective=small, evaluation=how, batch_size=8))
    report, _ = evaluate(run.experiment, run.make_state(), run.mesh)
    likelihood = report["likelihood"]
    assert likelihood["bits_per_byte"] == pytest.approx(likelihood["nats_per_token"] / np.log(2))
    assert likelihood["perplexity"] == pytest.approx(np.exp(likelihood["nats_per_token"]))
    assert set(report["molecules"]) == {"checked_by", "balanced", "balanced_reference"}
    assert set(report["documents"]) == {"unique", "novel", "in_test"}
    assert report["text"] == {}, "three test molecules are too few"
