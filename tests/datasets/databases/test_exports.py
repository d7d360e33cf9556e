"""CORUM as JSON and in workbooks, and tables as spreadsheets write them."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from tests.support.inputs import read_input

COLUMNS = ["complex_id", "complex_name", "organism", "subunits_uniprot_id", "stoichiometry"]
ROWS = [
    ["11", "a, b; c", "Human", "P00001;P00002", "2;1"],
    ["12", 'with "quotes"\nand a line end', "Mouse", "P00002", ""],
]
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def read_file(folder: Path, name: str, data: bytes | str, **options: Any) -> list[Record]:
    (folder / "s.fasta").write_text(">P00001\nMKTAY\n>P00002\nGSHW\n")
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_input(path, folder / "s.fasta", **options))


def sizes(records: list[Record]) -> dict[str, int]:
    return {r.name: r.num_residues for r in records if isinstance(r, Complex)}


def cell(place: str, text: str, kind: str, shared: list[str]) -> str:
    if kind == "s":
        shared.append(text)
        return f'<c r="{place}" t="s"><v>{len(shared) - 1}</v></c>'
    if kind == "inlineStr":
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(text)}</t></is></c>'
    return f'<c r="{place}"><v>{text}</v></c>'


def workbook(rows: list[list[str]], kind: str = "s", sheet: str = "", **members: str) -> bytes:
    """A workbook whose first sheet is not its first file, without blank cells, as Excel writes."""
    shared: list[str] = []
    lines = [
        "".join(
            cell(f"{'ABCDEFG'[n]}{number}", text, "n" if text.isdecimal() else kind, shared)
            for n, text in enumerate(row)
            if text
        )
        for number, row in enumerate(rows, start=1)
    ]
    body = "".join(f'<row r="{n}">{line}</row>' for n, line in enumerate(lines, start=1))
    texts = "".join(
        f"<si><r><t>{escape(text[:3])}</t></r><r><t>{escape(text[3:])}</t></r>"
        "<rPh><t>guide</t></rPh></si>"
        for text in shared
    )
    files = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{LINKS}"><sheets>'
        '<sheet name="CORUM" sheetId="2" r:id="rId7"/><sheet name="x" sheetId="1" r:id="rId1"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": '<Relationships><Relationship Id="rId1" '
        'Target="worksheets/sheet1.xml"/><Relationship Id="rId7" Target="worksheets/sheet2.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}"><sheetData/></worksheet>',
        "xl/worksheets/sheet2.xml": sheet
        or f'<worksheet xmlns="{MAIN}"><sheetData>{body}</sheetData></worksheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{texts}</sst>',
        **members,
    }
    return zipped(files)


def zipped(files: dict[str, str] | dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["s", "inlineStr"])
def test_corum_workbooks(tmp_path: Path, kind: str) -> None:
    data = workbook([COLUMNS, *ROWS], kind)
    records = read_file(tmp_path, "corum.xlsx", data)
    assert sizes(records) == {"11": 14, "12": 4}
    assert [record.title for record in records] == ["a, b; c", 'with "quotes"\nand a line end']
    packed = zipped({"corum.xlsx": data, "__MACOSX/._corum.xlsx": b"\0", ".DS_Store": b"\0"})
    assert sizes(read_file(tmp_path, "corum.zip", packed)) == {"11": 14, "12": 4}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><worksheet>&b;</worksheet>'


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (workbook([], sheet=BOMB), "XML with a document type"),
        (workbook([], sheet="<worksheet><row>"), "damaged XML in the workbook"),
        (workbook([], sheet='<w><row><c r="ZZZ1"/></row></w>'), "a cell at 'ZZZ1' is out of place"),
        (
            workbook([], sheet='<w><row><c r="B1"/><c r="A1"/></row></w>'),
            "a cell at 'A1' is out of place",
        ),
        (
            workbook([], sheet='<w><row><c r="A1" t="s"><v>9</v></c></row></w>'),
            "a cell names the shared text '9'",
        ),
        (zipped({"xl/workbook.xml": "<x/>"}), "not an Excel workbook"),
        (zipped({"a.zip": zipped({"b.txt": "x"})}), "not an Excel workbook"),
        (workbook([COLUMNS, *ROWS])[:-30], "a damaged zip archive"),
        (workbook([]), "the file is empty"),
    ],
)
def test_workbooks_that_are_malformed(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=r"corum\.xlsx: ") as error:
        read_file(tmp_path, "corum.xlsx", data)
    assert problem in str(error.value)


def test_workbooks_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sheet2\.xml holds more than 20,000 bytes"):
        data = workbook([], sheet=f"<w>{' ' * 30_000}</w>")
        read_file(tmp_path, "c.xlsx", data, max_bytes=20_000)
    rows = '<row><c r="A1" t="s"><v>0</v></c></row>' * 200
    data = workbook(
        [],
        sheet=f"<w>{rows}</w>",
        **{"xl/sharedStrings.xml": f"<sst><si><t>{'x' * 9_000}</t></si></sst>"},
    )
    with pytest.raises(ValueError, match="the first sheet holds more than 20,000 characters"):
        read_file(tmp_path, "c.xlsx", data, max_bytes=20_000)


def test_archives_of_macos(tmp_path: Path) -> None:
    table = "\t".join(COLUMNS) + "\n11\ta\tHuman\tP00001\t\n"
    files = {"all/c.txt": table, "__MACOSX/all/._c.txt": "x", "all/.DS_Store": "x"}
    assert sizes(read_file(tmp_path, "c.txt.zip", zipped(files))) == {"11": 5}
    with pytest.raises(ValueError, match="a zip archive of 2 files"):
        read_file(tmp_path, "c.txt.zip", zipped({**files, "all/d.txt": table}))


@pytest.mark.parametrize("mark", ["sep=;", "SEP=;", '"sep=;"', "sep=;\r"])
def test_tables_whose_first_line_names_the_separator(tmp_path: Path, mark: str) -> None:
    table = (
        f'{mark}\ncomplex_id;complex_name;organism;subunits_uniprot_id\n11;a;H;"P00001;P00002"\n'
    )
    assert sizes(read_file(tmp_path, "c.csv", table)) == {"11": 9}


def test_titles_that_hold_more_commas_than_the_table_has_separators(tmp_path: Path) -> None:
    table = 'complex_id;name, or, as, it, is;subunits_uniprot_id\n11;a;"P00001;P00002"\n'
    assert sizes(read_file(tmp_path, "c.csv", table)) == {"11": 9}


def test_pages_are_refused_by_name(tmp_path: Path) -> None:
    for page in ("<!doctype html><html></html>", "\n<HTML lang=en>", '<?xml version="1.0"?><html>'):
        with pytest.raises(ValueError, match=r"c\.txt: a web page, .*`foldcp fetch corum`"):
            read_file(tmp_path, "c.txt", page)


def test_corum_5_json(tmp_path: Path) -> None:
    complexes = [
        {
            "complex_id": 11,
            "complex_name": "one",
            "organism": "Human",
            "functions": [{"go": {"go_id": "GO:1"}}],
            "subunits": [
                {"swissprot": {"uniprot_id": "P00001", "gene_name": "A"}, "stoichiometry": 2},
                {"swissprot": {"uniprot_id": "P00002"}, "stoichiometry": None},
            ],
        },
        {"complex_id": 12, "organism": None, "subunits": [{"swissprot": None}]},
        {
            "complex_id": 13,
            "subunits": [{"swissprot": {"uniprot_id": "P00001"}}],
            "subunits_stoechiometrie": "3",
        },
    ]
    text = json.dumps(complexes, indent=1)
    first, second, third = read_file(tmp_path, "corum.json", text)
    assert sizes([first, third]) == {"11": 14, "13": 15}
    assert (first.title, first.organism) == ("one", "Human")
    assert "stoichiometry: unknown for P00002, one copy assumed" in first.notes
    assert isinstance(second, InvalidComplex) and second.reason == "no subunits are listed"
    packed = read_file(tmp_path, "corum.json.gz", gzip.compress(text.encode()))
    assert sizes(packed) == {"11": 14, "13": 15}


def test_corum_4_json(tmp_path: Path) -> None:
    item = {
        "ComplexID": 1,
        "ComplexName": "BCL6",
        "Organism": "Human",
        "subunits(UniProt IDs)": "P00001;P00002",
        "subunits(Gene name)": "A;B",
    }
    [record] = read_file(tmp_path, "allComplexes.json", json.dumps([item]))
    assert (record.name, record.title, sizes([record])) == ("1", "BCL6", {"1": 9})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"complex_id": 1, "subunits": []}, {"name": "x"}]', "complex 2 of the list has no comp"),
        ('[{"complex_id": 1}, 7]', "complex 2 of the list has no complex_id"),
        ('[{"complex_id": 1, ', "not valid JSON"),
        ('[{"complex_id": 1, "complex_id": 2}]', "the key 'complex_id' occurs twice"),
    ],
)
def test_corum_json_that_is_malformed(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"c\.json: ") as error:
        read_file(tmp_path, "c.json", text)
    assert problem in str(error.value)
