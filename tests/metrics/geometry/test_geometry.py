"""Scores of coordinates alone: clashes, surfaces, disorder, stereochemistry, and the atoms of
contacts.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from biotite.structure import AtomArray
from biotite.structure.sasa import sasa  # type: ignore[import-not-found]  # compiled

from foldcp.complex import Chain, Complex
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.layout import Layout
from foldcp.kernels import exposed_surface
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.exposed_surface import reference
from foldcp.metrics.geometry import atoms as geometry_atoms
from foldcp.metrics.geometry.atoms import (
    MAX_CONTACT,
    MAX_NEIGHBOURS,
    StructureAtoms,
    backbone_atoms,
    near_pairs,
    near_pairs_of_all,
)
from foldcp.metrics.geometry.bonds import salt_bridges
from foldcp.metrics.geometry.clashes import clashes
from foldcp.metrics.geometry.contact_atoms import modified_contact_atoms
from foldcp.metrics.geometry.geometry import UNKNOWN, geometry
from foldcp.metrics.geometry.stereochemistry import chiral_centers, stereochemistry
from foldcp.metrics.geometry.structure_scores import structure_scores
from foldcp.metrics.geometry.surface import (
    Surfaces,
    accessible_spheres,
    atom_radii,
    fraction_disordered,
    surfaces,
)
from foldcp.metrics.geometry.token_contacts import (
    are_polar,
    contact_elements,
    residue_ranges,
    token_contacts,
)
from tests.metrics.interface.generated_cases import generated_case
from tests.support.metrics_reference import coords_of, features_of, synthetic_layout


def ligands(*sizes: int) -> Layout:
    return synthetic_layout([("ligand", size) for size in sizes])


def ideal(features: Features, seed: int = 0) -> np.ndarray:
    """The reference conformers, each moved to a place of its own."""
    rng = np.random.default_rng(seed)
    num_atoms = len(features.layout.atom_token)
    residue = features.ref_space_uid[:num_atoms].numpy()
    return features.ref_pos[:num_atoms].double().numpy() + 50 * rng.uniform(size=(999, 3))[residue]


def test_near_pairs_are_all_pairs_within_the_cutoff() -> None:
    x = np.random.default_rng(1).uniform(0, 12, (80, 3))
    found = near_pairs(x, 3.0, 99)
    assert found is not None
    pairs = found.on_host()
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    expected = np.argwhere(np.triu(distance <= 3, 1))
    np.testing.assert_array_equal(np.stack([pairs.first, pairs.second], 1), expected)
    np.testing.assert_allclose(pairs.distance, distance[tuple(expected.T)])


def test_a_heap_of_atoms_and_coordinates_that_are_not_finite_have_no_pairs() -> None:
    layout = ligands(30, 30)
    points = np.random.default_rng(0).normal(size=(60, 3))
    assert near_pairs(points, MAX_CONTACT, MAX_NEIGHBOURS) is not None
    assert near_pairs(points, MAX_CONTACT, 20) is None
    points[3, 1] = np.nan
    assert near_pairs(points, MAX_CONTACT, MAX_NEIGHBOURS) is None
    assert clashes(StructureAtoms(layout, points)) is None


@pytest.mark.parametrize(("distances", "origin"), [(1 << 24, 0.0), (700, 1e6)])
def test_near_pairs_by_all_distances_are_those_of_the_tree(
    distances: int, origin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; and a few atoms at a time, where single precision is off by 0.06 Å."""
    monkeypatch.setattr(geometry_atoms, "MAX_DISTANCES", distances)
    points = np.random.default_rng(3).uniform(0, 12, (150, 3)) + origin
    expected = near_pairs(points, 3.0, 99)
    found = near_pairs_of_all(points, 3.0, 99, "cpu")
    assert expected is not None and found is not None
    assert torch.equal(found.first, expected.first)
    assert torch.equal(found.second, expected.second)
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-14, atol=0)
    assert near_pairs_of_all(points, 12.0, 20, "cpu") is None


def test_clashes_are_found_among_the_pairs_within_a_larger_distance() -> None:
    layout = synthetic_layout([("protein", 60), ("protein", 60)])
    atoms = StructureAtoms(layout, np.random.default_rng(0).uniform(0, 9, (480, 3)))
    found = clashes(atoms, near_pairs(atoms.coords, 3.0, 10_000))
    expected = clashes(atoms)
    assert found is not None and expected is not None
    assert found.has_clash == expected.has_clash
    assert np.array_equal(found.atoms, expected.atoms)
    assert np.array_equal(found.pairs, expected.pairs) and found.pairs.sum() > 0
    heap = StructureAtoms(layout, atoms.coords / 50)
    crowded = clashes(heap, near_pairs(heap.coords, 3.0, 10_000))
    assert crowded is not None and np.isnan(crowded.pairs).all()


