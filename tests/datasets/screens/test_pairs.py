"""Tables of pairs: what is read, what is refused, and how little of it is held at once."""

from __future__ import annotations

import gzip
import tracemalloc
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from tests.support.inputs import read_input

PROTEINS = {
    "P00001": "MKTAY",
    "P00002": "GSHW",
    "P00002-2": "GSH",
    "P00004": "MK7",
}


def read_pairs(
    folder: Path, table: str | bytes, msas: Path | None = None, **options: Any
) -> list[Record]:
    sequences = folder / "s.fasta"
    sequences.write_text("".join(f">{name}\n{letters}\n" for name, letters in PROTEINS.items()))
    path = folder / "pairs.csv"
    path.write_bytes(table.encode() if isinstance(table, str) else table)
    return list(read_input(path, sequences, msas, **options))


def chains(record: Record) -> list[tuple[str, str, str]]:
    assert isinstance(record, Complex), record
    return [(chain.name, chain.accession, chain.sequence) for chain in record.chains]


def reason(record: Record) -> str:
    assert isinstance(record, InvalidComplex), record
    return record.reason


@pytest.mark.parametrize(
    "header",
    [
        "protein_a,protein_b",
        "Protein A,PROTEIN B",
        "protein1,protein2",
        "bait,prey",
        "id1,id2",
        "A,B",
    ],
)
def test_pairs_are_read_by_their_columns(tmp_path: Path, header: str) -> None:
    first, second = read_pairs(tmp_path, f"{header}\nP00001,P00002\nP00002,P00001\n")
    assert first.name == "P00001_P00002"
    assert first.source == "pairs.csv"
    assert chains(first) == [("A", "P00001", "MKTAY"), ("B", "P00002", "GSHW")]
    assert chains(second) == [("A", "P00002", "GSHW"), ("B", "P00001", "MKTAY")]
    assert [first.index, second.index] == [0, 1]


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_pairs_of_other_separators_and_more_columns(tmp_path: Path, separator: str) -> None:
    lines = ["score,prey,bait,name", "0.5,P00002,P00001,mine", "0.1,P00001,P00001,"]
    table = "\n".join(lines).replace(",", separator).encode()
    first, second = read_pairs(tmp_path, gzip.compress(table))
    assert (first.name, chains(first)[0][1]) == ("mine", "P00001")
    assert second.name == "P00001_P00001"


def test_a_pair_of_a_protein_with_itself_is_a_homodimer(tmp_path: Path) -> None:
    [record] = read_pairs(tmp_path, "a,b\nP00001,P00001\n")
    assert chains(record) == [("A", "P00001", "MKTAY"), ("B", "P00001", "MKTAY")]


def test_pairs_share_the_chains_of_a_protein(tmp_path: Path) -> None:
    found = read_pairs(tmp_path, "a,b\nP00001,P00002\nP00001,P00001\nP00002,P00002\n")
    first, second, third = (record.chains for record in found if isinstance(record, Complex))
    assert first[0] is second[0]
    assert first[1] is third[1]


def test_pairs_name_isoforms_ranges_and_obsolete_accessions(tmp_path: Path) -> None:
    obsolete = tmp_path / "sec_ac.txt"
    obsolete.write_text("Q11111 P00001\n")
    table = "a,b\nP00002-2,P00002:2-3\nP00001-3,Q11111\n"
    first, second = read_pairs(tmp_path, table, secondary_accessions=obsolete)
    assert chains(first) == [("A", "P00002-2", "GSH"), ("B", "P00002:2-3", "SH")]
    assert chains(second)[1] == ("B", "P00001", "MKTAY")
    assert second.notes[:2] == (
        "sequence: full-length P00001 used for P00001-3",
        "sequence: P00001 used for Q11111, which it replaces",
    )
    [strict] = read_pairs(tmp_path, "a,b\nP00001-3,P00001\n", isoforms="fail")
    assert "P00001-3 is not in s.fasta" in reason(strict)


