"""Options of databases: copy numbers, obsolete accessions, isoforms, members without a sequence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from tests.support.inputs import read_input

HEADER = "complex_id\tcomplex_name\torganism\tsubunits_uniprot_id\tstoichiometry\n"
PORTAL = (
    "#Complex ac\tRecommended name\tTaxonomy identifier\tIdentifiers (and stoichiometry) of "
    "molecules in complex\tExpanded participant list\n"
)
FASTA = ">P00001\nMKTAY\n>P00002\nGSHW\n>P00003\nCCW\n"


def read_rows(folder: Path, table: str, **options: Any) -> list[Record]:
    (folder / "s.fasta").write_text(FASTA)
    (folder / "db.tsv").write_text(table)
    return list(read_input(folder / "db.tsv", folder / "s.fasta", **options))


def corum(folder: Path, *rows: str, **options: Any) -> list[Record]:
    lines = [f"{number}\tn\tHuman\t{row}\n" for number, row in enumerate(rows, start=1)]
    return read_rows(folder, HEADER + "".join(lines), **options)


def portal(folder: Path, *rows: str, **options: Any) -> list[Record]:
    return read_rows(folder, PORTAL + "".join(f"{row}\n" for row in rows), **options)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def counts(record: Record) -> dict[str, int]:
    assert isinstance(record, Complex), record
    return Counter(chain.accession for chain in record.chains)


def reason(record: Record) -> str:
    assert isinstance(record, InvalidComplex), record
    return record.reason


def test_copy_numbers_fill_in_what_the_input_lacks(tmp_path: Path) -> None:
    table = write(tmp_path, "copies.csv", "complex,accession,copies\n1,P00001,2\n2,p00002,4\n")
    first, second, third = corum(
        tmp_path, "P00001;P00002\t", "P00001;P00002\t3;", "P00001\t", stoichiometry=table
    )
    assert counts(first) == {"P00001": 2, "P00002": 1}
    assert "stoichiometry: P00001 from copies.csv" in first.notes
    assert "stoichiometry: unknown for P00002, one copy assumed" in first.notes
    assert counts(second) == {"P00001": 3, "P00002": 4}
    assert "stoichiometry: unknown for P00001, one copy assumed" in third.notes


def test_copy_numbers_of_the_input_win(tmp_path: Path) -> None:
    table = write(tmp_path, "c.tsv", "copies\tcomplex_id\taccession\n5\t1\tP00001\n")
    [record] = corum(tmp_path, "P00001;P00002\t2;1", stoichiometry=table)
    assert counts(record) == {"P00001": 2, "P00002": 1}
    assert "stoichiometry: 2 of P00001 as in the input, 5 in c.tsv" in record.notes


def test_copy_numbers_count_a_repeated_subunit_once(tmp_path: Path) -> None:
    table = write(tmp_path, "c.tsv", "complex\taccession\tcopies\n1\tP00001\t3\n")
    [record] = corum(tmp_path, "P00001;P00002;P00001\t", stoichiometry=table)
    assert counts(record) == {"P00001": 3, "P00002": 1}


def test_copy_numbers_warn_of_what_is_not_in_the_input(tmp_path: Path) -> None:
    text = "complex,accession,copies\n1,P00001,2\n1,P00003,2\n9,P00001,1\n"
    lines: list[str] = []
    table = write(tmp_path, "c.csv", text)
    corum(tmp_path, "P00001\t", stoichiometry=table, warn=lines.append)
    assert lines == [f"{table}: not in the input: 1 (P00003), 9"]
    other = write(tmp_path, "o.csv", "complex,accession,copies\n7,P00001,2\n1,P00002,2\n")
    with pytest.raises(ValueError, match=r"o\.csv: the input has none of .*: 7, 1 \(P00002\)"):
        corum(tmp_path, "P00001\t", stoichiometry=other)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("complex,accession\n1,P00001\n", "no column 'copies'; its columns are"),
        ("complex,accession,copies\n", "the table has no rows"),
        ("sep=;\n", "the table has no columns"),
        ("complex,accession,copies\n1,P00001,two\n", "row 1: 'two' copies of P00001; expected"),
        ("complex,accession,copies\n1,P00001,0\n", "row 1: '0' copies of P00001; expected"),
        ("complex,accession,copies\n1,P00001,1001\n", "row 1: '1001' copies of P00001; expected"),
        ("complex,accession,copies\n1,,2\n", "row 1: no value for 'accession'"),
        ("complex,accession,copies\n1,P00001,2\n1,P00001,3\n", "row 2: two copy numbers of P00001"),
        ("complex,copies,accession,copies\n1,2,P00001,2\n", "ambiguous columns 'copies', 'copies'"),
    ],
)
def test_copy_numbers_that_are_malformed(tmp_path: Path, text: str, problem: str) -> None:
    table = write(tmp_path, "c.csv", text)
    with pytest.raises(ValueError, match=r"c\.csv: ") as error:
        corum(tmp_path, "P00001\t", stoichiometry=table)
    assert problem in str(error.value)


SECONDARY = """UniProt Knowledgebase
Name: sec_ac.txt