def test_clashes_are_those_of_alphafold_3_and_of_chai() -> None:
    """Counted pair by pair, at the cutoff and with the two thresholds of a chain."""
    case = generated_case(8, "mixed")
    found = clashes(StructureAtoms(case.layout, case.coords))
    assert found is not None
    distance = np.linalg.norm(case.coords[:, None] - case.coords, axis=-1)
    chain = case.layout.token_chain[case.layout.atom_token]
    residue = case.layout.token_residue[case.layout.atom_token]
    polymer = np.array(case.layout.chain_kinds)[chain] != "ligand"
    apart = (chain[:, None] != chain) | (np.abs(residue[:, None] - residue) > 1)
    clash = (distance <= 1.1) & apart & polymer[:, None] & polymer
    number = np.array([clash.any(1)[chain == c].sum() for c in range(5)])
    share = number / np.bincount(chain)
    assert found.has_clash == bool(((number > 100) | (share > 0.5)).any())
    for a in range(5):
        for b in range(5):
            block = distance[np.ix_(chain == a, chain == b)]
            if a != b:
                assert found.pairs[a, b] == (block < 1.1).sum()
                polymers = "ligand" not in (case.layout.chain_kinds[a], case.layout.chain_kinds[b])
                assert found.atoms[a, b] == polymers * (block <= 1.1).any(1).sum()


@pytest.mark.parametrize(("num_overlapping", "expected"), [(101, True), (100, False)])
def test_a_chain_clashes_from_101_atoms_on(num_overlapping: int, expected: bool) -> None:
    layout = synthetic_layout([("protein", 60), ("protein", 60)])
    points = np.zeros((480, 3))
    points[:, 0] = 10.0 * np.arange(480)
    points[240 : 240 + num_overlapping] = points[:num_overlapping] + np.array([0, 0, 1.0])
    found = clashes(StructureAtoms(layout, points))
    assert found is not None and found.has_clash == expected
    points[240 : 240 + num_overlapping, 2] = 1.2
    found = clashes(StructureAtoms(layout, points))
    assert found is not None and not found.has_clash


def surfaces_of(
    atoms: StructureAtoms, radii: np.ndarray | None = None, device: str = "cpu"
) -> Surfaces:
    near = near_pairs(atoms.coords, MAX_CONTACT, MAX_NEIGHBOURS, device)
    assert near is not None
    exposed = exposed_surface.choose(choose_backend("auto", torch.device(device)))
    spheres = accessible_spheres(atoms, atom_radii(atoms.layout) if radii is None else radii, near)
    between = near.where(spheres.chain[near.first] != spheres.chain[near.second])
    return surfaces(atoms, spheres, between, exposed)