def test_pairs_have_the_alignments_of_their_proteins_and_that_of_the_pair(tmp_path: Path) -> None:
    msas = tmp_path / "msas"
    (msas / "paired").mkdir(parents=True)
    own = msas / f"{sha256(b'MKTAY').hexdigest()}.a3m"
    own.write_text(">q\nMKTAY\n")
    pair = msas / "paired" / f"{sha256(b'GSHW:MKTAY').hexdigest()}.a3m.gz"
    pair.write_bytes(gzip.compress(b"#5,4\t1,1\n>q\nMKTAYGSHW\n"))
    first, second = read_pairs(tmp_path, "a,b\nP00001,P00002\nP00001,P00001\n", msas)
    assert isinstance(first, Complex)
    assert isinstance(second, Complex)
    assert [chain.msa for chain in first.chains] == [own, None]
    assert [chain.paired_msa for chain in first.chains] == [pair, pair]
    assert first.notes == ()
    assert [chain.paired_msa for chain in second.chains] == [None, None]
    assert second.notes == ()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("P00001", "row 1 has 1 columns, the table 2"),
        ("P00001,P00002,P00002", "row 1 has 3 columns, the table 2"),
        ("P00001,", "row 1: no accession in column 'B'"),
        ("-,P00001", "row 1: no accession in column 'A'"),
        ("P00001,Q99999", "unknown accession: Q99999 not in s.fasta"),
        (
            "Q99998,Q99999",
            "unknown accession: Q99998 not in s.fasta; unknown accession: Q99999 not in s.fasta",
        ),
        ("Q99999,Q99999", "unknown accession: Q99999 not in s.fasta"),
        ("P00001,P00002:3-9", "P00002:3-9: P00002 has residues 1 to 4 only"),
        ("P00004,P00001", "P00004: chain A: invalid letters '7' in the protein sequence"),
        ("P00001;P00002,P00001", "unknown accession: P00001;P00002 not in s.fasta"),
    ],
)
def test_a_damaged_pair_is_invalid_and_the_others_are_read(
    tmp_path: Path, row: str, expected: str
) -> None:
    damaged, other = read_pairs(tmp_path, f"A,B\n{row}\nP00001,P00002\n")
    assert reason(damaged) == expected
    assert other.index == 1
    assert chains(other)


def test_the_second_pair_of_a_name_is_invalid(tmp_path: Path) -> None:
    found = read_pairs(tmp_path, "a,b\nP00001,P00002\nP00001,P00002\nP00002,P00001\n")
    assert [isinstance(record, Complex) for record in found] == [True, False, True]
    assert reason(found[1]) == "an earlier record is named 'P00001_P00002' too"


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        ("a,b\n", {}, "the table has no rows"),
        ("a,A,b\nP00001,P00001,P00002\n", {}, "ambiguous columns 'a', 'A'"),
        (
            "P00001,P00002\n",
            {"format": "pairs"},
            "no columns of a pair (protein_a and protein_b, bait and prey, id1 and id2, or A and "
            "B); its columns are 'P00001, P00002'",
        ),
        ("a,b\nP00001,P00002\n", {"stoichiometry": Path("c.csv")}, "leave out --stoichiometry"),
        ("a,b\nP00001,P00002\n", {"homodimers": False}, "--no-homodimers is for a screen"),
    ],
)
def test_pairs_refuse_a_table_that_cannot_be_used(
    tmp_path: Path, table: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError) as error:
        read_pairs(tmp_path, table, **options)
    assert expected in str(error.value)


def test_pairs_need_sequences(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("a,b\nP00001,P00002\n")
    with pytest.raises(ValueError, match="give a file that has them with --sequences FASTA"):
        list(read_input(path))


def test_pairs_are_read_one_by_one(tmp_path: Path) -> None:
    num_pairs = 20_000
    sequences = tmp_path / "s.fasta"
    sequences.write_text("".join(f">q{number}\n{'MKTAY' * 40}\n" for number in range(200)))
    path = tmp_path / "pairs.tsv"
    rows = (f"q{number % 200}\tq{number // 200}\n" for number in range(num_pairs))
    path.write_text("A\tB\n" + "".join(rows))
    next(read_input(path, sequences))  # imports, and what is cached for good
    tracemalloc.start()
    found = read_input(path, sequences)
    assert sum(1 for _ in islice(found, 100)) == 100
    _, at_first = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    assert sum(1 for _ in found) == num_pairs - 100
    _, at_end = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The text, three times as it is decoded and cut into lines, and in the end the names.
    assert at_first < 12 * path.stat().st_size
    assert at_end < at_first + 200 * num_pairs


def test_pairs_have_the_names_of_their_proteins(tmp_path: Path) -> None:
    (tmp_path / "s.fasta").write_text(
        ">sp|P41182|BCL6_HUMAN B-cell lymphoma 6 protein OS=Homo sapiens OX=9606 GN=BCL6\nMKTAY\n"
        ">P00002\nGSHW\n"
    )
    (tmp_path / "pairs.csv").write_text("a,b\nP41182,P00002\nP00002,P41182\n")
    pairs = list(read_input(tmp_path / "pairs.csv", tmp_path / "s.fasta"))
    genes = [[chain.gene for chain in pair.chains] for pair in pairs if isinstance(pair, Complex)]
    assert genes == [["BCL6", ""], ["", "BCL6"]]
