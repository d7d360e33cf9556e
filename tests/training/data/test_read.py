"""Reading of experimental structures."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldcp.datasets.training.read import MAX_GAP, read_experimental
from foldcp.training.data.structure import ExperimentalChain, ExperimentalStructure
from tests.training.data.mmcif import Atom, File, codes, protein, real_structure, single_protein


def read(file: File, tmp_path: Path, *, assembly: bool = True) -> ExperimentalStructure:
    return read_experimental(file.write(tmp_path / "x.cif"), "x", assembly=assembly)


def atom_of(chain: ExperimentalChain, residue: int, name: str) -> np.ndarray:
    """The coordinates of an atom; residues count from 0."""
    found = [
        i
        for i, each in enumerate(chain.atom_names)
        if each == name and chain.atom_residue[i] == residue
    ]
    (row,) = found
    return chain.coords[row]


def test_sequence_is_that_of_the_entity(tmp_path: Path) -> None:
    file = File(protein("A", "MKDAYIAF", missing=(1, 2, 5)), {"1": codes("MKDAYIAF")})
    (chain,) = read(file, tmp_path).chains
    assert (chain.name, chain.kind, chain.letters) == ("A", "protein", "MKDAYIAF")
    assert sorted(set(chain.atom_residue.tolist())) == [2, 3, 5, 6, 7]
    assert chain.num_resolved == 5
    np.testing.assert_allclose(atom_of(chain, 3, "CA"), [15.2, 0, 0], atol=1e-5)
    assert set(chain.bfactors[chain.atom_residue == 3].tolist()) == {14.0}


def test_without_a_sequence_gaps_have_unknown_residues(tmp_path: Path) -> None:
    file = File(protein("A", "MKDAYIAF", missing=(4, 5), numbered=False), {"1": []})
    (chain,) = read(file, tmp_path).chains
    assert chain.letters == "MKDXXIAF"
    assert sorted(set(chain.atom_residue.tolist())) == [0, 1, 2, 5, 6, 7]


def test_no_residue_is_put_in_where_residues_are_bonded(tmp_path: Path) -> None:
    atoms = protein("A", "MKDA", numbered=False)
    jumping = [replace(a, number=a.number + 50 * (a.number > 2)) for a in atoms]
    (chain,) = read(File(jumping, {"1": []}), tmp_path).chains
    assert chain.letters == "MKDA"


def test_long_gap_is_as_long_as_the_network_can_tell(tmp_path: Path) -> None:
    far = protein("A", "AY", numbered=False, origin=(500.0, 0, 0))
    far = [replace(atom, number=atom.number + 200) for atom in far]
    file = File([*protein("A", "MK", numbered=False), *far], {"1": []})
    (chain,) = read(file, tmp_path).chains
    assert chain.letters == "MK" + "X" * MAX_GAP + "AY"


def test_altloc_is_the_most_occupied_then_the_first(tmp_path: Path) -> None:
    atoms = protein("A", "MKDA")

    def place(residue: int, occupancies: tuple[float, float]) -> list[Atom]:
        found = []
        for atom in atoms:
            if atom.place != residue or atom.name != "CB":
                found.append(atom)
                continue
            for number, occupancy in enumerate(occupancies):
                xyz = (100.0 + number, 0.0, 0.0)
                found.append(replace(atom, altloc="AB"[number], occupancy=occupancy, xyz=xyz))
        return found

    for occupancies, expected in (((0.4, 0.6), 101), ((0.6, 0.4), 100), ((0.5, 0.5), 100)):
        file = File(place(2, occupancies), {"1": codes("MKDA")})
        (chain,) = read(file, tmp_path).chains
        assert atom_of(chain, 1, "CB")[0] == expected
        assert len(chain.coords) == len(atoms)


def test_of_alternative_components_the_most_occupied_counts(tmp_path: Path) -> None:
    atoms = protein("A", "MKDA")
    other = [
        replace(atom, component="SER", altloc="B", occupancy=0.7)
        for atom in atoms
        if atom.place == 3
    ]
    atoms = [
        replace(atom, altloc="A", occupancy=0.3) if atom.place == 3 else atom for atom in atoms
    ]
    file = File([*atoms[:15], *other, *atoms[15:]], {"1": codes("MKDA")})
    (chain,) = read(file, tmp_path).chains
    assert chain.letters == "MKSA"
    assert (chain.atom_residue == 2).sum() == 5


def test_waters_and_hydrogens_are_dropped(tmp_path: Path) -> None:
    hydrogen = Atom("HA", "MET", "A", "1", 1, (3.8, 0.5, 0.5), element="H")
    water = Atom("O", "HOH", "W", "9", None, (9, 9, 9), group="HETATM")
    ion = Atom("ZN", "ZN", "Z", "2", None, (5, 5, 5), element="ZN", group="HETATM")
    file = File([*protein("A", "MKDA"), hydrogen, ion, water], {"1": codes("MKDA")})
    found = read(file, tmp_path)
    assert [(chain.name, chain.kind, chain.codes) for chain in found.chains[1:]] == [
        ("Z", "ligand", ("ZN",))
    ]
    assert len(found.chains[0].coords) == 20


def test_modified_residue_keeps_its_code_and_the_letter_of_its_parent(tmp_path: Path) -> None:
    atoms = [
        replace(a, component="SEP", group="HETATM") if a.place == 3 else a
        for a in protein("A", "MKSA")
    ]
    file = File(atoms, {"1": ["MET", "LYS", "SEP", "ALA"]})
    (chain,) = read(file, tmp_path).chains
    assert chain.codes[2] == "SEP"
    assert chain.letters == "MKSA"


def test_assembly_places_copies(tmp_path: Path) -> None:
    atoms = [*protein("A", "MKDA"), *protein("B", "MKDA", origin=(0, 30, 0))]
    shifts = [(0.0, 0.0, 0.0), (0.0, 0.0, 12.0)]
    file = File(atoms, {"1": codes("MKDA")}, assembly=(["A"], shifts))
    found = read(file, tmp_path)
    assert found.assembly == "1"
    assert [chain.name for chain in found.chains] == ["A", "A-2"]
    first, second = found.chains
    np.testing.assert_allclose(second.coords - first.coords, [[0, 0, 12]] * 20, atol=1e-4)
    unit = read(file, tmp_path, assembly=False)
    assert unit.assembly == ""
    assert [chain.name for chain in unit.chains] == ["A", "B"]


def test_covalent_bonds_are_placed_with_the_copies(tmp_path: Path) -> None:
    chain = protein("A", "MKDA")
    ligand = Atom("C1", "NAG", "L", "2", None, (12, -2, 1), number=9, group="HETATM")
    anchor = next(atom for atom in chain if atom.place == 3 and atom.name == "CB")
    along = (chain[2], chain[5])  # C of a residue, N of the next
    file = File(
        [*chain, ligand],
        {"1": codes("MKDA")},
        assembly=(["A", "L"], [(0.0, 0.0, 0.0), (0.0, 0.0, 40.0)]),
        bonds=[(anchor, ligand), along],
    )
    assert read(file, tmp_path).bonds == (
        (("A", 2, "CB"), ("L", 0, "C1")),
        (("A-2", 2, "CB"), ("L-2", 0, "C1")),
    )


def test_nucleic_acids_are_polymers_by_their_type(tmp_path: Path) -> None:
    atoms = [
        Atom("P", code, "D", "1", place, (6.0 * place, 0, 0), number=place)
        for place, code in enumerate(("DG", "DA", "DT"), 1)
    ]
    file = File(atoms, {"1": ["DG", "DA", "DT"]}, {"1": "polydeoxyribonucleotide"})
    (chain,) = read(file, tmp_path).chains
    assert (chain.kind, chain.letters) == ("dna", "GAT")


def test_facts_of_the_experiment(tmp_path: Path) -> None:
    found = read(
        single_protein("MKDA", date="2019-05-06", resolution="3.25", method="ELECTRON MICROSCOPY"),
        tmp_path,
    )
    assert (found.date, found.resolution) == ("2019-05-06", 3.25)
    assert found.method == "electron microscopy"
    missing = read(single_protein("MKDA", date="?", resolution="."), tmp_path)
    assert (missing.date, missing.resolution) == ("", None)


def test_file_without_bfactors_has_zeros(tmp_path: Path) -> None:
    text = single_protein("MKDA").text
    values = [f" 1.0 {10.0 + place} {place} A 1" for place in range(1, 5)]
    for value in values:
        text = text.replace(value, value.replace(value.split()[1], "?", 1))
    path = tmp_path / "x.cif"
    path.write_text(text)
    assert not read_experimental(path, "x").chains[0].bfactors.any()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no data block"),
        ("data_x\n_cell.length_a 1\n", "no atoms"),
        ("data_x\nloop_\n_atom_site.id\n", ""),
        (single_protein("MKDA").text.replace("3.800", "nan", 1), "not a number"),
        (File(protein("A", "MKDA"), {"1": codes("MKD")}).text, "number 4 in a sequence of 3"),
    ],
)
def test_bad_file_is_an_error_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.cif"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.cif: .*{reason}"):
        read_experimental(path, "bad")


@pytest.mark.parametrize("name", ["1ake", "3kpr", "1lcd", "19hc", "1ahsa"])
def test_coordinates_are_those_of_the_file(name: str) -> None:
    path = real_structure(name)
    block = gemmi.cif.read_string(gzip.decompress(path.read_bytes()))[0]
    columns = ["label_asym_id", "auth_seq_id", "label_atom_id", "label_comp_id", "Cartn_x",
               "Cartn_y", "Cartn_z", "B_iso_or_equiv", "pdbx_PDB_ins_code"]  # fmt: skip
    expected = set()
    places = set()
    for row in block.find("_atom_site.", columns):
        numbers = tuple(round(float(row[i]), 2) for i in (4, 5, 6, 7))
        expected.add((row[0], row.str(2), row[3], *numbers))
        places.add((row[0], row[1], row[8], row.str(2)))
    atoms = set()
    for chain in read_experimental(path, name, assembly=False).chains:
        for residue, atom, xyz, bfactor in zip(
            chain.atom_residue, chain.atom_names, chain.coords, chain.bfactors, strict=True
        ):
            numbers = tuple(round(float(x), 2) for x in (*xyz.astype(str).astype(float), bfactor))
            atoms.add((chain.name, atom, chain.codes[residue], *numbers))
    assert atoms <= expected
    assert len(atoms) == len(places)
