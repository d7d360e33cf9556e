"""A prediction beside its reference: assignment of chains, and what a reference may differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from foldcp.pipeline.evaluation.sample import Reference, SampleEvaluation, evaluate_sample
from foldcp.pipeline.evaluation.structures.chain import Chain, Structure
from foldcp.pipeline.evaluation.structures.read import read_structure
from tests.evaluation.dockq_cases import BASES, FIRST, SECOND
from tests.evaluation.synthetic import (
    ligand,
    moved,
    noisy,
    polymer,
    rotation,
    turned,
    without,
    write_cif,
)

IDENTITY = 0.8
RIBOSOME = Path(__file__).parents[2] / "../shared/data/structures/6zu5.cif.gz"


def _dimer() -> list[Chain]:
    return [polymer("A", FIRST, 1), polymer("B", SECOND, 51, center=(15, 0, 0))]


def _evaluate(model: Sequence[Chain], reference: Sequence[Chain]) -> SampleEvaluation:
    structures = [Structure(tuple(chains), {}) for chains in (model, reference)]
    return evaluate_sample(structures[0], Reference(structures[1]), IDENTITY)


def _assert_perfect(found: SampleEvaluation, num_interfaces: int) -> None:
    assert found.columns["num_interfaces"] == num_interfaces
    assert len(found.interfaces) == num_interfaces
    for row in found.interfaces:
        assert row["dockq"] == pytest.approx(1, abs=1e-5)
        assert row["interface_lddt"] == pytest.approx(1)
        assert row["dockq_class"] == "high"
    for name in ("dockq_mean", "dockq_min", "tm_score", "lddt", "interface_lddt"):
        assert found.columns[name] == pytest.approx(1, abs=1e-4), name
    assert found.columns["rmsd"] == pytest.approx(0, abs=2e-3)


def test_a_moved_copy_is_perfect() -> None:
    chains = _dimer()
    matrix = rotation(np.random.default_rng(0))
    found = _evaluate([moved(chain, matrix, (50, 1, 2)) for chain in chains], chains)
    _assert_perfect(found, 1)
    assert found.columns["matched_chains"] == ["A=A", "B=B"]
    *turn, x, y, z = found.columns["reference_superposition"]
    np.testing.assert_allclose(np.reshape(turn, (3, 3)), matrix, atol=1e-5)
    np.testing.assert_allclose((x, y, z), (50, 1, 2), atol=1e-3)
    assert found.columns["num_matched_residues"] == len(FIRST) + len(SECOND)
    assert found.columns["min_sequence_identity"] == 1
    row = found.interfaces[0]
    assert (row["chain_a"], row["chain_b"]) == ("A", "B")
    assert row["num_contacts"] == row["num_reference_contacts"] > 0


def test_a_shifted_chain_has_the_lrmsd_of_the_shift() -> None:
    chains = _dimer()
    found = _evaluate([chains[0], moved(chains[1], np.eye(3), (0, 0, 30))], chains)
    row = found.interfaces[0]
    assert row["lrmsd"] == pytest.approx(30, abs=1e-3)  # B is the shorter one
    assert row["fnat"] < 0.2
    assert row["dockq_class"] == "incorrect"
    assert found.columns["lddt"] > 0.5
    assert found.columns["interface_lddt"] < 0.1


def test_extra_and_missing_chains_are_counted_and_left_out() -> None:
    chains = _dimer()
    other = polymer("C", "WWPHHCNNDEGGRRTYKLSAAM", 9, center=(8, 12, 0))
    found = _evaluate(chains, [other, *chains])
    _assert_perfect(found, 1)
    assert found.columns["num_reference_chains"] == 3
    assert found.columns["num_chains"] == found.columns["num_matched_chains"] == 2
    found = _evaluate([*chains, other], chains)
    _assert_perfect(found, 1)
    assert found.columns["num_chains"] == 3


def test_missing_residues_other_numbers_and_names_do_not_matter(tmp_path: Path) -> None:
    chains = _dimer()
    resolved = [without(chains[0], [0, 1, *range(20, 31)]), without(chains[1], [41])]
    renamed = [replace(chain, name=f"H{chain.name}") for chain in resolved]
    for with_sequences in (True, False):
        path = write_cif(tmp_path / "r.cif", renamed, 301, with_sequences, ["X", "Y"])
        reference = read_structure(path, "label")
        if with_sequences:
            assert reference.chains[0].letters == FIRST
        found = _evaluate(chains, reference.chains)
        _assert_perfect(found, 1)
        assert found.columns["matched_chains"] == ["A=HA", "B=HB"]
        assert found.columns["num_matched_residues"] == len(FIRST) - 13 + len(SECOND) - 1


def test_modified_residues_are_their_parents() -> None:
    chains = _dimer()
    codes = ["MSE" if code == "MET" else code for code in chains[0].codes]
    selenium = [{"SD": "SE"}.get(name, name) for name in chains[0].atom_names]
    modified = replace(chains[0], codes=tuple(codes), atom_names=np.array(selenium))
    found = _evaluate(chains, [modified, chains[1]])
    _assert_perfect(found, 1)
    assert found.columns["min_sequence_identity"] == 1


def test_mutations_lower_the_identity_until_the_chain_is_another() -> None:
    chains = _dimer()
    few = polymer("A", FIRST[:10] + "WWW" + FIRST[13:], 1)
    found = _evaluate(chains, [few, chains[1]])
    assert found.columns["min_sequence_identity"] == pytest.approx(1 - 3 / len(FIRST))
    assert found.columns["num_matched_chains"] == 2
    half = polymer("A", FIRST[: len(FIRST) // 2] + "W" * (len(FIRST) // 2), 1)
    assert _evaluate(chains, [half, chains[1]]).columns["num_matched_chains"] == 1
    with pytest.raises(
        ValueError, match=r"no chain has a sequence .* \(identity of at least 0.8\)"
    ):
        _evaluate(chains[:1], [half])


def test_dna_and_rna_are_compared_as_proteins_are() -> None:
    chains = [
        polymer("A", FIRST, 1),
        polymer("D", BASES, 2, "dna", (10, 8, 0)),
        polymer("R", BASES.replace("T", "U"), 3, "rna", (10, -8, 0)),
    ]
    found = _evaluate(chains, chains)
    _assert_perfect(found, 3)
    kinds = {(row["molecule_type_a"], row["molecule_type_b"]) for row in found.interfaces}
    assert kinds == {("protein", "dna"), ("protein", "rna"), ("dna", "rna")}


def test_equal_chains_are_exchanged_where_that_is_better() -> None:
    a = polymer("A", FIRST, 1)
    copies = [a, replace(moved(a, np.diag([1, -1, -1]), (12, 3, 4)), name="B")]
    other = polymer("C", SECOND, 51, center=(15, 0, 0))
    reference = [*copies, other]
    model = [
        replace(copies[1], name="A"), replace(copies[0], name="B"), other,
    ]  # fmt: skip
    found = _evaluate(model, reference)
    assert found.columns["matched_chains"] == ["A=B", "B=A", "C=C"]
    _assert_perfect(found, found.columns["num_interfaces"])
    fewer = _evaluate([model[1], model[2]], reference)
    assert fewer.columns["matched_chains"] == ["B=A", "C=C"]
    _assert_perfect(fewer, 1)


@pytest.mark.parametrize(("group", "radius"), [("D3", 6), ("C7", 18), ("O", 38)])
def test_copies_of_a_ring_or_shell_find_their_places(group: str, radius: float) -> None:
    rng = np.random.default_rng(3)
    chain = polymer("A", FIRST, 3, center=(radius, 6, 12))
    matrices = Rotation.create_group(group).as_matrix()
    reference = [
        replace(moved(chain, matrix, (0, 0, 0)), name=f"A{n}") for n, matrix in enumerate(matrices)
    ]
    order = rng.permutation(len(reference)).tolist()
    model = [noisy(turned(reference[n], rng, 0.1, 1.0), rng, 0.3) for n in order]
    exact = _evaluate([reference[n] for n in order], reference)
    _assert_perfect(exact, exact.columns["num_interfaces"])
    assert exact.columns["num_matched_chains"] == len(reference)
    near = _evaluate(model, reference)
    assert near.columns["dockq_mean"] > 0.5


def test_many_unequal_pairs_of_copies_are_assigned_together() -> None:
    """Sixteen kinds of two copies each: 65,536 assignments, of which two are right."""
    letters = [polymer("x", FIRST[n:] + SECOND[n:], n).letters for n in range(16)]
    half = [
        polymer(f"a{n}", text[::-1] if n % 2 else text, n, center=(20 * (n % 4), 20 * (n // 4), 14))
        for n, text in enumerate(letters)
    ]
    other = [replace(moved(c, np.diag([-1, 1, -1]), (60, 0, 0)), name=f"b{c.name}") for c in half]
    reference = [*half, *other]
    rng = np.random.default_rng(0)
    model = [reference[n] for n in rng.permutation(len(reference))]
    found = _evaluate(model, reference)
    assert found.columns["num_matched_chains"] == 32
    assert found.columns["dockq_min"] == pytest.approx(1, abs=1e-4)


def test_ligands_have_rows_with_the_chains_that_they_touch() -> None:
    chains = _dimer()
    heme = ligand("L", "HEM", 3, center=(7, 6, 6))
    far = ligand("F", "HEM", 4, center=(90, 0, 0))
    buffer = ligand("G", "GOL", 5, center=(0, 9, 0))
    found = _evaluate([heme, *chains], [*chains, buffer, far, heme])
    rows = [row for row in found.interfaces if row["molecule_type_b"] == "ligand"]
    assert {row["chain_a"] for row in rows} == {"A", "B"}
    for row in rows:
        assert row["chain_b"] == "L"
        assert row["reference_chain_b"] == "L"
        assert row["ligand_rmsd"] == pytest.approx(0, abs=1e-3)
        assert row["lddt_pli"] == pytest.approx(1)
        assert "dockq" not in row
    assert found.columns["num_ligands"] == 1
    assert found.columns["ligand_rmsd"] == pytest.approx(0, abs=1e-3)
    assert found.columns["lddt_pli"] == pytest.approx(1)
    assert found.columns["num_interfaces"] == 1
    assert found.columns["matched_chains"] == ["L=L", "A=A", "B=B"]


def test_equal_ligands_are_assigned_to_the_nearest() -> None:
    chains = _dimer()
    first = ligand("L1", "ATP", 3, center=(7, 6, 6))
    second = ligand("L2", "ATP", 4, center=(7, -8, -6))
    found = _evaluate([*chains, second, first], [*chains, first, second])
    assert found.columns["matched_chains"] == ["A=A", "B=B", "L2=L2", "L1=L1"]
    assert found.columns["ligand_rmsd"] == pytest.approx(0, abs=1e-3)
    far = moved(second, np.eye(3), (0, 0, 4))
    found = _evaluate([*chains, far, first], [*chains, first, second])
    assert found.columns["ligand_rmsd"] == pytest.approx(2, abs=1e-3)


@pytest.mark.skipif(not RIBOSOME.exists(), reason="shared/data/structures/6zu5.cif.gz is not here")
def test_a_ribosome_with_noise_is_compared_with_itself() -> None:
    """About a minute: 14,218 residues, 74 polymers, 188 ligands."""
    reference = read_structure(RIBOSOME, "label")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(reference.chains)).tolist()
    model = [noisy(reference.chains[n], rng, 0.5) for n in order]
    found = _evaluate(model, reference.chains)
    assert found.columns["num_matched_chains"] == 74
    assert all(len(set(ends.split("="))) == 1 for ends in found.columns["matched_chains"])
    assert found.columns["tm_score"] > 0.99
    assert 0.8 < found.columns["lddt"] < 0.9
    assert found.columns["num_interfaces"] > 200
    assert found.columns["dockq_mean"] > 0.85
