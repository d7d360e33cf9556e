"""Reading of predicted and experimental structures."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldcp.pipeline.evaluation.sample import Reference, evaluate_sample
from foldcp.pipeline.evaluation.structures.chain import Structure
from foldcp.pipeline.evaluation.structures.read import read_structure
from foldcp.structure.write import write_structure
from tests.evaluation.synthetic import ligand, polymer, without, write_cif
from tests.structure.mixed_complex import mixed_complex, structure_of

HEADER = """data_x
loop_
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.occupancy
_atom_site.pdbx_PDB_model_num
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
"""


def _read(folder: Path, *lines: str) -> Structure:
    path = folder / "x.cif"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return read_structure(path, "label")


@pytest.mark.parametrize("ending", ["cif", "cif.gz", "bcif"])
def test_a_prediction_is_read_as_it_was_written(ending: str, tmp_path: Path) -> None:
    structure = structure_of(mixed_complex())
    path = tmp_path / f"0.{ending}"
    write_structure(path, structure, ending)  # pyright: ignore[reportArgumentType]
    found = read_structure(path, "author")
    layout = structure.layout
    assert [chain.name for chain in found.chains] == list(layout.chain_names)
    assert [chain.kind for chain in found.chains] == list(layout.chain_kinds)
    coords = np.concatenate([chain.coords for chain in found.chains])
    np.testing.assert_allclose(coords, structure.coords, atol=6e-4)
    names = np.concatenate([chain.atom_names for chain in found.chains])
    assert names.tolist() == list(layout.atom_name)
    assert found.chains[0].letters == "MKTNASIAKCQRQISFCK"
    assert found.chains[0].codes[2] == "TPO"
    assert ("C14", "C15") in found.bonds["LIG1"]
    as_reference = read_structure(path, "label")
    evaluated = evaluate_sample(found, Reference(as_reference), 0.9)
    assert evaluated.columns["num_matched_chains"] == 7
    assert evaluated.columns["lddt"] == pytest.approx(1)
    assert "S=S:LIG1:1" in evaluated.columns["matched_chains"]


def test_first_model_and_largest_occupancy_count(tmp_path: Path) -> None:
    found = _read(
        tmp_path,
        "1 C CA A ALA A 1 1 A 0.4 1 1 0 0",
        "2 C CA B ALA A 1 1 A 0.6 1 2 0 0",
        "3 C CB . ALA A 1 1 A 1.0 1 3 0 0",
        "4 C CA A SER A 2 2 A 0.3 1 4 0 0",
        "5 C CA B THR A 2 2 A 0.7 1 5 0 0",
        "6 H HA . ALA A 1 1 A 1.0 1 9 0 0",
        "7 O O . HOH B . 201 A 1.0 1 9 9 9",
        "8 C CA . ALA A 1 1 A 1.0 2 7 0 0",
    )
    (chain,) = found.chains
    assert chain.codes == ("ALA", "SER")
    assert chain.coords[:, 0].tolist() == [2, 3, 4]
    assert chain.kind == "protein"


def test_ligands_of_a_reference_have_names_of_their_own(tmp_path: Path) -> None:
    chains = [
        polymer("A", "MKTAYIAK", 1), ligand("A", "ATP", 2), ligand("A", "ATP", 3),
    ]  # fmt: skip
    path = write_cif(tmp_path / "x.cif", chains, 7, asym_names=["A", "B", "C"])
    assert [chain.name for chain in read_structure(path, "label").chains] == ["A", "B", "C"]
    path = write_cif(tmp_path / "x.cif", chains[:2], 7, asym_names=["A", "B"])
    found = read_structure(path, "label")
    assert [chain.name for chain in found.chains] == ["A", "A:ATP:7"]
    assert [chain.kind for chain in found.chains] == ["protein", "ligand"]


def test_sequences_are_those_of_the_entities_or_of_the_residues(tmp_path: Path) -> None:
    chain = without(polymer("A", "MKTAYIAK", 1), [0, 4])
    with_sequence = read_structure(write_cif(tmp_path / "x.cif", [chain]), "label").chains[0]
    assert with_sequence.letters == "MKTAYIAK"
    assert with_sequence.num_resolved == 6
    path = write_cif(tmp_path / "x.cif", [chain], with_sequences=False)
    assert read_structure(path, "label").chains[0].letters == "KTAIAK"


def test_pdb_files_are_read_as_mmcif_files(tmp_path: Path) -> None:
    chains = [polymer("A", "MKTAYIAK", 1), polymer("D", "ACGT", 2, "dna", (9, 0, 0))]
    path = write_cif(tmp_path / "x.cif", chains)
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    for name in ("x.pdb", "x.ent.gz"):
        text = structure.make_pdb_string().encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        found = read_structure(tmp_path / name, "label")
        assert [(c.name, c.kind, c.letters) for c in found.chains] == [
            ("A", "protein", "MKTAYIAK"), ("D", "dna", "ACGT"),
        ]  # fmt: skip
        np.testing.assert_allclose(found.chains[1].coords, chains[1].coords, atol=6e-4)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "it has no data block"),
        (b"data_x\n_cell.length_a 1\n", "it has no atoms"),
        (b"data_x\nloop_\n_atom_site.id\n", "x.cif: "),
        (b"\x1f\x8b\x00broken", "x.cif: "),
        ((HEADER + "1 C CA . ALA A 1 1 A 1 1 1 0 x\n").encode(), "could not convert"),
        ((HEADER + "1 C CA . ALA A 1 1 A 1 1 1 0 1e9\n").encode(), "a coordinate is not a number"),
        ((HEADER + "1 O O . HOH A . 1 A 1 1 1 0 0\n").encode(), "no heavy atoms but those of"),
    ],
)
def test_damaged_files_are_named(content: bytes, error: str, tmp_path: Path) -> None:
    path = tmp_path / "x.cif"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=error) as raised:
        read_structure(path, "label")
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_residues_beyond_the_sequence_are_refused(tmp_path: Path) -> None:
    path = write_cif(tmp_path / "x.cif", [polymer("A", "MKTA", 1)])
    text = path.read_text().replace("1 4 ALA n\n", "")
    path.write_text(text)
    with pytest.raises(ValueError, match="chain A has residues beyond the sequence"):
        read_structure(path, "label")
    (tmp_path / "x.bcif").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x.bcif: "):
        read_structure(tmp_path / "x.bcif", "label")
