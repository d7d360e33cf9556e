"""mmCIF files that we write, as three independent readers see them."""

from __future__ import annotations

import time
from pathlib import Path

import biotite.structure.io.pdbx as pdbx
import gemmi
import numpy as np
import pytest
from Bio.PDB.MMCIFParser import MMCIFParser

from foldcp.features.layout import Layout
from foldcp.printable import printable_ascii
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.write import cif_text, write_structure
from tests.support.synthetic import synthetic_layout


def write_cif(
    path: Path,
    layout: Layout,
    coords: np.ndarray,
    plddt: np.ndarray,
    name: str,
    title: str = "",
    details: str = "",
) -> None:
    write_structure(path, PredictedStructure(layout, coords, plddt, name, title, details))


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, Layout, np.ndarray, np.ndarray]:
    """Every kind of chain, a modified residue first and in the middle, ions, a two-component
    ligand, a free amino acid; a copy.
    """
    layout = synthetic_layout(
        [
            ("protein", ["MSE", "ALA", "GLY", "MSE", "SER", "UNK"]),
            ("ligand", ["ATP"]),
            ("dna", ["DA", "DN"]),
            ("protein", ["MSE", "ALA", "GLY", "MSE", "SER", "UNK"]),
            ("rna", ["U", "N", "U"]),
            ("ligand", ["NAG", "NAG"]),
            ("ligand", ["ZN"]),
            ("ligand", ["ALA"]),
        ],
        names=["A", "lig", "AB", "B2", "rna1", "AAA", "Z", "amino acid"],
    )
    rng = np.random.default_rng(1)
    coords = rng.normal(0, 300, (len(layout.atom_token), 3)).astype(np.float32)
    plddt = rng.uniform(0, 1, len(layout.token_chain)).astype(np.float32)
    path = tmp_path / "mixed.cif"
    write_cif(
        path,
        layout,
        coords,
        plddt,
        "one & 'two'",
        "A title; of _things",
        "made by nobody",
    )
    return path, layout, coords, plddt


def chain_of_atom(layout: Layout) -> list[str]:
    return [layout.chain_names[layout.token_chain[t]] for t in layout.atom_token]


def is_hetero(layout: Layout) -> np.ndarray:
    ligand = np.array(
        [layout.chain_kinds[layout.token_chain[t]] == "ligand" for t in layout.atom_token]
    )
    return ligand | np.array([layout.token_name[t] == "MSE" for t in layout.atom_token])


def test_write_cif_is_read_by_gemmi(mixed: tuple[Path, Layout, np.ndarray, np.ndarray]) -> None:
    path, layout, coords, plddt = mixed
    structure = gemmi.read_structure(str(path))
    sequence = structure.get_entity_of(structure[0]["A"].get_polymer()).full_sequence
    assert sequence == ["MSE", "ALA", "GLY", "MSE", "SER", "UNK"]
    sites = [
        (chain.name, residue, atom)
        for chain in structure[0]
        for residue in chain
        for atom in residue
    ]
    assert [name for name, _, _ in sites] == chain_of_atom(layout)
    assert [residue.name for _, residue, _ in sites] == [
        layout.token_name[t] for t in layout.atom_token
    ]
    assert [residue.seqid.num for _, residue, _ in sites] == layout.token_residue[
        layout.atom_token
    ].tolist()
    assert [atom.name for *_, atom in sites] == layout.atom_name
    assert [atom.element.atomic_number for *_, atom in sites] == layout.atom_element.tolist()
    assert np.abs(np.array([atom.pos.tolist() for *_, atom in sites]) - coords).max() < 1e-3
    np.testing.assert_allclose(
        [a.b_iso for *_, a in sites], 100 * plddt[layout.atom_token], atol=1e-3
    )
    assert [residue.het_flag == "H" for _, residue, _ in sites] == is_hetero(layout).tolist()
    kinds = {chain.name: chain.get_polymer().check_polymer_type().name for chain in structure[0]}
    assert (kinds["A"], kinds["AB"], kinds["rna1"], kinds["AAA"]) == (
        "PeptideL",
        "Dna",
        "Rna",
        "Unknown",
    )
    assert {entity.entity_type.name for entity in structure.entities} == {
        "Polymer",
        "NonPolymer",
        "Branched",
    }
    copies = [entity.subchains for entity in structure.entities]
    assert ["A", "B2"] in copies and len(copies) == 7


def test_write_cif_is_read_by_biopython(mixed: tuple[Path, Layout, np.ndarray, np.ndarray]) -> None:
    path, layout, coords, plddt = mixed
    atoms = list(MMCIFParser(QUIET=True).get_structure("x", path).get_atoms())
    residues = [atom.get_parent() for atom in atoms]
    assert [residue.get_parent().id for residue in residues] == chain_of_atom(layout)
    assert [residue.id[1] for residue in residues] == layout.token_residue[
        layout.atom_token
    ].tolist()
    assert [residue.id[0] != " " for residue in residues] == is_hetero(layout).tolist()
    assert [atom.id for atom in atoms] == layout.atom_name
    assert np.abs(np.array([atom.coord for atom in atoms]) - coords).max() < 1e-3
    np.testing.assert_allclose(
        [a.bfactor for a in atoms], 100 * plddt[layout.atom_token], atol=1e-3
    )


