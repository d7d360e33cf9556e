"""AlphaFold 3's JSON, key by key; every mistake names the entry and the value."""

from __future__ import annotations

import gzip
import json
import lzma
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Bond, Complex, Template
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msa
from foldcp.files import EmbeddedFile, read_file
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import make_task_list
from tests.support.inputs import read_input
from tests.support.synthetic_inputs import write_template

SHARED = Path(__file__).parents[4] / "shared"
A3M = ">query\nMKTS\n>hit\nMK-S\n"


def job(*sequences: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {
        "name": "a job",
        "modelSeeds": [1, 2],
        "sequences": sequences or [protein()],
        "dialect": "alphafold3",
        "version": 4,
        **top,
    }


def protein(**more: Any) -> dict[str, Any]:
    return {"protein": {"id": "A", "sequence": "MKTS", **more}}


def template(**more: Any) -> dict[str, Any]:
    found = {"mmcif": "data_x\n", "queryIndices": [0, 3], "templateIndices": [7, 9], **more}
    return protein(templates=[{key: value for key, value in found.items() if value != ""}])


def write(folder: Path, content: Any, name: str = "job.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def read_one(path: Path, **options: Any) -> Complex:
    [record] = read_input(path, **options)
    assert isinstance(record, Complex), record
    return record


def test_alphafold3_with_every_key(tmp_path: Path) -> None:
    (tmp_path / "paired.a3m").write_text(A3M)
    (tmp_path / "t.cif").write_text("data_t\n")
    mapped = {"queryIndices": [0, 2], "templateIndices": [4, 1]}
    content = job(
        protein(
            id=["A", "B"],
            modifications=[{"ptmType": "SEP", "ptmPosition": 4}],
            description="the first",
            unpairedMsa=A3M,
            pairedMsaPath="paired.a3m",
            templates=[{"mmcif": "data_x\n", **mapped}, {"mmcifPath": "t.cif", **mapped}],
        ),
        {
            "rna": {
                "id": "R",
                "sequence": "GACU",
                "unpairedMsa": ">r\nGACU\n",
                "modifications": [{"modificationType": "2MG", "basePosition": 1}],
            }
        },
        {
            "dna": {
                "id": "D",
                "sequence": "GACT",
                "modifications": [{"modificationType": "6OG", "basePosition": 1}],
            }
        },
        {"ligand": {"id": ["L", "M"], "ccdCodes": ["NAG", "FUC"]}},
        {"ligand": {"id": "S", "smiles": "CC\\C=C\\C"}},
        bondedAtomPairs=[[["A", 4, "OG"], ["L", 1, "C1"]], [["L", 1, "O6"], ["L", 2, "C1"]]],
        userCCD=None,
    )
    found = read_one(write(tmp_path, content))
    path = (tmp_path / "job.json").resolve()
    assert found.name == "a job"
    assert [chain.name for chain in found.chains] == ["A", "B", "R", "D", "L", "M", "S"]
    first = found.chains[0]
    assert first.modifications == ((4, "SEP"),)
    assert first.msa == EmbeddedFile(path, "/sequences/0/protein/unpairedMsa", ".a3m")
    assert read_file(first.msa).data == A3M.encode()
    assert first.paired_msa == (tmp_path / "paired.a3m").resolve()
    assert not first.single_sequence
    assert found.chains[2].modifications == ((1, "2MG"),)
    assert found.chains[4].ccd == ("NAG", "FUC")
    assert found.chains[6].smiles == "CC\\C=C\\C"
    residues = ((1, 5), (3, 2))
    inside = EmbeddedFile(path, "/sequences/0/protein/templates/0/mmcif", ".cif")
    assert read_file(inside).data == b"data_x\n"
    assert found.templates == (
        Template(inside, ("A", "B"), residues=residues),
        Template((tmp_path / "t.cif").resolve(), ("A", "B"), residues=residues),
    )
    assert found.bonds == (
        Bond(("A", 4, "OG"), ("L", 1, "C1")),
        Bond(("L", 1, "O6"), ("L", 2, "C1")),
    )
    assert found.notes == (
        "seeds: 1, 2 ignored, see model.seed",
        "msa: the alignments of RNA R are not used",
    )


def test_alphafold3_says_whether_an_alignment_is_meant(tmp_path: Path) -> None:
    """ "" is none; null and nothing mean that one is to be found."""
    folder = tmp_path / "msas"
    folder.mkdir()
    by_hash = folder / f"{sha256(b'MKTS').hexdigest()}.a3m"
    by_hash.write_text(A3M)
    none = read_one(write(tmp_path, job(protein(unpairedMsa="", pairedMsa=""))), msas=folder)
    assert none.chains[0].single_sequence and none.chains[0].msa is None
    for keys in ({}, {"unpairedMsa": None, "pairedMsa": None}):
        path = write(tmp_path, job(protein(**keys)))
        assert read_one(path, msas=folder).chains[0].msa == by_hash
        alone = read_one(path)
        assert alone.chains[0].msa is None and not alone.chains[0].single_sequence
        assert "msa: no alignment for chain A" in alone.notes
    paired = read_one(write(tmp_path, job(protein(unpairedMsa="", pairedMsa=A3M))), msas=folder)
    assert paired.chains[0].msa is None and paired.chains[0].paired_msa is not None
    unpaired = read_one(write(tmp_path, job(protein(unpairedMsa=A3M, pairedMsa=""))))
    assert unpaired.chains[0].msa and unpaired.chains[0].paired_msa is None


def test_alphafold3_copies_in_two_entries_share_an_equal_alignment(tmp_path: Path) -> None:
    modified = [{"ptmType": "SEP", "ptmPosition": 4}]
    entries = [
        protein(unpairedMsa=A3M, pairedMsa=""),
        protein(id="B", unpairedMsa=A3M, pairedMsa="", modifications=modified),
    ]
    first, second = read_one(write(tmp_path, job(*entries))).chains
    assert first.msa == second.msa
    entries[1]["protein"]["unpairedMsa"] = A3M + ">more\nMMMM\n"
    with pytest.raises(ValueError, match="chains A and B: copies of one protein have different"):
        read_one(write(tmp_path, job(*entries)))


def test_alphafold3_may_be_gzip(tmp_path: Path) -> None:
    path = tmp_path / "job.json.gz"
    path.write_bytes(
        gzip.compress(json.dumps(job(protein(unpairedMsa=A3M, pairedMsa=""))).encode())
    )
    msa = read_one(path).chains[0].msa
    assert msa is not None and read_file(msa).data == A3M.encode()


def test_alphafold3_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.a3m").write_text(A3M)
    (tmp_path / "secret.cif").write_text("data_x\n")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link.a3m").symlink_to(tmp_path / "secret.a3m")
    for name in ("../secret.a3m", str(tmp_path / "secret.a3m"), "link.a3m"):
        path = write(inside, job(protein(unpairedMsaPath=name, pairedMsa="")))
        with pytest.raises(ValueError) as caught:
            read_one(path)
        assert str(caught.value).startswith(
            f"{path}: sequences, entry 1 (protein), unpairedMsaPath: "
        )
        assert "outside of the input's folder; --allow-outside reads it" in str(caught.value)
        found = read_one(path, allow_outside=True).chains[0].msa
        assert found == (tmp_path / "secret.a3m").resolve()
    path = write(inside, job(template(mmcif="", mmcifPath="../secret.cif")))
    with pytest.raises(ValueError, match=r"mmcifPath: '\.\./secret\.cif' leads to"):
        read_one(path)


def test_alphafold3_names_no_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.a3m").write_text(A3M)
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "in", job(protein(unpairedMsaPath="m.a3m", pairedMsa="")))
    with pytest.raises(ValueError, match=r"unpairedMsaPath: there is no file m.a3m in "):
        read_one(path)


P = "sequences, entry 1 (protein)"
LIGAND = {"ligand": {"id": "L", "ccdCodes": ["ATP"]}}
SMILES = {"ligand": {"id": "S", "smiles": "CC"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (job(dialect="alphafold4"), "dialect: expected 'alphafold3', got 'alphafold4'"),
        (job(version=5), "version: expected one of 1 to 4, got '5'"),
        ({"modelSeeds": [1]}, "the file: the key 'name' is missing"),
        (job(seeds=[1]), "the file: unknown key 'seeds'; the known keys are name, modelSeeds"),
        (job(userCCD="data_LIG"), "userCCD: components defined by the user are not supported"),
        (job(userCCDPath="x.cif"), "userCCDPath: components defined by the user"),
        (job({"proteins": {}}), "sequences, entry 1: unknown key 'proteins'"),
        (job(protein(msa="x")), f"{P}: unknown key 'msa'"),
        (job({"protein": {"id": "A"}}), f"{P}: the key 'sequence' is missing"),
        (job(protein(id=[])), f"{P}, id: the list is empty"),
        (job(protein(sequence="MK1")), "chain A: invalid letters '1' in the protein sequence"),
        (job(protein(), LIGAND | {}, protein()), "complex a job: two chains are named 'A'"),
        (
            job(protein(modifications=[{"ptmType": "SEP", "ptmPosition": 9}])),
            "chain A: modification SEP at position 9, but the chain has 4 residues",
        ),
        (
            job(protein(modifications=[{"ptmType": "S P", "ptmPosition": 1}])),
            f"{P}, modifications, entry 1, ptmType: expected a CCD code such as ATP, got 'S P'",
        ),
        (
            job(protein(modifications=[{"ptmType": "SEP", "ptmPosition": 0}])),
            f"{P}, modifications, entry 1, ptmPosition: expected a positive integer, got '0'",
        ),
        (
            job(protein(unpairedMsa=A3M)),
            f'{P}: pairedMsa is missing; give both unpairedMsa and pairedMsa, "" for none, or',
        ),
        (
            job(protein(unpairedMsa=A3M, unpairedMsaPath="x.a3m", pairedMsa="")),
            f"{P}: give either unpairedMsa or unpairedMsaPath",
        ),
        (
            job(protein(unpairedMsaPath="no.a3m", pairedMsa="")),
            f"{P}, unpairedMsaPath: there is no file no.a3m in ",
        ),
        (
            job(protein(unpairedMsaPath="job.json", pairedMsa="")),
            f"{P}, unpairedMsaPath: 'job.json' does not end in .a3m, .a3m.gz",
        ),
        (
            job(protein(unpairedMsa=["x"], pairedMsa="")),
            f"{P}, unpairedMsa: expected a string, got a list of 1",
        ),
        (job(template(mmcif="")), f"{P}, templates, entry 1: give either mmcif or mmcifPath"),
        (
            job(template(queryIndices=[0])),
            f"{P}, templates, entry 1: 1 in queryIndices, but 2 in templateIndices",
        ),
        (
            job(template(queryIndices=[0, 4])),
            f"{P}, templates, entry 1, queryIndices: 4 (from 0), but the chain has 4 residues",
        ),
        (
            job(template(queryIndices=[0, 0])),
            f"{P}, templates, entry 1, queryIndices: 0 occurs twice",
        ),
        (
            job(template(templateIndices=[-1, 0])),
            f"{P}, templates, entry 1, templateIndices: expected numbers from 0, got '-1'",
        ),
        (
            job(template(queryIndices=[], templateIndices=[])),
            f"{P}, templates, entry 1: queryIndices is empty",
        ),
        (
            job({"ligand": {"id": "L", "ccdCodes": ["ATP"], "smiles": "C"}}),
            "sequences, entry 1 (ligand): give either ccdCodes or smiles",
        ),
        (
            job({"ligand": {"id": "L", "smiles": "C C"}}),
            "ligand L: white space in SMILES 'C C'",
        ),
        (
            job(LIGAND, bondedAtomPairs=[[["L", 1, "C1"]]]),
            "bondedAtomPairs, entry 1: expected two atoms, got a list of 1",
        ),
        (
            job(LIGAND, bondedAtomPairs=[[["L", 1, "C1"], ["Z", 1, "C1"]]]),
            "bondedAtomPairs, entry 1: unknown chain 'Z'; the chains are L",
        ),
        (
            job(LIGAND, bondedAtomPairs=[[["L", 2, "C1"], ["L", 1, "C1"]]]),
            "bondedAtomPairs, entry 1: chain L has no residue 2 (of 1)",
        ),
        (
            job(LIGAND, SMILES, bondedAtomPairs=[[["L", 1, "C1"], ["S", 1, "C1"]]]),
            "bondedAtomPairs, entry 1: chain S is a SMILES, whose atoms have no names",
        ),
    ],
)
def test_alphafold3_mistakes(tmp_path: Path, content: Any, expected: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as caught:
        read_one(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_alphafold3_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"dialect": "alphafold3",')
    with pytest.raises(ValueError, match=r"job.json: not valid JSON: .* \(line 1, column"):
        read_one(path)


@pytest.mark.parametrize("content", [job(name="a\ud800"), job(**{"\ud800": 1})])
def test_alphafold3_with_half_a_character_is_refused(tmp_path: Path, content: Any) -> None:
    """Tables cannot hold it."""
    with pytest.raises(ValueError, match="not valid JSON: half of a surrogate pair in '"):
        read_one(write(tmp_path, content))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16"])
def test_alphafold3_files_inside_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    content = job(protein(unpairedMsa=A3M, pairedMsa=""), name="é", modelSeeds=["@"])
    text = json.dumps(content, ensure_ascii=False).replace('"@"', "9" * 5_000)
    path = tmp_path / "job.json"
    path.write_bytes(text.encode(encoding))
    [chain] = read_one(path).chains
    assert chain.msa is not None
    assert read_file(chain.msa).data.decode() == A3M


def test_alphafold3_that_is_no_longer_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, job(protein(unpairedMsa=A3M, pairedMsa="")))
    msa = read_one(path).chains[0].msa
    assert msa is not None
    path.write_text("{")
    with pytest.raises(ValueError, match=r"job\.json: not valid JSON: Expecting"):
        read_file(msa)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of cases is not here")
def test_cases_of_other_tools_are_read_or_named(tmp_path: Path) -> None:
    folder = SHARED / "cases" / "20_alphafold3_and_server_json" / "in"
    found = read_one(folder / "af3.json")
    assert [chain.name for chain in found.chains] == ["A", "B", "C", "D"]
    assert found.chains[0].modifications == ((13, "SEP"),)
    assert found.chains[0].single_sequence
    server = read_one(folder / "server.json")
    assert [chain.name for chain in server.chains] == ["A", "B", "C"]
    sequences = tmp_path / "s.fasta"
    sequences.write_text(">P11111\nMKTAY\n>P22222\nGSHWGSHWGSHW\n")
    lines = list(read_input(folder / "alphapulldown.txt", sequences))
    assert [len(line.chains) for line in lines if isinstance(line, Complex)] == [3, 2]
    with pytest.raises(ValueError, match="BoltzGen"):
        list(read_input(folder / "boltzgen.yaml"))


def test_alphafold3_alignments_packed_by_xz(tmp_path: Path) -> None:
    (tmp_path / "m.a3m.xz").write_bytes(lzma.compress(A3M.encode()))
    path = write(tmp_path, job(protein(unpairedMsaPath="m.a3m.xz", pairedMsa="")))
    [chain] = read_one(path).chains
    assert read_chain_msa(chain, MsaSettings()).residues.shape == (2, 4)
    (tmp_path / "m.a3m.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    path = write(tmp_path, job(protein(unpairedMsaPath="m.a3m.zst", pairedMsa="")))
    with pytest.raises(ValueError, match=r"'m.a3m.zst' does not end in .a3m, .a3m.gz, .a3m.xz"):
        read_one(path)


def test_a_residue_that_a_template_lacks_is_told_when_planned(tmp_path: Path) -> None:
    write_template(tmp_path / "t.cif")
    path = write(tmp_path, job(template(mmcif="", mmcifPath="t.cif", templateIndices=[0, 99])))
    config = load(overrides=["msa.missing=single-sequence"])
    planned = make_task_list(read_input(path), config, "weights", alignments_follow=True)
    assert not planned.tasks
    [record] = planned.invalid
    assert "t.cif: there is no residue 100 in its chain A, which has" in record.reason
