"""OpenFold3's JSON: each query is a complex, or the reason why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Bond, Complex, InvalidComplex
from tests.datasets.json_jobs.test_alphafold3 import read_one, write
from tests.support.inputs import read_input

P = "chains, entry 1 (protein)"


def protein(**more: Any) -> dict[str, Any]:
    return {"molecule_type": "protein", "chain_ids": "A", "sequence": "MKTS", **more}


def ligand(**more: Any) -> dict[str, Any]:
    return {"molecule_type": "ligand", "chain_ids": ["L"], **more}


def test_openfold3_with_every_key(tmp_path: Path) -> None:
    for name in ("main.a3m", "paired.a3m"):
        (tmp_path / name).write_text(">q\nMKTS\n")
    msas = {"main_msa_file_paths": "main.a3m", "paired_msa_file_paths": ["paired.a3m"]}
    chains = [
        protein(
            molecule_type="PROTEIN",
            chain_ids=["A", "B"],
            non_canonical_residues={"4": "SEP", "1": "MHO"},
            template_entry_chain_ids=["1abc_A"],
            use_msas=True,
            **msas,
        ),
        {
            "molecule_type": "rna",
            "chain_ids": "R",
            "sequence": "GAUU",
            "main_msa_file_paths": "r.a3m",
        },
        {"molecule_type": "dna", "chain_ids": "D", "sequence": "GATT"},
        ligand(ccd_codes=["NAG"]),
        ligand(chain_ids="Z", smiles="CCO"),
    ]
    bonds = [[["A", 4, "OG"], ["L", 1, "C1"]]]
    alone = {"chains": [protein(**msas)], "use_msas": False}
    queries = {
        "first": {"chains": chains, "covalent_bonds": bonds},
        "alone": alone,
        "unpaired": {"chains": [protein(use_paired_msas=False, **msas)], "query_name": "x"},
    }
    first, single, unpaired = read_input(write(tmp_path, {"queries": queries, "seeds": [42]}))
    assert isinstance(first, Complex)
    assert isinstance(single, Complex)
    assert isinstance(unpaired, Complex)
    assert (first.name, single.name) == ("first", "alone")
    assert [chain.name for chain in first.chains] == ["A", "B", "R", "D", "L", "Z"]
    assert first.chains[1].msa == (tmp_path / "main.a3m").resolve()
    assert first.chains[1].paired_msa == (tmp_path / "paired.a3m").resolve()
    assert first.chains[1].modifications == ((1, "MHO"), (4, "SEP"))
    assert first.chains[4].ccd == ("NAG",) and first.chains[5].smiles == "CCO"
    assert first.bonds == (Bond(("A", 4, "OG"), ("L", 1, "C1")),)
    assert first.notes == (
        "seeds: 42 ignored, see model.seed",
        "msa: the alignments of RNA R are not used",
        "templates: the template alignments of chains A, B are not used",
    )
    assert single.chains[0].single_sequence and single.chains[0].msa is None
    assert unpaired.chains[0].msa and unpaired.chains[0].paired_msa is None


@pytest.mark.parametrize(
    ("chains", "expected"),
    [
        ([protein(molecule_type="sugar")], "chains, entry 1, molecule_type: expected protein, rna"),
        ([protein(msa="x")], f"{P}: unknown key 'msa'"),
        ([{"molecule_type": "dna", "chain_ids": "A"}], "chains, entry 1 (dna): the key 'sequence'"),
        (
            [protein(non_canonical_residues={"x": "SEP"})],
            f"{P}, non_canonical_residues: expected a positive integer, got 'x'",
        ),
        (
            [protein(non_canonical_residues={"9": "SEP"})],
            "chain A: modification SEP at position 9, but the chain has 4 residues",
        ),
        (
            [protein(non_canonical_residues=["SEP"])],
            f"{P}, non_canonical_residues: expected codes by position, got a list of 1",
        ),
        (
            [protein(main_msa_file_paths=["a.a3m", "b.a3m"])],
            f"{P}, main_msa_file_paths: 2 files; one alignment is read",
        ),
        (
            [protein(main_msa_file_paths="x.sto")],
            f"{P}, main_msa_file_paths: there is no file x.sto",
        ),
        ([protein(use_msas="maybe")], f"{P}, use_msas: expected true or false, got 'maybe'"),
        (
            [ligand(sdf_file_path="x.sdf")],
            "chains, entry 1 (ligand), sdf_file_path: 'x.sdf' is a file, which is not supported",
        ),
        ([ligand()], "chains, entry 1 (ligand): give either ccd_codes or smiles"),
    ],
)
def test_openfold3_mistakes_make_one_query_invalid(
    tmp_path: Path, chains: Any, expected: str
) -> None:
    queries = {"bad": {"chains": chains}, "good": {"chains": [protein()]}}
    bad, good = read_input(write(tmp_path, {"queries": queries}))
    assert isinstance(bad, InvalidComplex)
    assert bad.name == "bad" and bad.reason.startswith(expected)
    assert isinstance(good, Complex)


def test_openfold3_query_without_a_name_has_its_number(tmp_path: Path) -> None:
    queries = {"q": {"chains": [protein()]}, "": {"chains": [protein()]}}
    records = read_input(write(tmp_path, {"queries": queries}))
    assert [record.name for record in records] == ["q", "query 2"]


def test_openfold3_bonds_need_the_names_of_atoms(tmp_path: Path) -> None:
    bonds = [[["A", 4, 7], ["L", 1, 2]]]
    query = {"chains": [protein(), ligand(ccd_codes="NAG")], "covalent_bonds": bonds}
    [record] = read_input(write(tmp_path, {"queries": {"q": query}}))
    assert isinstance(record, InvalidComplex)
    assert record.reason.startswith("covalent_bonds, entry 1: the atom '7' of chain A is a number")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"queries": []}, "queries: expected queries by name, got a list of 0"),
        ({"queries": {}, "ccd_file_path": "x"}, "the file: unknown key 'ccd_file_path'"),
    ],
)
def test_openfold3_mistakes_at_the_top(tmp_path: Path, content: Any, expected: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as caught:
        read_one(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