def test_surfaces_are_those_of_biotite(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same 400 points a sphere; a point on the edge of one may fall either way."""
    case = generated_case(2, "mixed")
    atoms = StructureAtoms(ligands(len(case.coords)), case.coords)
    radii = atom_radii(atoms.layout)
    array = AtomArray(len(case.coords))
    array.coord = case.coords.astype(np.float32)
    array.set_annotation("element", np.full(len(case.coords), "C"))
    expected = sasa(
        array, 1.4, ignore_ions=False, point_number=400, vdw_radii=radii.astype(np.float32)
    )
    assert 0 < (expected == 0).mean() < 1
    for max_points in (1 << 24, 1 << 17, 1):  # one chunk, some, and one for each atom
        monkeypatch.setitem(reference.MAX_POINTS, "cpu", max_points)
        found = surfaces_of(atoms).alone
        assert np.abs(found - expected).max() < 3 * 4 * np.pi * 3.2**2 / 400


def test_surfaces_of_two_atoms_are_those_of_spheres() -> None:
    layout = ligands(1, 1)
    radius = 1.8 + 1.4
    for distance in (3.0, 5.0, 6.3, 6.5, 7.0):  # of which the last has no neighbours
        atoms = StructureAtoms(layout, np.array([[0.0, 0, 0], [0.6 * distance, 0.8 * distance, 0]]))
        found = surfaces_of(atoms)
        np.testing.assert_allclose(found.alone, 4 * np.pi * radius**2, rtol=1e-5)
        cap = 2 * np.pi * radius * max(0, radius - distance / 2)
        np.testing.assert_allclose(found.buried, [[0, cap], [cap, 0]], atol=0.01 * found.alone[0])


def test_buried_surface_is_the_difference_of_three_surfaces() -> None:
    case = generated_case(1, "mixed")
    atoms = StructureAtoms(case.layout, case.coords)
    found = surfaces_of(atoms)
    alone, buried = found.alone, found.buried
    assert (buried[~np.eye(3, dtype=bool)] > 0).any()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        together = np.isin(atoms.chain, (a, b))
        layout = synthetic_layout([("ligand", int(together.sum()))])
        pair = StructureAtoms(layout, case.coords[together])
        of_both = surfaces_of(pair, atom_radii(atoms.layout)[together]).alone.sum()
        expected = alone[together].sum() - of_both
        assert buried[a, b] + buried[b, a] == pytest.approx(expected, abs=1e-2)


def test_chains_that_run_through_each_other_have_no_buried_surface() -> None:
    """Two in a ball, a small one in a large one, and one that begins beside it."""
    ball = np.random.default_rng(0).normal(size=(120, 3)) * 0.5
    line = np.stack([5 + 1.5 * np.arange(60), np.zeros(60), np.zeros(60)], 1)
    atoms = StructureAtoms(ligands(30, 90, 60), np.concatenate([ball, line]))
    found = surfaces_of(atoms)
    assert np.isfinite(found.alone).all()
    expected = np.zeros((3, 3), dtype=bool)
    expected[[0, 1], [1, 0]] = True
    assert np.array_equal(np.isnan(found.buried), expected)
    assert (found.buried[[0, 1, 2, 2], [2, 2, 0, 1]] > 1).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_surfaces_of_a_gpu_are_those_of_the_reference() -> None:
    """Of six chains, two of which run through each other, far from the origin, and an atom that
    touches none. A point on the edge of a sphere may fall either way.
    """
    case = generated_case(2, "mixed")
    coords = np.concatenate([case.coords + 1e4, [[0.0, 0, 0]]])
    sizes = np.diff(np.linspace(0, len(coords), 7).astype(int))
    atoms = StructureAtoms(ligands(*sizes.tolist()), coords)
    found, expected = surfaces_of(atoms, device="cuda"), surfaces_of(atoms)
    point = 4 * np.pi * 3.3**2 / 400
    assert np.abs(found.alone - expected.alone).max() < 2 * point
    assert np.abs(found.alone - expected.alone).sum() < 10 * point
    assert np.array_equal(np.isnan(found.buried), np.isnan(expected.buried))
    assert np.nanmax(expected.buried) > 10 * point
    np.testing.assert_allclose(found.buried, expected.buried, atol=2 * point)


def test_surfaces_of_scattered_atoms_take_no_memory_for_the_space_between() -> None:
    cluster = (
        np.random.default_rng(0).permutation(np.indices((4, 4, 4)).reshape(3, -1).T)[:30] * 2.0
    )
    coords = np.concatenate([cluster, [[-1e6, 0, 0]], cluster + 1e6])
    atoms = StructureAtoms(ligands(len(coords)), coords)
    found = surfaces_of(atoms).alone
    one = StructureAtoms(ligands(30), cluster)
    expected = surfaces_of(one).alone
    assert expected.min() < 0.5 * expected.max()
    np.testing.assert_allclose(found[:30], expected)
    np.testing.assert_allclose(found[31:], expected)
    assert found[30] == pytest.approx(4 * np.pi * (1.8 + 1.4) ** 2)


def test_fraction_disordered_is_that_of_alphafold_3() -> None:
    """A chain whose first half is accessible, window by window."""
    layout = synthetic_layout([("protein", 80), ("ligand", 2), ("protein", 3)])
    largest = {"GLY": 84, "TRP": 227, "SEP": 106}  # of a modified residue as of alanine
    layout = replace(layout, token_name=["GLY"] * 40 + ["TRP"] * 42 + ["SEP"] * 3)
    share = np.where(np.arange(85) < 40, 0.9, 0.3)
    share[82:] = 0.9
    surface = np.zeros(len(layout.atom_token))
    first = np.searchsorted(layout.atom_token, np.arange(85))
    surface[first] = share * [largest[name] for name in layout.token_name]
    atoms = StructureAtoms(layout, np.zeros((len(surface), 3)))
    expected = 0
    for tokens in (np.arange(80), np.arange(82, 85)):
        padded = np.pad(share[tokens], (12, 12), "reflect")
        means = [padded[i : i + 25].mean() for i in range(len(tokens))]
        expected += (np.array(means) > 0.581).sum()
    assert 0 < expected < 83
    assert fraction_disordered(atoms, surface) == pytest.approx(expected / 83)
    assert fraction_disordered(StructureAtoms(ligands(3), np.zeros((3, 3))), np.ones(3)) == 0


def test_ligands_with_the_hand_of_the_reference_have_no_errors() -> None:
    """Threonine has two chiral carbons, isopropanol and acetamide none, glucose five."""
    chains = (
        Chain("A", "ligand", ccd=("THR",)),
        Chain("B", "ligand", smiles="CC(C)O"),
        Chain("C", "ligand", ccd=("GLC",)),
        Chain("D", "protein", "ACDPG"),
        Chain("E", "ligand", smiles="CC(=O)N"),
    )
    features = featurize(Complex("x", chains))
    layout = features.layout
    reference = features.ref_pos[: len(layout.atom_token)].double().numpy()
    bonds = features.bonds.numpy()
    coords = ideal(features)
    centers = chiral_centers(layout, reference, bonds)
    found = stereochemistry(StructureAtoms(layout, coords), centers)
    assert (found.ligand_centers, found.ligand_errors, found.residue_errors) == (7, 0, 0)
    mirrored = stereochemistry(StructureAtoms(layout, -coords), centers)
    assert (mirrored.ligand_errors, mirrored.residue_errors) == (7, 4)  # glycine has no hand
    names = np.array(layout.atom_name)
    swapped = coords.copy()
    threonine = layout.token_chain[layout.atom_token] == 0
    one, other = (int(np.flatnonzero(threonine & (names == name))[0]) for name in ("OG1", "CG2"))
    swapped[[one, other]] = swapped[[other, one]]
    found = stereochemistry(StructureAtoms(layout, swapped), centers)
    assert (found.ligand_errors, found.residue_errors) == (1, 0)


def peptide(omega: float, length: float) -> np.ndarray:
    """N, CA, C, O and CB of two residues whose peptide bond is turned by omega degrees."""
    ca = np.array([0.0, 1.4, 0])
    c = np.zeros(3)
    n = np.array([length, 0, 0])
    angle = np.radians(omega)
    turn = 1.4 * np.array([0, np.cos(angle), np.sin(angle)])
    far = np.array([[-9.0, 9, 9]])
    return np.concatenate([far, [ca, c], far + 9, far + 18, [n, n + turn], far + 27, far + 36, far])


@pytest.mark.parametrize(
    ("omega", "length", "sequence", "expected"),
    [
        (180, 1.34, "AA", (0, 0, 0)),
        (-151, 1.34, "AA", (0, 0, 0)),
        (-149, 1.34, "AA", (0, 1, 0)),
        (31, 1.34, "AP", (0, 1, 0)),
        (29, 1.34, "AA", (1, 0, 0)),
        (-5, 1.34, "AP", (0, 0, 0)),
        (180, 1.46, "AA", (0, 0, 1)),
        (180, 1.45, "AA", (0, 0, 0)),
        (180, 1.21, "AA", (0, 0, 1)),
    ],
)
def test_peptide_bonds_are_cis_twisted_or_off(
    omega: float, length: float, sequence: str, expected: tuple[int, int, int]
) -> None:
    layout = replace(
        synthetic_layout([("protein", 2)]),
        atom_name=["N", "CA", "C", "O", "CB"] * 2,
        atom_token=np.repeat([0, 1], 5),
        atom_element=np.full(10, 6),
        token_name=[{"A": "ALA", "P": "PRO"}[letter] for letter in sequence],
    )
    x = peptide(omega, length)
    centers = chiral_centers(layout, x, np.zeros((0, 3), dtype=np.int64))
    found = stereochemistry(StructureAtoms(layout, x), centers)
    assert (found.cis_peptides, found.twisted_peptides, found.bad_peptide_bonds) == expected


def test_contacts_of_modified_residues_begin_at_their_own_atoms() -> None:
    """CB, CA without CB, C4 of a purine and C2 of a pyrimidine."""
    chains = (
        Chain("A", "protein", "SGK", modifications=((1, "SEP"), (2, "SAR"))),
        Chain("B", "rna", "AU", modifications=((1, "1MA"), (2, "5MU"))),
        Chain("C", "ligand", ccd=("SEP",)),
    )
    layout = featurize(Complex("x", chains)).layout
    found = modified_contact_atoms(layout)
    assert {token: layout.atom_name[atom] for token, atom in found.items()} == {
        0: "CB", 1: "CA", 3: "C4", 4: "C2",
    }  # fmt: skip
    assert [layout.atom_token[atom] for atom in found.values()] == list(found)
    alpha = backbone_atoms(layout)["CA"]
    assert [layout.atom_name[atom] for atom in alpha[:3]] == ["CA"] * 3 and set(alpha[3:]) == {-1}


def two_atoms(*residues: tuple[str, str, str, int], distance: float) -> StructureAtoms:
    """One atom in each of two chains: kind of the chain, residue, atom, element."""
    kinds, names, atoms, elements = zip(*residues, strict=True)
    layout = replace(
        synthetic_layout([("ligand", 1)] * 2),
        chain_kinds=list(kinds),
        token_name=list(names),
        atom_token=np.arange(2),
        atom_name=list(atoms),
        atom_element=np.array(elements),
    )
    return StructureAtoms(layout, np.array([[0.0, 0, 0], [distance, 0, 0]]))


@pytest.mark.parametrize(
    ("one", "other", "distance", "expected"),
    [
        (("CYS", "SG", 16), ("CYS", "SG", 16), 2.5, True),
        (("CYS", "SG", 16), ("CYS", "SG", 16), 2.6, False),
        (("CYS", "SG", 16), ("MET", "SD", 16), 2.5, False),
        (("MET", "SD", 16), ("MET", "SD", 16), 2.5, False),
        (("ALA", "CB", 6), ("MET", "CE", 6), 5.0, True),
        (("ALA", "CB", 6), ("MET", "CE", 6), 5.1, False),
        (("ALA", "N", 7), ("MET", "O", 8), 5.5, True),
        (("ALA", "O", 8), ("MET", "N", 7), 5.4, True),
        (("ALA", "N", 7), ("MET", "N", 7), 3.0, False),
        (("ALA", "CB", 6), ("MET", "O", 8), 3.0, False),
    ],
)
def test_contacts_follow_the_rules_of_interactome3d(
    one: tuple[str, str, int], other: tuple[str, str, int], distance: float, expected: bool
) -> None:
    atoms = two_atoms(("protein", *one), ("protein", *other), distance=distance)
    near = near_pairs(atoms.coords, 5.5, MAX_NEIGHBOURS)
    assert near is not None
    elements = contact_elements(atoms, near)
    found = token_contacts(atoms, near, elements)
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [1, 0])
    assert found.distance.tolist() == [distance] * 2
    assert found.interactome.tolist() == [expected] * 2
    polar = {one[2], other[2]} == {7, 8}
    assert are_polar(elements).tolist() == [polar]


@pytest.mark.parametrize(("kind", "expected"), [("protein", 1), ("ligand", 0)])
def test_salt_bridges_are_those_of_proteins(kind: str, expected: int) -> None:
    """An amino acid may be a ligand."""
    lysine = ("protein", "LYS", "NZ", 7)
    atoms = two_atoms(lysine, (kind, "ASP", "OD1", 8), distance=4.0)
    near = near_pairs(atoms.coords, 5.5, MAX_NEIGHBOURS)
    assert near is not None
    assert salt_bridges(atoms, near.on_host()).tolist() == [[0, expected], [0, 0]]


def test_residue_ranges() -> None:
    layout = synthetic_layout([("protein", 9), ("protein", 4)])
    mask = np.zeros(13, dtype=bool)
    assert residue_ranges(layout, mask, 0) == ""
    mask[[0, 2, 3, 4, 6, 8, 9]] = True
    assert residue_ranges(layout, mask, 0) == "A:1,3-5,7,9"
    assert residue_ranges(layout, mask, 1) == "B:1"


def test_geometry_reads_layouts_that_cannot_be_written_to() -> None:
    """Ray shares the arrays of its objects; PyTorch warns of tensors in their memory."""
    case = generated_case(4, "mixed")
    for field in fields(case.layout):
        array = getattr(case.layout, field.name)
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    found = geometry(features_of(case, len(case.rep_atom)), coords_of(case)).contacts
    assert found is not None and len(found.first)


def test_structure_scores_of_one_chain_take_ptm_and_of_no_geometry_are_nan() -> None:
    features = featurize(Complex("x", (Chain("A", "protein", "ACDEFGHIK"),)))
    coords = torch.zeros(features.num_atoms, 3)
    coords[: len(features.layout.atom_token)] = torch.from_numpy(ideal(features)).float()
    shape = geometry(features, coords)
    scores = structure_scores(shape, 0.4, None, float("nan"))
    assert scores.has_clash == 0 and scores.fraction_disordered == 1
    assert scores.ranking_score == pytest.approx(0.4 + 0.5)
    assert structure_scores(shape, 0.4, 0.6, 0.3).ranking_score == pytest.approx(0.56 + 0.5)
    coords[3] = float("nan")
    assert geometry(features, coords) is UNKNOWN
    unknown = structure_scores(UNKNOWN, 0.4, 0.5, 0.3)
    assert np.isnan([unknown.ranking_score, unknown.has_clash, unknown.cis_peptides]).all()
