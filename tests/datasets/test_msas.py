"""MSA files of whole records, found by the record's name."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from foldcp.complex import Chain, Complex, InvalidComplex, Record
from foldcp.datasets.msas import msa_notes, open_msas, paired_name
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, only_complex
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, FoundPairs
from foldcp.pipeline.msa_search.store import MsaStore
from tests.support.inputs import read_input

ONE = "MKTAYIAKQRQISFVKSHFS"
TWO = "GSHMRYAAC"


@pytest.fixture
def msas(tmp_path: Path) -> Path:
    folder = tmp_path / "msas"
    folder.mkdir()
    (folder / "mono.a3m").write_text(f">q\n{ONE}\n")
    (folder / "homo.a3m").write_text(f"#20\t2\n>101\n{ONE}\n")
    (folder / "dimer.a3m").write_text(f"#20,9\t1,1\n>101\t102\n{ONE}{TWO}\n")
    (folder / "packed.a3m.gz").write_bytes(
        gzip.compress(f"\ufeff#20,9\t2,1\r\n>101\n{ONE}{TWO}\n".encode())
    )
    (folder / "two_words__x.a3m").write_text(f">q\n{ONE}\n")
    return folder


def _csv(folder: Path, msas: Path, name: str, sequence: str) -> Record:
    (folder / "q.csv").write_text(f"id,sequence\n{name},{sequence}\n")
    [record] = read_input(folder / "q.csv", msas=msas)
    return record


def _fasta(folder: Path, msas: Path, name: str, sequence: str) -> Record:
    (folder / "q.fasta").write_text(f">{name}\n{sequence}\n")
    [record] = read_input(folder / "q.fasta", msas=msas)
    return record


@pytest.mark.parametrize("form", [_csv, _fasta])
@pytest.mark.parametrize(
    ("name", "sequence", "file"),
    [
        ("mono", ONE, "mono.a3m"),
        ("homo", f"{ONE}:{ONE}", "homo.a3m"),
        ("mono", f"{ONE}:{ONE}", "mono.a3m"),
        ("dimer", f"{ONE}:{TWO}", "dimer.a3m"),
        ("packed", f"{ONE}:{TWO}:{ONE}", "packed.a3m.gz"),
        ("two words (x", ONE, "two_words__x.a3m"),
    ],
)
def test_find_record_takes_the_name_of_the_record(
    tmp_path: Path, msas: Path, form: object, name: str, sequence: str, file: str
) -> None:
    assert callable(form)
    record = form(tmp_path, msas, name, sequence)
    assert isinstance(record, Complex)
    assert {chain.msa for chain in record.chains} == {msas / file}
    assert record.notes == ()


@pytest.mark.parametrize(
    ("name", "sequence", "reason"),
    [
        (
            "mono",
            f"{ONE}:{TWO}",
            "mono.a3m: has the name of a record of several chains, but its first line",
        ),
        (
            "homo",
            f"{ONE}:{TWO}",
            "homo.a3m: aligns chains of 20 residues, but the record's have 20, 9",
        ),
        (
            "dimer",
            f"{TWO}:{ONE}",
            "dimer.a3m: aligns chains of 20, 9 residues, but the record's have 9, 20",
        ),
        (
            "dimer",
            f"{ONE}:{TWO}:MKT",
            "dimer.a3m: aligns chains of 20, 9 residues, but the record's have 20, 9, 3",
        ),
    ],
)
def test_find_record_refuses_a_file_of_other_chains(
    tmp_path: Path, msas: Path, name: str, sequence: str, reason: str
) -> None:
    record = _csv(tmp_path, msas, name, sequence)
    assert isinstance(record, InvalidComplex)
    assert record.reason.startswith(f"{msas}/{reason}")


def test_find_gives_a_yaml_the_msa_of_its_name(tmp_path: Path, msas: Path) -> None:
    path = tmp_path / "dimer.yaml"
    path.write_text(
        f"sequences:\n- protein: {{id: [A, C], sequence: {ONE}}}\n- protein: {{id: B, "
        f"sequence: {TWO}}}\n"
    )
    [record] = read_input(path, msas=msas)
    assert isinstance(record, Complex)
    assert {chain.msa for chain in record.chains} == {msas / "dimer.a3m"}


def test_find_refuses_a_pipe_when_it_would_be_used(tmp_path: Path, msas: Path) -> None:
    os.mkfifo(msas / "pipe.a3m")
    (msas / "zero.a3m").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        for sequence in (ONE, f"{ONE}:{TWO}"):
            record = _csv(tmp_path, msas, name, sequence)
            assert isinstance(record, InvalidComplex)
            assert (
                record.reason
                == f"{msas}/{name}.a3m: not a regular file (a pipe, a socket or a device)"
            )
    assert isinstance(_csv(tmp_path, msas, "other", ONE), Complex)


def test_open_msas_refuses_circular_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="a: not a folder of alignments"):
        open_msas([tmp_path / "a"])


def test_msa_notes_count_chains_without_an_msa(tmp_path: Path, msas: Path) -> None:
    table = tmp_path / "t.csv"

    def notes_of(text: str, folder: Path | None = msas) -> list[str]:
        table.write_text("id,sequence\n" + text)
        sources = InputSpec(table, InputOptions(msas=(folder,) if folder else ()))
        return input_warnings(
            sources,
            [record for record in read_input(table, msas=folder) if isinstance(record, Complex)],
        )

    assert notes_of(f"x,{ONE}:{TWO}\ny,{ONE}:{ONE}\n") == [
        f"0 of 4 chains have an alignment in {msas}"
    ]
    assert notes_of(f"mono,{ONE}\ny,{ONE}:{ONE}\n") == [
        f"1 of 3 chains have an alignment in {msas}"
    ]
    assert notes_of(f"mono,{ONE}\n") == []
    assert notes_of(f"x,{ONE}:{TWO}\n", None) == []


def test_a_paired_alignment_is_an_alignment(tmp_path: Path) -> None:
    paired = tmp_path / "p.a3m"
    chains = (Chain("A", "protein", ONE, paired_msa=paired), Chain("B", "protein", TWO))
    assert msa_notes(chains) == ("msa: no alignment for chain B",)
    sources = InputSpec(tmp_path / "x.fasta", InputOptions(msas=(tmp_path,)))
    assert input_warnings(sources, [Complex("x", chains)]) == [
        f"1 of 2 chains have an alignment in {tmp_path}"
    ]


def test_fasta_notes_chains_that_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.fasta"
    path.write_text(f">chain_A\n{ONE}\n>chain_B\n{TWO}\n")
    records = [record for record in read_input(path) if isinstance(record, Complex)]
    assert input_warnings(InputSpec(path), records) == [
        f"{path}: 2 records of one chain, each folded alone; join the chains of one complex by ':'"
    ]
    with pytest.raises(
        ValueError,
        match=r"holds several complexes.*the chains of one complex are joined by ':'",
    ):
        only_complex(InputSpec(path))
    path.write_text(">bad\nM1\n>worse\nM2\n")
    with pytest.raises(ValueError, match=r"holds several complexes; `foldcp score` folds them$"):
        only_complex(InputSpec(path))
    path.write_text(f">pair\n{ONE}:{TWO}\n>single\n{TWO}\n")
    records = [record for record in read_input(path) if isinstance(record, Complex)]
    assert input_warnings(InputSpec(path), records) == []


def test_with_msas_gives_msas_to_proteins_only(tmp_path: Path) -> None:
    folder = tmp_path / "msas"
    folder.mkdir()
    (folder / "job.a3m").touch()
    (tmp_path / "job.fasta").write_text(
        ">protein|name=A\nACGT\n>dna|name=B\nACGT\n>ligand|name=C\nCCO\n"
    )
    [record] = read_input(tmp_path / "job.fasta", msas=folder)
    assert isinstance(record, Complex)
    assert [chain.msa for chain in record.chains] == [folder / "job.a3m", None, None]


CORUM = (
    "complex_id\tcomplex_name\torganism\tsubunits_uniprot_id\tsubunits_stoichiometry\n"
    "1\tpair\tHuman\tP00001;P00002\t\n"
)
YAML = f"""version: 1
sequences:
- protein: {{id: [A, C], sequence: {ONE}}}
- protein: {{id: B, sequence: {TWO}}}
"""
JOB = {
    "name": "pair",
    "modelSeeds": [1],
    "dialect": "alphafold3",
    "version": 1,
    "sequences": [
        {"protein": {"id": "A", "sequence": ONE}},
        {"protein": {"id": "B", "sequence": TWO}},
    ],
}
PAIR_INPUTS = {
    "pair.yaml": YAML,
    "pair.fasta": f">pair\n{ONE}:{TWO}:{ONE}\n",
    "pair.csv": f"id,sequence\npair,{ONE}:{TWO}\n",
    "chai.fasta": f">protein|name=A\n{ONE}\n>protein|name=B\n{TWO}\n",
    "corum.txt": CORUM,
    "job.json": json.dumps(JOB),
}


@pytest.mark.parametrize("name", PAIR_INPUTS)
def test_every_format_finds_the_paired_alignment_of_a_store(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PAIR_INPUTS[name])
    fasta = tmp_path / "sequences.fa"
    fasta.write_text(f">sp|P00001|A_HUMAN\n{ONE}\n>sp|P00002|B_HUMAN\n{TWO}\n")
    with MsaStore(tmp_path / "store", {}) as store:
        for sequence in (ONE, TWO):
            store.add(FoundAlignment(sequence, (AlignedRow(sequence),) * 3))
        store.add_pairs(FoundPairs((TWO, ONE), f"#9,20\t1,1\n>101\t102\n{TWO}{ONE}\n"))
    options = InputOptions(msas=(tmp_path / "store",), sequences=(fasta,))
    found = only_complex(InputSpec(tmp_path / name, options))
    for chain in found.chains:
        assert chain.paired_msa == tmp_path / "store" / paired_name([ONE, TWO])
        assert chain.msa is not None
        assert chain.msa_statistics is not None and chain.msa_statistics.depth == 3


def test_a_yaml_keeps_alignments_of_its_own(tmp_path: Path) -> None:
    text = PAIR_INPUTS["pair.yaml"].replace(f"sequence: {TWO}", f"sequence: {TWO}, msa: own.a3m")
    (tmp_path / "pair.yaml").write_text(text)
    (tmp_path / "own.a3m").write_text(f">q\n{TWO}\n")
    with MsaStore(tmp_path / "store", {}) as store:
        store.add_pairs(FoundPairs((TWO, ONE), f"#9,20\t1,1\n>101\t102\n{TWO}{ONE}\n"))
    options = InputOptions(msas=(tmp_path / "store",))
    chains = {c.name: c for c in only_complex(InputSpec(tmp_path / "pair.yaml", options)).chains}
    assert chains["A"].paired_msa and chains["C"].paired_msa
    assert chains["B"].paired_msa is None and chains["B"].msa == tmp_path / "own.a3m"
