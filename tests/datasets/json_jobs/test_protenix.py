"""Protenix's JSON: alignments in folders, bonds and constraints by the numbers of entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Bond, Complex, Contact, InvalidComplex, Pocket
from tests.datasets.json_jobs.test_alphafold3 import read_one, write
from tests.support.inputs import read_input

P = "sequences, entry 1 (proteinChain)"
ATP = {"ligand": {"ligand": "CCD_ATP", "count": 1}}


def job(*sequences: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"name": "j", "sequences": sequences or [protein(), ATP], **top}


def protein(**more: Any) -> dict[str, Any]:
    return {"proteinChain": {"sequence": "MKTS", "count": 1, "id": ["P"], **more}}


def ends(first: tuple[Any, ...], second: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """The two ends of a bond or contact, each (entity, copy, position, atom) or less."""
    keys = ("entity", "copy", "position", "atom")
    return {
        **{f"{key}1": value for key, value in zip(keys, first, strict=False) if value},
        **{f"{key}2": value for key, value in zip(keys, second, strict=False) if value},
        **more,
    }


def test_protenix_with_every_key(tmp_path: Path) -> None:
    folder = tmp_path / "msa" / "1"
    folder.mkdir(parents=True)
    for name in ("non_pairing.a3m", "pairing.a3m"):
        (folder / name).write_text(">q\nMKTS\n")
    (tmp_path / "u.a3m").write_text(">q\nMKTV\n")
    content = job(
        protein(count=2, id=["H", "B"], msa={"precomputed_msa_dir": "./msa/1", "pairing_db": "u"}),
        {
            "proteinChain": {
                "sequence": "MKTV",
                "count": 1,
                "unpairedMsaPath": "u.a3m",
                "templatesPath": "t.hhr",
                "modifications": [{"ptmType": "CCD_SEP", "ptmPosition": 3}],
            }
        },
        {"rnaSequence": {"sequence": "GAUU", "count": 1, "unpairedMsaPath": "r.a3m"}},
        {"dnaSequence": {"sequence": "GATT", "count": 1}},
        {"ligand": {"ligand": "CCD_NAG_BMA", "count": 2}},
        {"ligand": {"ligand": "CCO", "count": 1}},
        {"ion": {"ion": "MG", "count": 1}},
        modelSeeds=[5],
        covalent_bonds=[
            ends((5, 0, "1", "O4"), (5, 0, 2, "C1")),
            {
                "left_entity": "2",
                "left_copy": 1,
                "left_position": "3",
                "left_atom": "OG",
                "right_entity": "5",
                "right_copy": 2,
                "right_position": "1",
                "right_atom": "C1",
            },
        ],
        constraint={
            "contact": [
                ends((1, 2, 4), (2, 1, 1), max_distance=15),
                ends((1, 1, 4), (7, 1, 1, "MG"), max_distance=6, min_distance=0),
            ],
            "pocket": {
                "binder_chain": {"entity": 6, "copy": 1},
                "contact_residues": [{"entity": 1, "copy": 1, "position": 2}],
                "max_distance": 8,
            },
        },
    )
    found = read_one(write(tmp_path, [content]))
    names = [chain.name for chain in found.chains]
    assert names == ["H", "B", "A", "C", "D", "E", "F", "G", "I"]  # free letters, in order
    assert found.chains[1].msa == (folder / "non_pairing.a3m").resolve()
    assert found.chains[1].paired_msa == (folder / "pairing.a3m").resolve()
    assert found.chains[2].msa == (tmp_path / "u.a3m").resolve()
    assert found.chains[2].paired_msa is None
    assert found.chains[2].modifications == ((3, "SEP"),)
    assert found.chains[5].ccd == ("NAG", "BMA") and found.chains[7].smiles == "CCO"
    assert found.bonds == (
        Bond(("E", 1, "O4"), ("E", 2, "C1")),
        Bond(("F", 1, "O4"), ("F", 2, "C1")),
        Bond(("A", 3, "OG"), ("F", 1, "C1")),
    )
    assert found.contacts == (
        Contact(("B", 4), ("A", 1), 15.0),
        Contact(("H", 4), ("I", "MG"), 6.0),
    )
    assert found.pockets == (Pocket("G", (("H", 2),), 8.0),)
    assert found.notes == (
        "seeds: 5 ignored, see model.seed",
        "msa: the alignments of RNA C are not used",
        "templates: templatesPath of chains A is not used",
    )


def test_protenix_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "pairing.a3m").write_text(">q\nMKTS\n")
    path = write(tmp_path / "in", [job(protein(msa={"precomputed_msa_dir": ".."}))])
    [record] = read_input(path)
    assert isinstance(record, InvalidComplex)
    assert "outside of the input's folder; --allow-outside reads it" in record.reason
    found = read_one(path, allow_outside=True).chains[0]
    assert found.msa is None and found.paired_msa == (tmp_path / "pairing.a3m").resolve()


def contact(*both: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    return {"contact": [ends(*both, **{"max_distance": 6, **more})]}


def pocket(**more: Any) -> dict[str, Any]:
    residues = [{"entity": 1, "copy": 1, "position": 2}]
    binder = {"entity": 2, "copy": 1}
    return {
        "pocket": {
            "binder_chain": binder,
            "contact_residues": residues,
            "max_distance": 6,
            **more,
        }
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (job(protein(id=["A", "B"])), f"{P}: 2 in id, but count is 1"),
        (job(protein(glycans=[])), f"{P}: unknown key 'glycans'"),
        (
            job(protein(), {"ligand": {"ligand": "FILE_atp.sdf", "count": 1}}),
            "sequences, entry 2 (ligand), ligand: 'FILE_atp.sdf' is a file, which is not supported",
        ),
        (
            job(protein(msa={"precomputed_msa_dir": "no"})),
            f"{P}, msa, precomputed_msa_dir: 'no' has no non_pairing.a3m and no pairing.a3m",
        ),
        (job(protein(msa={"dir": "x"})), f"{P}, msa: unknown key 'dir'"),
        (
            job(protein(unpairedMsaPath="no.a3m")),
            f"{P}, unpairedMsaPath: there is no file no.a3m, neither in",
        ),
        (
            job(covalent_bonds=[ends((1, 1, 4, "OG"), (3, 1, 1, "PG"))]),
            "covalent_bonds, entry 1 (atom 2), entity: there is no entry 3 (of 2)",
        ),
        (
            job(covalent_bonds=[ends((1, 2, 4, "OG"), (2, 1, 1, "PG"))]),
            "covalent_bonds, entry 1 (atom 1), copy: there is no copy 2 (of 1)",
        ),
        (
            job(covalent_bonds=[ends((1, 1, 5, "OG"), (2, 1, 1, "PG"))]),
            "covalent_bonds, entry 1, position1: chain P has no residue 5 (of 4)",
        ),
        (
            job(covalent_bonds=[ends((1, 1, 4, "OG"), (2, 0, 1, "PG"))]),
            "covalent_bonds, entry 1: give both copy1 and copy2, or neither",
        ),
        (
            job(covalent_bonds=[ends((1, 1, 4, "OG"), (2, 1, 1, "PG"), left_atom="OG")]),
            "covalent_bonds, entry 1: left_atom and atom1 are the same key",
        ),
        (
            job(
                protein(count=2, id=["A", "B"]),
                ATP,
                covalent_bonds=[ends((1, 0, 4, "OG"), (2, 0, 1, "PG"))],
            ),
            "covalent_bonds, entry 1: without copies, both entries must have as many of them, not "
            "2 and 1",
        ),
        (
            job(
                protein(),
                {"ligand": {"ligand": "CCO", "count": 1}},
                covalent_bonds=[ends((1, 1, 4, "OG"), (2, 1, 1, "C1"))],
            ),
            "covalent_bonds, entry 1, position2: chain A is a SMILES, whose atoms have no names",
        ),
        (
            job(constraint=contact((1, 1, 4, "CA"), (2, 1, 1, "PG"))),
            "constraint, contact, entry 1 (token 1), atom: contacts are of residues, not of the "
            "atom 'CA' of chain P",
        ),
        (
            job(constraint=contact((1, 1, 4), (2, 1, 1))),
            "constraint, contact, entry 1 (token 2): an atom of the ligand A must be named",
        ),
        (
            job(constraint=contact((1, 1, 4), (2, 1, 1, "PG"), min_distance=3)),
            "constraint, contact, entry 1, min_distance: a least distance is not supported, got",
        ),
        (
            job(constraint=contact((1, 1, 4), (2, 1, 1, "PG"), max_distance=0)),
            "constraint, contact, entry 1, max_distance: expected a distance in Å, got '0'",
        ),
        (
            job(constraint=pocket(contact_residues=[])),
            "constraint, pocket, contact_residues: the list is empty",
        ),
        (
            job(constraint=pocket(binder_chain={"entity": 2, "copy": 4})),
            "constraint, pocket, binder_chain, copy: there is no copy 4 (of 1)",
        ),
        (job(constraint={"distance": []}), "constraint: unknown key 'distance'"),
    ],
)
def test_protenix_mistakes_make_one_job_invalid(
    tmp_path: Path, content: Any, expected: str
) -> None:
    bad, good = read_input(write(tmp_path, [content, job(name="good")]))
    assert isinstance(bad, InvalidComplex)
    assert bad.reason.startswith(expected)
    assert isinstance(good, Complex)
