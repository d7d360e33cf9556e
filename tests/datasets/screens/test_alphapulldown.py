"""Lists of AlphaPulldown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from tests.support.inputs import read_input


def read_list(folder: Path, text: str, **options: Any) -> list[Record]:
    (folder / "s.fasta").write_text(">P11111\nMKTAY\n>P22222\nGSHWGSHWGSHW\n>bait\nMKK\n")
    (folder / "list.txt").write_text(text)
    return list(read_input(folder / "list.txt", folder / "s.fasta", **options))


def counts(record: Record) -> dict[str, int]:
    assert isinstance(record, Complex), record
    return Counter(chain.accession for chain in record.chains)


def test_lines_are_complexes_with_copies_and_ranges(tmp_path: Path) -> None:
    text = "P11111,2;P22222,1-11\n\nP11111;P22222\n P11111 ; P11111 \nbait,3,1-2;P11111;\nP11111\n"
    found = read_list(tmp_path, text)
    assert [record.name for record in found] == [
        "P11111,2_P22222,1-11",
        "P11111_P22222",
        "P11111 _ P11111",
        "bait,3,1-2_P11111",
        "P11111",
    ]
    assert list(map(counts, found)) == [
        {"P11111": 2, "P22222:1-11": 1},
        {"P11111": 1, "P22222": 1},
        {"P11111": 2},
        {"bait:1-2": 3, "P11111": 1},
        {"P11111": 1},
    ]
    assert isinstance(found[0], Complex)
    assert [chain.name for chain in found[0].chains] == ["A", "B", "C"]
    assert not any("stoichiometry" in note for record in found for note in record.notes)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("P11111,x;P22222", "'P11111,x': expected an accession, P12345, with copies, P12345,2"),
        ("P11111,2,3;P22222", "'P11111,2,3': expected an accession"),
        (",2;P22222", "',2': expected an accession"),
        ("P11111,0;P22222", "'P11111,0': no copies"),
        ("P11111,1001;P22222", "1001 copies of P11111 exceed the maximum of 1000"),
        ("P22222,1-3,5-9;P11111", "'P22222,1-3,5-9': several ranges of one chain are not"),
        ("P22222,5-90;P11111", "P22222:5-90: P22222 has residues 1 to 12 only"),
        ("Q99999;P11111", "unknown accession: Q99999 not in s.fasta"),
    ],
)
def test_a_damaged_line_is_invalid_and_the_others_are_read(
    tmp_path: Path, line: str, expected: str
) -> None:
    other, damaged = read_list(tmp_path, f"P11111;P22222\n{line}\n")
    assert isinstance(damaged, InvalidComplex)
    assert damaged.reason.startswith(expected)
    assert counts(other) == {"P11111": 1, "P22222": 1}


def test_a_list_of_other_names_is_read_when_it_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an input"):
        read_list(tmp_path, "bait;P11111x\n")
    [record] = read_list(tmp_path, "bait;P11111\n", format="alphapulldown")
    assert counts(record) == {"bait": 1, "P11111": 1}
