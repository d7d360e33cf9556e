"""Superposition, TM-score, lDDT and ligand measures, beside other programs and plain formulas."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from biotite.structure import AtomArray
from biotite.structure import lddt as biotite_lddt

from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.matching.ligands import LigandMatcher, LigandPair
from foldcp.pipeline.evaluation.measures.lddt import THRESHOLDS, lddt
from foldcp.pipeline.evaluation.measures.ligand_scores import (
    find_pocket,
    lddt_pli,
    ligand_rmsd,
)
from foldcp.pipeline.evaluation.measures.superposition import superposed_rmsd, superposition
from foldcp.pipeline.evaluation.measures.tm_score import complex_tm_score, tm_scale, tm_score
from foldcp.pipeline.evaluation.structures.chain import Chain, Structure
from tests.evaluation.synthetic import ligand, moved, noisy, polymer, rotation, without
from tests.evaluation.test_dockq import pair_of

# What TMscore 2019-08-22 (Zhang lab) prints for the same atoms.
TM_SCORES = {
    ("noise", 8): 0.1431,
    ("noise", 60): 0.803,
    ("noise", 300): 0.9594,
    ("hinge", 30): 0.3085,
    ("hinge", 150): 0.5134,
    ("walk", 60): 0.6414,
    ("walk", 300): 0.6371,
    ("noisier", 100): 0.3124,
    ("noisier", 400): 0.5779,
    ("copies", 200): 0.4869,
}


def _traces(kind: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a reference, as CA atoms."""
    chain = polymer("A", "A" * length, length)
    reference = chain.coords[chain.atom_names == "CA"]
    rng = np.random.default_rng(length)
    half = length // 2
    model = reference + rng.normal(0, 4 if kind == "noisier" else 0.8, reference.shape)
    if kind == "hinge":
        model[half:] = (model[half:] - model[half]) @ rotation(rng) + model[half]
    elif kind == "copies":  # two chains, one of which lies elsewhere
        model[half:] += 15
    elif kind == "walk":
        model = reference + np.cumsum(rng.normal(0, 0.6, reference.shape), axis=0)
    return (model @ rotation(rng) + 20).round(3), reference


@pytest.mark.parametrize(("kind", "length"), TM_SCORES)
def test_tm_score_is_that_of_tmscore(kind: str, length: int) -> None:
    model, reference = _traces(kind, length)
    found = tm_score(model, reference, length, tm_scale(length))
    assert found == pytest.approx(TM_SCORES[kind, length], abs=5e-4)


def test_tm_score_of_a_part_is_normalised_by_the_length() -> None:
    _, reference = _traces("noise", 60)
    assert tm_score(reference[:30], reference[:30], 60, tm_scale(60)) == pytest.approx(0.5)
    assert tm_score(reference[:2], reference[:2], 60, tm_scale(60)) == pytest.approx(2 / 60)
    assert np.isnan(tm_score(reference[:0], reference[:0], 60, 1.0))


def test_tm_scale_is_that_of_the_molecules() -> None:
    assert tm_scale(21) == 0.5
    assert tm_scale(100) == pytest.approx(1.24 * 85 ** (1 / 3) - 1.8)
    assert tm_scale(100, is_nucleic=True) == pytest.approx(0.6 * 99.5**0.5 - 2.5)
    assert tm_scale(12, is_nucleic=True) == 0.4


def test_tm_score_of_a_complex_takes_all_chains_together() -> None:
    chains = [polymer("A", "MKTAYIAKQR" * 4, 1), polymer("R", "ACGU" * 5, 2, "rna", (20, 0, 0))]
    rng = np.random.default_rng(3)
    matrix = rotation(rng)
    together = [pair_of(moved(chain, matrix, (9, 9, 9)), chain) for chain in chains]
    assert complex_tm_score(together) == pytest.approx(1, abs=1e-5)
    apart = [together[0], pair_of(moved(chains[1], matrix, (99, 9, 9)), chains[1])]
    assert complex_tm_score(apart) == pytest.approx(40 / 60, abs=0.02)


