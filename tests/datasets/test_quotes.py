"""A quote that is not closed swallows no rows: it is an error that names its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets.stoichiometry import read_copy_numbers
from tests.support.inputs import read_input

CORUM = "ComplexID\tsubunits(UniProt IDs)\tComplexName"
TABLES = {
    "in a sequence": ('id,sequence\na,MKT\nb,"MKT:GSH\nc,GSH\n', 3),
    "in an id": ('id,sequence\na,MKT\n"b,MKT:GSH\nc,GSH\n', 3),
    "in two rows": ('id,sequence\na,MKT\nb,"MKT:GSH\nc,"GSH\nd,MKT\n', 3),
    "of tabs": ('id\tsequence\na\tMKT\nb\t"MKT:GSH\nc\tGSH\n', 3),
    "where all cells have quotes": ('"id","sequence"\n"a","MKT"\n"b","MKT\n"c","GSH"\n', 3),
    "beside a separator in quotes": ('id,sequence,x\na,MKT,"p, q"\nb,MKT,"p\nc,GSH,q\n', 3),
    "beside a line end in quotes": ('id,sequence,x\na,MKT,"p\nq"\nb,MKT,"p\nc,GSH,q\n', 4),
    "beside a quoted word": ('id,sequence,x\na,MKT,"p" q\nb,MKT,"p, q"\nc,GSH,"q\nd,MKT,q\n', 4),
    "after blank lines": ('\n  \nsep=,\nid,sequence\na,"MKT\nb,GSH\n', 5),
    "of pairs": ('protein_a,protein_b\nP1,P2\n"P1,P2\nP2,P1\n', 3),
    "of CORUM": (f'{CORUM}\n1\tP1\t"A" box\n2\t"P1;P2\tp\n3\tP2\tq\n', 3),
    "in a title of CORUM": (f'{CORUM}\n1\tP1\t"p\nq"\n2\tP1;P2\t"p\n3\tP2\tq\n', 4),
}


@pytest.mark.parametrize(("text", "line"), TABLES.values(), ids=TABLES)
def test_a_quote_that_is_not_closed_is_an_error(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    sequences = tmp_path / "sequences.fasta"
    sequences.write_text(">P1\nMKT\n>P2\nGSH\n")
    message = re.escape(f"{path}: line {line}: the quotes in the table do not match")
    with pytest.raises(ValueError, match=message):
        list(read_input(path, sequences))


def test_copy_numbers_with_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "copies.csv"
    path.write_text('complex,accession,copies\n1,P1,2\n1,"P2,3\n')
    with pytest.raises(ValueError, match=r"copies\.csv: line 3: the quotes in the table"):
        read_copy_numbers(path)


def test_a_colabfold_id_of_several_lines_is_invalid(tmp_path: Path) -> None:
    """Two quotes too many are a pair."""
    path = tmp_path / "table.csv"
    path.write_text('id,sequence\na,MKT\n"b,MKT\nc",GSH\nd,MKT\n')
    first, swallowed, last = read_input(path)
    assert isinstance(first, Complex) and isinstance(last, Complex)
    assert isinstance(swallowed, InvalidComplex)
    assert swallowed.reason == "row 2: a line end in the id: the quotes may not match"


def test_read_table_with_a_first_column_without_a_name(tmp_path: Path) -> None:
    """As pandas writes the index."""
    path = tmp_path / "table.tsv"
    path.write_text("\n\tid\tsequence\n0\ta\tMKT\n")
    [record] = read_input(path)
    assert isinstance(record, Complex) and record.name == "a"
