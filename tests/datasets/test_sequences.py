"""Sequences by accession: entries, isoforms, mature chains, ranges."""

import gzip
import time
from hashlib import sha256
from pathlib import Path

import pytest

from foldcp.datasets.msas import open_msas
from foldcp.datasets.sequences import SequenceHit, accession_of, normalize, read_sequences

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real databases is not here"
)


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "s.fasta"
    path.write_text(
        ">sp|P12345|AATM_RABIT Aspartate aminotransferase OS=Oryctolagus\nmktayiak\nQRSTVWYA*\n"
        ">  P12345-2\nMKTW\n>tr|A0A024RBG1|X_HUMAN\nGG SH\n>mine some text\nACDW\n"
        ">P12345 again\nMKTAYIAKQRSTVWYA\n>Q11111\n"
    )
    return path


@pytest.mark.parametrize(
    ("accession", "expected"),
    [
        ("P12345", SequenceHit("MKTAYIAKQRSTVWYA", "P12345")),
        ("p12345", SequenceHit("MKTAYIAKQRSTVWYA", "P12345")),
        ("P12345-", SequenceHit("MKTAYIAKQRSTVWYA", "P12345")),
        ("P12345-2", SequenceHit("MKTW", "P12345-2")),
        (
            "P12345-3",
            SequenceHit(
                "MKTAYIAKQRSTVWYA", "P12345", "sequence: full-length P12345 used for P12345-3"
            ),
        ),
        (
            "P12345-PRO_0000000092",
            SequenceHit(
                "MKTAYIAKQRSTVWYA",
                "P12345",
                "sequence: full-length P12345 used for P12345-PRO_0000000092",
            ),
        ),
        ("P12345:3-5", SequenceHit("TAY", "P12345:3-5")),
        ("P12345-2:2-4", SequenceHit("KTW", "P12345-2:2-4")),
        (
            "P12345-9:1-2",
            SequenceHit("MK", "P12345:1-2", "sequence: full-length P12345 used for P12345-9"),
        ),
        ("A0A024RBG1", SequenceHit("GGSH", "A0A024RBG1")),
        ("mine", SequenceHit("ACDW", "mine")),
        ("Q11111", SequenceHit("", "Q11111")),
        ("mine-2", None),  # what a suffix means is known for UniProt alone
        ("MINE", None),
        ("P12345-A", None),
        ("Q99999", None),
        ("Q99999:1-2", None),
    ],
)
def test_sequences_find(fasta: Path, accession: str, expected: SequenceHit | None) -> None:
    assert read_sequences([fasta]).find(accession) == expected


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ("0-3", "P12345 has residues 1 to 16 only"),
        ("3-17", "P12345 has residues 1 to 16 only"),
        ("5-4", "the range begins after its end"),
    ],
)
def test_find_refuses_a_range_outside_of_the_sequence(fasta: Path, span: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"P12345:{span}: {reason}"):
        read_sequences([fasta]).find(f"P12345:{span}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (">P1\nMK\n>P2\nAA\n>P1\nMW\n", "two different sequences have the accession 'P1'"),
        (">P1\nMK\n>\nAA\n", "a header without an accession"),
        ("P1,MK\n", "not a FASTA file, it starts with 'P1,MK'"),
    ],
)
def test_read_sequences_refuses_other_files(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "s.fasta"
    path.write_text(content)
    with pytest.raises(ValueError, match=expected) as caught:
        read_sequences([path])
    assert str(path) in str(caught.value)


def test_accession_of_headers_and_normalize_of_letters() -> None:
    headers = [
        "P12345",
        "P12345 name",
        "P12345\tname",
        "sp|P12345.2|A_B",
        "TR|P12345|A_B x",
        "P12345|BCL6_HUMAN",
    ]
    assert {accession_of(header) for header in headers} == {"P12345"}
    assert normalize("mk t\nay\t*") == "MKTAY"
    assert normalize("M*K") == "M*K"
    assert normalize("Mß") == "Mß"  # not the serines that str.upper makes of it


@needs_data
def test_read_sequences_of_a_proteome_takes_less_than_a_second() -> None:
    path = SHARED / "inputs" / "human_proteins_uniprot.fasta.gz"
    start = time.process_time()
    sequences = read_sequences([path])
    seconds = time.process_time() - start
    with gzip.open(path, "rt") as file:
        lines = file.read().split("\n")
    assert len(sequences.by_accession) == sum(line.startswith(">") for line in lines) == 19504
    letters = sum(len(line) for line in lines if not line.startswith(">"))
    assert sum(map(len, sequences.by_accession.values())) == letters
    assert seconds < 1.0


def test_find_searches_by_hash_then_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256(b"MKTAY").hexdigest()
    for name in ["P1.csv", "P1.a3m", "P2.a3m.gz", f"{digest}.a3m", "P3.txt", ".a3m"]:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path.parent)
    msas = open_msas([Path(tmp_path.name)])
    assert msas.find("MKTAY", ["P1"]) == tmp_path / f"{digest}.a3m"
    assert msas.find("MKTAW", ["P1"]) == tmp_path / "P1.csv"
    assert msas.find("MKTAW", ["P9", "P2"]) == tmp_path / "P2.a3m.gz"
    assert msas.find("MKTAW", ["P3"]) is None
    assert msas.find("MKTAW", [""]) is None