def test_superposition_finds_a_motion_and_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(0, 5, (20, 3))
    matrix = rotation(rng)
    moving = (target - 3) @ matrix.T
    found, shift = superposition(moving, target)
    np.testing.assert_allclose(found, matrix, atol=1e-9)
    np.testing.assert_allclose(shift, [3, 3, 3], atol=1e-9)
    mirrored = target * [1, 1, -1]
    assert superposed_rmsd(mirrored, target) > 1
    assert np.linalg.det(superposition(mirrored, target)[0]) == pytest.approx(1)


def _pairs(noise: float, letters: str = "MKTAAIAKQGSTPMNQCHW") -> list[ChainPair]:
    """Chains without symmetric side chains."""
    rng = np.random.default_rng(7)
    chains = [polymer("A", letters * 2, 1), polymer("B", letters, 2, center=(14, 0, 0))]
    return [pair_of(noisy(chain, rng, noise), chain) for chain in chains]


def _atoms(pairs: Sequence[ChainPair], of_model: bool) -> AtomArray:
    chains = [pair.model if of_model else pair.reference for pair in pairs]
    atoms = AtomArray(sum(len(chain.coords) for chain in chains))
    atoms.coord = np.concatenate([chain.coords for chain in chains])
    atoms.chain_id = np.concatenate([[chain.name] * len(chain.coords) for chain in chains])
    atoms.res_id = np.concatenate([chain.atom_residue + 1 for chain in chains])
    atoms.atom_name = np.concatenate([chain.atom_names for chain in chains])
    atoms.element = np.concatenate([chain.elements for chain in chains])
    return atoms


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.5, 5.0])
def test_lddt_is_that_of_biotite(noise: float) -> None:
    pairs = _pairs(noise)
    reference = _atoms(pairs, of_model=False)
    model = _atoms(pairs, of_model=True)
    found = lddt(pairs)
    assert found.all == pytest.approx(float(biotite_lddt(reference, model)), abs=1e-5)
    first = reference.chain_id == "A"
    interface = biotite_lddt(
        reference, model, atom_mask=first, partner_mask=~first, inclusion_radius=15
    )
    assert found.interfaces == pytest.approx(float(interface), abs=1e-5)
    assert found.by_pair == {(0, 1): pytest.approx(found.interfaces)}


def test_lddt_is_one_for_a_moved_structure_and_has_no_interface_of_one_chain() -> None:
    chain = polymer("A", "MKTAYIAKQRDEFLV", 1)
    found = lddt([pair_of(moved(chain, rotation(np.random.default_rng(1)), (5, 5, 5)), chain)])
    assert found.all == pytest.approx(1)
    assert np.isnan(found.interfaces)
    assert not found.by_pair


@pytest.mark.parametrize("code", ["R", "D", "E", "L", "F", "Y", "V"])
def test_lddt_exchanges_names_of_symmetric_atoms(code: str) -> None:
    reference = polymer("A", f"AKG{code}GKA", 4)
    swaps = {"NH1": "NH2", "OD1": "OD2", "OE1": "OE2", "CD1": "CD2", "CE1": "CE2", "CG1": "CG2"}
    swaps |= {second: first for first, second in swaps.items()}
    renamed = [
        swaps.get(name, name) if residue == 3 else name
        for name, residue in zip(reference.atom_names, reference.atom_residue, strict=True)
    ]
    assert renamed != reference.atom_names.tolist()
    model = replace(reference, atom_names=np.array(renamed))
    assert lddt([pair_of(model, reference)]).all == pytest.approx(1)


def test_lddt_of_phosphate_oxygens_ignores_their_names() -> None:
    reference = polymer("A", "ACGU", 4, "rna")
    swaps = {"OP1": "OP2", "OP2": "OP1"}
    model = replace(reference, atom_names=np.array([swaps.get(n, n) for n in reference.atom_names]))
    assert lddt([pair_of(model, reference)]).all == pytest.approx(1)


def test_lddt_counts_only_common_atoms() -> None:
    reference = polymer("A", "MKTAAIAKQGSTP", 1)
    model = without(reference, [0, 5])
    assert lddt([pair_of(model, without(reference, [7]))]).all == pytest.approx(1)


