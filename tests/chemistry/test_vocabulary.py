"""The tables of residues against the CCD, and errors of unknown codes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from biotite.structure.info import residue as biotite_residue

from foldcp.chemistry.ccd import STANDARD_FILE
from foldcp.chemistry.standard_components import standard_components
from foldcp.chemistry.vocabulary import (
    NUM_TOKENS,
    STANDARD_ATOMS,
    TOKENS,
    ccd_atoms,
    frame_atoms,
    residue_codes,
    standard_residue,
)

RESIDUES = [code for code in TOKENS if code not in ("<pad>", "-")]
UNKNOWN = {"UNK", "N", "DN"}


def test_vocabulary_has_the_words_of_the_weights() -> None:
    assert NUM_TOKENS == len(set(TOKENS)) == 33
    assert " ".join(TOKENS) == (
        "<pad> - ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP "
        "TYR VAL UNK "
        "A G C U N DA DG DC DT DN"
    )
    assert set(RESIDUES) == set(STANDARD_ATOMS)


@pytest.mark.parametrize("code", sorted(set(RESIDUES) - UNKNOWN))
def test_standard_residue_is_the_component_without_hydrogens_and_leaving_atoms(
    code: str,
) -> None:
    ccd = ccd_atoms(code)
    heavy = {
        n
        for n, e, leaves in zip(ccd.names, ccd.elements, ccd.leaving, strict=True)
        if e != 1 and not leaves
    }
    assert set(standard_residue(code).atom_names) == heavy


@pytest.mark.parametrize("code", RESIDUES)
def test_standard_residue_has_the_positions_charges_and_elements_of_its_atoms(code: str) -> None:
    ours = standard_residue(code)
    theirs = biotite_residue(code)
    for i, name in enumerate(ours.atom_names):
        atom = theirs[theirs.atom_name == name][0]
        np.testing.assert_allclose(ours.positions[i], atom.coord, atol=1e-5)
        assert ours.charges[i] == atom.charge
        assert ours.elements[i] == {"C": 6, "N": 7, "O": 8, "P": 15, "S": 16}[atom.element]


def test_standard_residue_has_centre_representative_and_frame() -> None:
    def named(code: str) -> tuple[str, ...]:
        residue = standard_residue(code)
        names = residue.atom_names
        return (
            names[residue.center],
            names[residue.representative],
            *(names[i] for i in residue.frame),
        )

    assert named("TRP") == ("CA", "CB", "N", "CA", "C")
    assert named("GLY") == ("CA", "CA", "N", "CA", "C")
    assert named("UNK") == ("CA", "CB", "N", "N", "N")
    assert named("G") == ("C1'", "C4", "C1'", "C3'", "C4'")
    assert named("DC") == named("DT") == ("C1'", "C2", "C1'", "C3'", "C4'")
    assert named("N") == named("DN") == ("C1'", "C1'", "C1'", "C3'", "C4'")
    assert frame_atoms(("P", "C4'", "C1'"), nucleotide=True) == (2, 0, 1)


def test_residue_codes_of_letters_and_modifications() -> None:
    assert residue_codes("protein", "GAXUBM", ((2, "SEP"), (6, "MSE"))) == [
        "GLY",
        "SEP",
        "UNK",
        "UNK",
        "UNK",
        "MET",
    ]
    assert residue_codes("dna", "ACGTN", ()) == ["DA", "DC", "DG", "DT", "DN"]
    assert residue_codes("rna", "ACGUN", ()) == ["A", "C", "G", "U", "N"]


def test_ccd_atoms_names_an_unknown_code() -> None:
    with pytest.raises(ValueError, match="'QQQQ' is not in the Chemical Component Dictionary"):
        ccd_atoms("QQQQ")


def test_ccd_atoms_takes_model_coordinates_for_incomplete_ideal_ones() -> None:
    """MNH (manganese protoporphyrin) has no ideal coordinates."""
    ccd = ccd_atoms("MNH")
    heavy = ccd.positions[ccd.elements != 1]
    assert np.isfinite(heavy).all()
    assert np.linalg.norm(heavy - heavy.mean(0), axis=1).max() < 15


def test_standard_components_are_those_of_the_dictionary() -> None:
    assert json.loads(STANDARD_FILE.read_text()) == standard_components()


def test_standard_residues_need_no_dictionary() -> None:
    """It takes a process seconds to decode."""
    program = (
        "import sys\n"
        "from foldcp.chemistry.vocabulary import TOKENS, standard_residue\n"
        "from foldcp.structure.components import _ccd_bonds, component_name, component_type\n"
        "for code in TOKENS[2:]:\n"
        "    assert standard_residue(code).num_atoms\n"
        "    assert component_name(code) and component_type(code)\n"
        "    _ccd_bonds(code)\n"
        "assert 'biotite' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
