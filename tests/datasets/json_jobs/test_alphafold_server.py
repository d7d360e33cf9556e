"""The JSON of AlphaFold's server: each job is a complex, or the reason why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex
from tests.datasets.json_jobs.test_alphafold3 import read_one, write
from tests.support.inputs import read_input


def job(*sequences: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"name": "j", "modelSeeds": [], "sequences": sequences, **top}


def protein(**more: Any) -> dict[str, Any]:
    return {"proteinChain": {"sequence": "MKTS", "count": 1, **more}}


def test_server_jobs_with_every_key(tmp_path: Path) -> None:
    content = [
        job(
            protein(
                count=2,
                modifications=[{"ptmType": "CCD_SEP", "ptmPosition": 4}],
                glycans=[],
                useStructureTemplate=True,
            ),
            {
                "dnaSequence": {
                    "sequence": "GATT",
                    "count": 1,
                    "modifications": [{"modificationType": "CCD_6OG", "basePosition": 1}],
                }
            },
            {"rnaSequence": {"sequence": "GAUU", "count": 1}},
            {"ligand": {"ligand": "CCD_ATP", "count": 1}},
            {"ion": {"ion": "MG", "count": 23}},
            modelSeeds=["7"],
            dialect="alphafoldserver",
            version=1,
        ),
        job(protein(useStructureTemplate=False), name="k"),
    ]
    first, second = read_input(write(tmp_path, content))
    assert isinstance(first, Complex) and isinstance(second, Complex)
    names = [chain.name for chain in first.chains]
    assert names[:6] == ["A", "B", "C", "D", "E", "F"]
    assert names[-3:] == ["Z", "AA", "BA"]  # as AlphaFold 3 names them
    assert first.chains[0].modifications == ((4, "SEP"),)
    assert first.chains[2].modifications == ((1, "6OG"),)
    assert first.chains[4].ccd == ("ATP",) and first.chains[5].ccd == ("MG",)
    assert first.notes[:2] == (
        "seeds: 7 ignored, see model.seed",
        "templates: none are searched, though the job asks for them",
    )
    assert second.notes == ("msa: no alignment for chain A",)


P = "sequences, entry 1 (proteinChain)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            job(protein(glycans=[{"residues": "NAG", "position": 1}])),
            f"{P}, glycans: not supported; list their components and bonds in a Boltz YAML",
        ),
        (job(protein(count=0)), f"{P}, count: expected a positive integer, got '0'"),
        (job(protein(count=100_001)), "100,001 chains exceed the maximum of 100,000"),
        (job(protein(chain="A")), f"{P}: unknown key 'chain'"),
        (job({"proteinChain": {"sequence": "M"}}), f"{P}: the key 'count' is missing"),
        (job({"peptide": {}}), "sequences, entry 1: unknown key 'peptide'; the known keys are"),
        (job(protein(), seed=1), "job 1: unknown key 'seed'"),
        (job(protein(), dialect="x"), "dialect: expected 'alphafoldserver', got 'x'"),
        (job(protein(), version=2), "version: expected '1', got '2'"),
        (
            job(protein(modifications=[{"ptmType": "SEP", "ptmPosition": 4}])),
            f"{P}, modifications, entry 1, ptmType: expected a CCD code such as CCD_ATP, got 'SEP'",
        ),
        (
            job({"ion": {"ion": "M G", "count": 1}}),
            "sequences, entry 1 (ion), ion: expected a CCD code such as ATP, got 'M G'",
        ),
        (job(protein(sequence="MK?")), "chain A: invalid letters '?' in the protein sequence"),
    ],
)
def test_server_mistakes_make_one_job_invalid(tmp_path: Path, content: Any, expected: str) -> None:
    bad, good = read_input(write(tmp_path, [content, job(protein(), name="good")]))
    assert isinstance(bad, InvalidComplex)
    assert bad.name == "j" and bad.reason.startswith(expected)
    assert isinstance(good, Complex)


def test_server_jobs_without_a_name_are_numbered(tmp_path: Path) -> None:
    [record] = read_input(write(tmp_path, [{"sequences": [protein()]}]))
    assert isinstance(record, InvalidComplex)
    assert (record.name, record.reason) == ("job 1", "job 1: the key 'name' is missing")


def test_server_format_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, [job(protein())], "jobs.txt")
    assert read_one(path, format="alphafold-server").chains[0].sequence == "MKTS"
    with pytest.raises(ValueError, match="expected a list of jobs, got the keys a"):
        list(read_input(write(tmp_path, {"a": 1}), format="alphafold-server"))
    with pytest.raises(ValueError, match="the list of jobs is empty"):
        list(read_input(write(tmp_path, []), format="alphafold-server"))