def _ligand_pair(model: Chain, reference: Chain) -> LigandPair | None:
    structures = [Structure((chain,), {}) for chain in (model, reference)]
    return LigandMatcher(*structures).match(model, reference)


def _swapped(chain: Chain, swaps: dict[str, str]) -> Chain:
    """The chain with other names of atoms."""
    both = swaps | {second: first for first, second in swaps.items()}
    return replace(chain, atom_names=np.array([both.get(name, name) for name in chain.atom_names]))


def test_ligand_measures_are_best_over_symmetries() -> None:
    receptor = polymer("A", "MKTAYIAKQRDEFLVGHNWS" * 2, 3)
    benzoate = ligand("L", "BEZ", 4, center=(9, 0, 0))
    pocket = find_pocket(benzoate, [pair_of(receptor, receptor)])
    assert pocket is not None
    turned = _swapped(benzoate, {"C2": "C6", "C3": "C5"})
    mirrored = _swapped(turned, {"O1": "O2"})
    for model in (benzoate, turned, mirrored):
        pair = _ligand_pair(model, benzoate)
        assert pair is not None
        assert len(pair.model_atoms) == 4
        assert ligand_rmsd(pair, pocket) == pytest.approx(0, abs=1e-6)
        assert lddt_pli(pair, pocket) == pytest.approx(1)
    shifted = _ligand_pair(moved(benzoate, np.eye(3), (0, 3, 0)), benzoate)
    assert shifted is not None
    assert ligand_rmsd(shifted, pocket) == pytest.approx(3, abs=1e-3)
    assert lddt_pli(shifted, pocket) == pytest.approx(_plain_lddt_pli(shifted, receptor), abs=1e-6)


def _plain_lddt_pli(pair: LigandPair, receptor: Chain) -> float:
    """Over all pairs of atoms and all mappings, the receptor being predicted as it is."""
    best = 0.0
    for mapping in pair.model_atoms:
        shares = []
        for atom, predicted in zip(pair.reference_atoms, mapping, strict=True):
            for place in receptor.coords:
                distance = np.linalg.norm(pair.reference.coords[atom] - place)
                if distance < 6:
                    other = np.linalg.norm(pair.model.coords[predicted] - place)
                    shares.append(np.mean([abs(other - distance) < t for t in THRESHOLDS]))
        best = max(best, float(np.mean(shares)))
    return best


def test_ligands_match_by_component_by_graph_or_not_at_all() -> None:
    atp = ligand("L", "ATP", 1)
    unresolved = replace(
        atp,
        atom_names=atp.atom_names[5:],
        elements=atp.elements[5:],
        atom_residue=atp.atom_residue[5:],
        coords=atp.coords[5:],
    )
    part = _ligand_pair(atp, unresolved)
    assert part is not None
    assert len(part.reference_atoms) == len(atp.coords) - 5
    assert _ligand_pair(atp, ligand("L", "ADP", 1)) is None
    zinc = _ligand_pair(ligand("Z", "ZN", 1), ligand("Z", "ZN", 2))
    assert zinc is not None
    benzoate = ligand("L", "BEZ", 1)
    names = {name: f"X{number}" for number, name in enumerate(benzoate.atom_names)}
    unnamed = replace(
        benzoate, codes=("LIG1",), atom_names=np.array([names[n] for n in benzoate.atom_names])
    )
    bonds = frozenset(
        (names[a], names[b])
        for a, b in itertools.combinations(benzoate.atom_names, 2)
        if np.linalg.norm(
            benzoate.coords[benzoate.atom_names == a] - benzoate.coords[benzoate.atom_names == b]
        )
        < 1.8
    )
    matcher = LigandMatcher(Structure((unnamed,), {"LIG1": bonds}), Structure((benzoate,), {}))
    found = matcher.match(unnamed, benzoate)
    assert found is not None
    assert len(found.model_atoms) == 4
    other = replace(unnamed, codes=("LIG2",))
    for reference in (benzoate, other):  # without bonds on one side, and on both
        matcher = LigandMatcher(Structure((unnamed,), {}), Structure((reference,), {}))
        assert matcher.match(unnamed, reference) is None