Secondary AC     Primary AC
____________     __________
Q11111           Q22222
Q22222           P00002
Q33333           P00001
Q33333           P00003
Q44444           Q55555
Q55555           Q44444
"""


def test_secondary_accessions_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path, "sec_ac.txt", SECONDARY)
    first, second, third, fourth = corum(
        tmp_path, "Q11111\t", "Q33333\t", "Q44444\t", "Q22222-3\t", secondary_accessions=path
    )
    assert counts(first) == {"P00002": 1}
    assert "sequence: P00002 used for Q11111, which it replaces" in first.notes
    assert reason(second) == (
        "Q33333 is obsolete and was split into P00001, P00003; name the one that is meant"
    )
    assert reason(third) == "Q44444: replaced in a circle (Q44444, Q55555)"
    assert (
        "sequence: full-length P00002 used for Q22222-3 (P00002 used for Q22222, which it replaces)"
        in fourth.notes
    )


def test_secondary_accessions_as_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "sec.tsv", "From\tTo\nQ11111\tP00003\n")
    [record] = corum(tmp_path, "Q11111\t", secondary_accessions=path)
    assert counts(record) == {"P00003": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Secondary Primary\n", "no line holds an obsolete accession"),
        ("Q11111 P00001\nQ22222 nothing\n", "line 2: 'Q22222 nothing'; expected an obsolete"),
        ("Q11111 P00001\nQ22222\n", "line 2: 'Q22222'; expected an obsolete"),
    ],
)
def test_secondary_accessions_that_are_malformed(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, "sec.txt", text)
    with pytest.raises(ValueError, match=r"sec\.txt: ") as error:
        corum(tmp_path, "P00001\t", secondary_accessions=path)
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["P00002-2", "P00002-PRO_0000000092", "P00002:PRO_0000000092"])
def test_isoforms_may_be_refused(tmp_path: Path, name: str) -> None:
    [canonical] = corum(tmp_path, f"{name}\t")
    assert f"sequence: full-length P00002 used for {name}" in canonical.notes
    [refused] = corum(tmp_path, f"{name}\t", isoforms="fail")
    assert reason(refused) == (
        f"{name} is not in s.fasta; --isoforms canonical takes the sequence of P00002"
    )


def test_members_without_a_sequence_are_errors(tmp_path: Path) -> None:
    [record] = corum(tmp_path, "P00001;None;P00002\t")
    assert reason(record) == (
        "1 of 3 subunits without an accession; --proteins-only builds the complex without them"
    )
    row = "CPX-1\tn\t9606\tP00001(1)|CHEBI:29035(2)|URS0001_9606(1)\tP00001(1)"
    [record] = portal(tmp_path, row)
    assert reason(record) == (
        "subunits that are no proteins: CHEBI:29035, URS0001_9606; --proteins-only builds the "
        "complex without them"
    )
    [record] = portal(tmp_path, row, proteins_only=True)
    assert counts(record) == {"P00001": 1}


def test_complex_portal_multiplies_the_copies_of_nested_complexes(tmp_path: Path) -> None:
    outer, middle, inner = portal(
        tmp_path,
        "CPX-1\to\t9606\tCPX-2(2)|P00003(1)\t-",
        "CPX-2\tm\t9606\tCPX-3(3)|P00002(1)\tCPX-3(3)|P00002(1)",
        "CPX-3\ti\t9606\tP00001(2)|P00002(0)\t-",
    )
    assert counts(outer) == {"P00001": 12, "P00002": 3, "P00003": 1}
    assert "subunits: those of CPX-3 are taken from its own row" in outer.notes
    assert "stoichiometry: unknown for P00002, one copy assumed" in outer.notes
    assert counts(middle) == {"P00001": 6, "P00002": 2}
    assert counts(inner) == {"P00001": 2, "P00002": 1}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["CPX-1\to\t9606\tCPX-9(2)\t-"], "CPX-9 is a complex that the file does not have"),
        (
            ["CPX-1\to\t9606\tCPX-2(1)\t-", "CPX-2\to\t9606\tCPX-1(1)|P00001(1)\t-"],
            "complexes that hold one another: CPX-1 in CPX-2 in CPX-1",
        ),
        (["CPX-1\to\t9606\tP00001(2-4)\t-"], "'P00001(2-4)': the number of copies is no number"),
    ],
)
def test_complex_portal_rows_that_are_invalid(
    tmp_path: Path, rows: list[str], problem: str
) -> None:
    record, *_ = portal(tmp_path, *rows)
    assert reason(record).startswith(problem)


def test_complex_portal_bounds_complexes_that_double(tmp_path: Path) -> None:
    rows = [f"CPX-{n}\tn\t9606\t{f'CPX-{n + 1}(1)|' * 2}\t-" for n in range(1, 30)]
    record, *_ = portal(tmp_path, *rows, "CPX-30\tn\t9606\tP00001(1)\t-")
    assert reason(record).startswith("more than 10,000 subunits")
