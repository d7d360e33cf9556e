"""Faults of Boltz in ligands and templates: which are followed, as docs/fidelity.md says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foldcp.chemistry.ligand_geometry import ccd_geometry, smiles_geometry
from foldcp.chemistry.ligands import ccd_component, smiles_component
from foldcp.chemistry.vocabulary import TOKEN_IDS
from foldcp.complex import Chain, Complex, Template
from foldcp.features.featurize import featurize
from tests.features.test_templates import CODES, SEQUENCE, write


def test_a_ligand_of_several_components_keeps_its_leaving_atoms() -> None:
    chains = (
        Chain("A", "protein", "GS", modifications=((2, "SEP"),)),
        Chain("G", "ligand", ccd=("NAG", "NAG")),
    )
    names = featurize(Complex("x", chains)).layout.atom_name
    assert names.count("O1") == 2 and names[-30:-15] == names[-15:]
    assert "OXT" not in names  # of a modified residue, which loses them


def test_templates_are_aligned_without_gaps_unless_residues_are_named(tmp_path: Path) -> None:
    """Two residues are inserted after the tenth of the template's 16."""
    path = write(tmp_path / "t.cif", [CODES])
    chain = Chain("A", "protein", SEQUENCE[:10] + "WW" + SEQUENCE[10:])
    types = [TOKEN_IDS[code] for code in CODES]
    aligned = featurize(Complex("x", (chain,), templates=(Template(path),)))
    assert aligned.template_res_type[0].tolist() == [*types, 0, 0]  # wrong from the insertion on
    numbers = [*range(1, 11), *range(13, 19)]
    residues = tuple(zip(numbers, range(1, 17), strict=True))
    named = featurize(
        Complex("x", (chain,), templates=(Template(path, ("A",), (), residues=residues),))
    )
    assert named.template_res_type[0].tolist() == [*types[:10], 0, 0, *types[10:]]


def test_stereo_centres_that_are_not_assigned_have_no_constraint() -> None:
    pytest.importorskip("rdkit")
    assert smiles_geometry("C[C@H](O)CN").chiral.shape[1] > 0
    assert smiles_geometry("CC(O)CN").chiral.shape[1] == 0


def test_a_centre_with_a_lone_pair_is_steered_to_the_wrong_hand() -> None:
    """Of the centres of SAM, the constraint of the sulphur alone is not that of the conformer."""
    pytest.importorskip("rdkit")
    component = ccd_component("SAM", "ligand")
    geometry = ccd_geometry("SAM", component.atom_names)
    wrong = set()
    for atoms, is_r in zip(geometry.chiral.T.tolist(), geometry.chiral_r.tolist(), strict=True):
        *first, centre = component.positions[atoms]
        is_left = np.linalg.det(np.stack(first) - centre) > 0  # highest ranks first
        if is_left == is_r:
            wrong.add(component.atom_names[atoms[3]])
    assert wrong == {"SD"}


@pytest.mark.parametrize("count", [40, 60])
def test_names_of_atoms_of_a_large_ligand_fit(count: int) -> None:
    """With hydrogens counted, the chlorine of the larger has a rank of three digits."""
    pytest.importorskip("rdkit")
    names = smiles_component("Cl" + "C" * count, "LIG1").atom_names
    assert len(set(names)) == count + 1 and max(map(len, names)) <= 4
    assert names[0].startswith("CL")


def test_a_name_that_cannot_fit_is_told() -> None:
    pytest.importorskip("rdkit")
    with pytest.raises(ValueError, match=r"atom name 'BR\d{3}', it reads names of at most 4"):
        smiles_component("Br" + "C(F)(F)" * 50, "LIG1")
