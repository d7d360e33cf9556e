"""Symmetries of residues and ligands."""

from __future__ import annotations

import pytest

from foldcp.chemistry.ligands import ccd_component
from foldcp.chemistry.symmetries import MAX_SYMMETRIES, symmetries
from foldcp.chemistry.vocabulary import Component, standard_residue


def exchanged(component: Component) -> list[dict[str, str]]:
    """Each symmetry by the names of atoms that differ."""
    names = component.atom_names
    return [{names[a]: names[b] for a, b in pairs} for pairs in symmetries(component)]


@pytest.mark.parametrize(
    "code, expected",
    [
        ("ASP", {"OD1": "OD2", "OD2": "OD1"}),
        ("GLU", {"OE1": "OE2", "OE2": "OE1"}),
        ("PHE", {"CD1": "CD2", "CD2": "CD1", "CE1": "CE2", "CE2": "CE1"}),
        ("TYR", {"CD1": "CD2", "CD2": "CD1", "CE1": "CE2", "CE2": "CE1"}),
        ("DG", {"OP1": "OP2", "OP2": "OP1"}),
        ("U", {"OP1": "OP2", "OP2": "OP1"}),
    ],
)
def test_standard_residues_have_those_of_boltz(code: str, expected: dict[str, str]) -> None:
    assert exchanged(standard_residue(code)) == [expected]


@pytest.mark.parametrize("code", ["ALA", "VAL", "LEU", "ARG", "UNK", "N", "DN"])
def test_other_standard_residues_have_none(code: str) -> None:
    assert exchanged(standard_residue(code)) == []


class TestWithRDKit:
    """Tests that need the extra `ligands`."""

    @pytest.fixture(autouse=True)
    def rdkit(self) -> None:
        pytest.importorskip("rdkit", reason="ligands are read with RDKit")

    @pytest.mark.parametrize(
        "code, count",
        [("BNZ", 11), ("GOL", 1), ("ZN", 0), ("SO4", 3), ("EDO", 1), ("HEM", 0), ("NAG", 0)],
    )
    def test_ligands_have_the_automorphisms_of_their_graphs(self, code: str, count: int) -> None:
        """But for the identity: in the CCD a sulfate has two double bonds."""
        assert len(exchanged(ccd_component(code, "ligand"))) == count

    def test_bond_orders_tell_atoms_apart(self) -> None:
        """Of a phosphate only the oxygens with single bonds are alike."""
        found = exchanged(ccd_component("SEP", "protein"))
        assert found == [{"O2P": "O3P", "O3P": "O2P"}]

    def test_number_is_bounded(self) -> None:
        """A fullerene has 120."""
        assert len(symmetries(ccd_component("60C", "ligand"))) == MAX_SYMMETRIES