def test_write_cif_is_read_by_biotite(mixed: tuple[Path, Layout, np.ndarray, np.ndarray]) -> None:
    path, layout, coords, plddt = mixed
    file = pdbx.CIFFile.read(path)
    atoms = pdbx.get_structure(file, model=1, extra_fields=["b_factor"])
    assert atoms.chain_id.tolist() == chain_of_atom(layout)
    assert atoms.atom_name.tolist() == layout.atom_name
    assert atoms.res_name.tolist() == [layout.token_name[t] for t in layout.atom_token]
    assert atoms.hetero.tolist() == is_hetero(layout).tolist()
    assert np.abs(atoms.coord - coords).max() < 1e-3
    np.testing.assert_allclose(atoms.b_factor, 100 * plddt[layout.atom_token], atol=1e-3)
    sequences = {chain: str(sequence) for chain, sequence in pdbx.get_sequence(file).items()}
    assert sequences["A"] == sequences["B2"] and sequences["A"][1:5] == "AGMS"
    assert file.block["struct"]["pdbx_model_details"].as_item() == "made by nobody"


def test_write_cif_averages_confidence_over_the_tokens_of_a_residue(
    mixed: tuple[Path, Layout, np.ndarray, np.ndarray],
) -> None:
    path, layout, _, plddt = mixed
    block = gemmi.cif.read(str(path)).sole_block()
    table = block.find("_ma_qa_metric_local.", ["label_asym_id", "label_seq_id", "metric_value"])
    found = [(row.str(0), row[1], float(row[2])) for row in table]
    assert len(found) == 6 + 2 + 6 + 3
    table = block.find("_ma_qa_metric_feature.", ["feature_id", "metric_value"])
    ligands = {int(row[0]): float(row[1]) for row in table}
    assert list(ligands) == [2, 6, 7, 8]  # numbers of the chains: the dictionary wants no local
    for number, value in ligands.items():  # value of a residue without a position
        tokens = layout.token_chain == number - 1
        assert abs(value - 100 * plddt[tokens].mean()) < 1e-3
    first = slice(0, 8)  # one token per atom of the modified residue
    assert found[0][:2] == ("A", "1") and abs(found[0][2] - 100 * plddt[first].mean()) < 1e-3
    assert float(block.find_value("_ma_qa_metric_global.metric_value")) == pytest.approx(
        100 * plddt.mean(), abs=1e-3
    )


def test_write_cif_takes_more_chains_and_atoms_than_a_pdb_file(tmp_path: Path) -> None:
    """20,000 residues in 129 chains in a few seconds; the last atom is number 120,000."""
    layout = synthetic_layout([("protein", ["SER"] * (155 + (c < 5))) for c in range(129)])
    T = len(layout.token_chain)
    coords = np.random.default_rng(0).normal(0, 100, (len(layout.atom_token), 3)).astype(np.float32)
    path = tmp_path / "large.cif"
    start = time.perf_counter()
    write_cif(path, layout, coords, np.full(T, 0.5, np.float32), "large")
    seconds = time.perf_counter() - start
    assert max(map(len, path.read_text().splitlines())) <= 2048
    sequences = pdbx.get_sequence(pdbx.CIFFile.read(path))
    assert [str(sequences[chain]) for chain in ("A", "DY")] == ["S" * 156, "S" * 155]
    structure = gemmi.read_structure(str(path))
    assert T == 20_000 and structure[0].count_atom_sites() == 120_000
    assert [chain.name for chain in structure[0]][25:28] == ["Z", "AA", "AB"] and len(
        structure[0]
    ) == 129
    assert structure[0][-1][-1][-1].serial == 120_000
    assert seconds < 20, f"{seconds:.1f} s"  # about 1 s on an idle machine


ODD_TEXTS = [
    "中文复合物",
    "a\n;b\n;",
    'both \' and " in it\'s "text"',
    "line\nbreaks\r\n",
    "_loop_ data_x",
    "data_y",
    ";starts",
    "#comment",
    "$frame [x]",
    "?",
    ".",
    "\x1b[31m\x00",
    "\udce9",
    "x" * 3000,
    "a b",
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_write_cif_is_valid_with_any_text(text: str, tmp_path: Path) -> None:
    """As the name of a complex, as its title and as that of a chain: ASCII, lines of 2,048 at
    most, read back.
    """
    layout = synthetic_layout([("protein", ["GLY", "SER"]), ("ligand", ["ZN"])], names=[text, "B"])
    coords = np.zeros((len(layout.atom_token), 3), np.float32)
    path = tmp_path / "odd.cif"
    write_cif(path, layout, coords, np.full(3, 0.5, np.float32), text, text, text)
    content = path.read_bytes()
    assert content.isascii()
    assert max(map(len, content.splitlines())) <= 2048
    document = gemmi.cif.read(str(path))
    block = document.sole_block()
    assert 0 < len(block.name) <= 75
    assert not set(block.name) & set(" \t\n")
    expected = printable_ascii(text) if len(text) < 900 else "x" * 897 + "..."
    for item in (
        "_entry.id",
        "_struct.entry_id",
        "_struct.title",
        "_struct.pdbx_model_details",
    ):
        assert gemmi.cif.as_string(block.find_value(item)) == expected
    assert [chain.name for chain in gemmi.read_structure(str(path))[0]] == [
        expected,
        "B",
    ]
    assert [row.str(0) for row in block.find("_entity_poly.", ["pdbx_strand_id"])] == [expected]
    file = pdbx.CIFFile.read(path)
    assert file.block["struct"]["title"].as_item() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cif_text_refuses_numbers_that_are_not_finite(bad: float) -> None:
    layout = synthetic_layout([("protein", ["GLY"])])
    coords = np.zeros((4, 3), np.float32)
    coords[2, 1] = bad
    with pytest.raises(ValueError, match="structure x: coordinates"):
        cif_text(PredictedStructure(layout, coords, np.zeros(1, np.float32), "x"))
