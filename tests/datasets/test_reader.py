"""The reader: formats recognised by content, compression, folders, and errors of one line."""

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from foldcp.complex import Complex, InvalidComplex, Record
from foldcp.datasets.parsing.text_files import read_text, stem
from tests.support.inputs import read_input

FASTA = ">P12345 first\nMKTAYIAK\nQRWW\n>Q99999\nGSHMLEDP\n"
CORUM = "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n7\tpair\tHuman\tP12345;Q99999\n"
YAML = "sequences:\n- protein: {id: A, sequence: MKTAYIAK, msa: empty}\n"


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _all(path: Path, sequences: Path | None = None, msas: Path | None = None) -> list[Record]:
    return list(read_input(path, sequences, msas))


def _error(path: Path, sequences: Path | None = None, msas: Path | None = None) -> str:
    """The message of the error that reading the file raises at once, before the first record is
    asked for.
    """
    with pytest.raises(ValueError) as caught:
        read_input(path, sequences, msas)
    message = str(caught.value)
    assert "\n" not in message
    return message


def _zip(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of no time, as tests are named by it
    return buffer.getvalue()


@pytest.mark.parametrize(
    "wrap",
    [
        str.encode,
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: _zip({"allComplexes.txt": text}),
        lambda text: text.replace("pair", "pa\xefr").encode("latin-1").replace(b"\xef", b"i"),
    ],
    ids=["plain", "utf8-bom", "utf16", "crlf", "cr", "gzip", "zip", "latin1"],
)
def test_read_msa_ignores_line_wrapping(tmp_path: Path, wrap: Callable[[str], bytes]) -> None:
    sequences = _write(tmp_path, "s.fasta", wrap(FASTA))
    [pair] = _all(_write(tmp_path, "any.name", wrap(CORUM)), sequences)
    assert isinstance(pair, Complex)
    assert (pair.name, pair.title, pair.organism, pair.source) == (
        "7",
        "pair",
        "Human",
        "any.name",
    )
    assert [(c.name, c.accession, c.sequence) for c in pair.chains] == [
        ("A", "P12345", "MKTAYIAKQRWW"),
        ("B", "Q99999", "GSHMLEDP"),
    ]


def test_read_text_keeps_a_title_in_another_encoding(tmp_path: Path) -> None:
    path = _write(tmp_path, "old.tsv", CORUM.replace("pair", "Kölner Paar").encode("cp1252"))
    [pair] = _all(path, _write(tmp_path, "s.fasta", FASTA))
    assert pair.title == "Kölner Paar"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("e.tsv", "", "the file is empty"),
        ("blank.tsv", " \n\n", "the file is empty"),
        ("unicode.tsv", " \u2028\xa0\n", "the file is empty"),
        ("nul.a3m", "\0\n\0", "the file is empty"),
        (
            "b.tsv",
            b"\x7fELF\x02\x01\x01\x00\x00",
            "not a text file (character 0x02 at 4)",
        ),
        (
            "t.gz",
            gzip.compress(CORUM.encode(), mtime=0)[:-12],
            "Compressed file ended before the end-of-stream marker",
        ),
        ("z.zip", _zip({"a": "1", "b": "2"}), "a zip archive of 2 files"),
        (
            "d.zip",
            _zip({"a": "1"})[:40],
            "a damaged zip archive (File is not a zip file)",
        ),
        ("w.csv", "u,v\n1,2\n", "its columns are 'u, v'"),
        ("h.tsv", CORUM.partition("\n")[0] + "\n", "the table has no rows"),
        ("m.csv", "key,sequence\n-1,MKT\n", "an alignment"),
        ("x.a3m", ">101\nMK-T\n", "the query, its first sequence, has gaps"),
        (
            "X.A3M.gz",
            gzip.compress(b">101\nMKtT\n", mtime=0),
            "the query, its first sequence, has gaps",
        ),
        ("p.fasta", "MKTAYIAK\n", "starts with 'MKTAYIAK' instead of '>'"),
        ("list.txt", "P00001\nQ00002\n", "a list of accessions names no complexes; --all-against"),
        ("model.pdb", "ATOM      1  N   MET A   1\n", "not an input"),
        (
            "broken.yaml",
            "sequences: [\n",
            "not valid YAML: while parsing a flow node did not find expected node content (line 2",
        ),
        ("list.yaml", "- 1\n", "expected the keys sequences"),
    ],
)
def test_read_refuses_files_of_unknown_format(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    path = _write(tmp_path, name, content)
    message = _error(path, _write(tmp_path, "s.fasta", FASTA))
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_read_of_missing_files(tmp_path: Path) -> None:
    here = _write(tmp_path, "c.tsv", CORUM)
    assert _error(tmp_path / "none.tsv") == f"{tmp_path / 'none.tsv'}: No such file or directory"
    assert _error(here, tmp_path / "none.fasta").startswith(
        f"{tmp_path / 'none.fasta'}: No such file"
    )
    assert _error(here, None).endswith("with --sequences FASTA")
    assert "not a folder of alignments" in _error(here, None, tmp_path / "nowhere")
    assert "not a folder of alignments" in _error(here, None, here)


def test_read_ignores_case_of_suffixes_and_blank_lines(tmp_path: Path) -> None:
    assert [
        record.name
        for record in read_input(_write(tmp_path, "A.YAML.GZ", gzip.compress(YAML.encode())))
    ] == ["A"]
    assert [record.name for record in read_input(_write(tmp_path, "s.txt", "\n \n" + FASTA))] == [
        "P12345",
        "Q99999",
    ]
    assert [record.name for record in read_input(tmp_path)] == ["A"]
    # no more columns than it takes
    table = "\n\ncomplex_id\tsubunits_uniprot_id\n\n \t\n 7 \tP12345\n"
    [record] = read_input(_write(tmp_path, "c.tsv", table), tmp_path / "s.txt")
    assert (record.name, record.title) == ("7", "")


def test_read_of_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, "b.yaml", YAML)
    _write(tmp_path, "a.yml.gz", gzip.compress(YAML.encode()))
    _write(tmp_path, "c.fasta", FASTA)
    _write(tmp_path, "bad.yaml", YAML.replace("MKT", "M1T"))
    _write(tmp_path, "A.a3m", ">101\nMKTAYIAK\n")
    _write(tmp_path, "notes.txt", "not read")
    _write(tmp_path, "._b.yaml", b"\x00\x05\x16\x07")
    records = _all(tmp_path)
    assert [record.name for record in records] == ["a", "b", "bad", "P12345", "Q99999"]
    bad = records[2]
    assert isinstance(bad, InvalidComplex)
    assert (
        bad.reason
        == f"{tmp_path / 'bad.yaml'}: chain A: invalid letters '1' in the protein sequence"
    )
    (tmp_path / "empty").mkdir()
    assert "the folder has no file" in _error(tmp_path / "empty")


def test_read_recognises_yaml_by_its_content(tmp_path: Path) -> None:
    for number, text in enumerate([YAML, "# mine\n---\nversion: 1\n" + YAML, '{"sequences": []}']):
        path = _write(tmp_path, f"{number}.txt", text)
        if number < 2:
            assert [record.name for record in read_input(path)] == [str(number)]
        else:
            assert _error(path) == f"{path}: complex 2: it has no chains"


def test_read_reports_a_name_that_occurs_twice(tmp_path: Path) -> None:
    path = _write(tmp_path, "c.csv", "id,sequence\nx,MKT\ny,MKW\nx,GGG\n")
    records = _all(path)
    assert [type(record) for record in records] == [Complex, Complex, InvalidComplex]
    assert records[2] == InvalidComplex(
        "x",
        "an earlier record is named 'x' too",
        source="c.csv",
        index=2,
        notes=("msa: no alignment for chain A",),
    )


def test_read_text_and_stem(tmp_path: Path) -> None:
    assert stem(Path("a/7yds.yaml.gz")) == "7yds"
    assert stem(Path("a/7yds.v2.fasta")) == "7yds.v2"
    assert stem(Path("allComplexes.txt.zip")) == "allComplexes"
    assert read_text(_write(tmp_path, "t", "a\r\nb\rc\n")) == "a\nb\nc\n"


@pytest.mark.timeout(60)
def test_read_refuses_pipes_and_devices_wherever_they_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    table = _write(tmp_path, "c.tsv", CORUM)
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        expected = f"{path}: not a regular file (a pipe, a socket or a device)"
        assert _error(path) == expected
        assert _error(table, path) == expected
        assert "not a folder of alignments" in _error(table, None, path)


@pytest.mark.timeout(60)
def test_read_of_a_folder_makes_other_than_regular_files_invalid_records(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.fasta").symlink_to("/dev/zero")
    (tmp_path / "c.json").mkdir()
    (tmp_path / "d.yaml").symlink_to("nowhere")
    _write(tmp_path, "e.yaml", YAML)
    *wrong, right = _all(tmp_path)
    reasons = [record.reason if isinstance(record, InvalidComplex) else "" for record in wrong]
    pipe = "not a regular file (a pipe, a socket or a device)"
    assert reasons == [
        f"{tmp_path}/a.yaml: {pipe}",
        f"{tmp_path}/b.fasta: {pipe}",
        f"{tmp_path}/c.json: is a folder, not a file",
        f"{tmp_path}/d.yaml: No such file or directory",
    ]
    assert right.name == "e"
    assert [record.index for record in (*wrong, right)] == [0, 1, 2, 3, 4]


def test_read_bounds_the_bytes_that_it_reads(tmp_path: Path) -> None:
    table = _write(tmp_path, "c.tsv", CORUM)
    sequences = _write(tmp_path, "s.fasta.gz", gzip.compress((FASTA + "M" * 5_000).encode()))
    assert len(list(read_input(table, sequences, max_bytes=10_000))) == 1
    with pytest.raises(
        ValueError, match=r"s\.fasta\.gz: holds more than 1,000 bytes once unpacked"
    ):
        read_input(table, sequences, max_bytes=1_000)
    with pytest.raises(ValueError, match=r"c\.tsv: holds more than 50 bytes"):
        read_input(table, sequences, max_bytes=50)
    _write(tmp_path, "a.yaml", YAML + "#" * 2_000)
    _write(tmp_path, "b.yaml", YAML)
    folder = {record.name: record for record in read_input(tmp_path, max_bytes=1_000)}
    assert isinstance(folder["a"], InvalidComplex)
    assert folder["a"].reason.startswith(f"{tmp_path}/a.yaml: holds more than 1,000 bytes")
    assert isinstance(folder["b"], Complex)


def test_read_of_a_folder_makes_damaged_archives_invalid_records(tmp_path: Path) -> None:
    encrypted = bytearray(_zip({"a": YAML}))
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(start) + offset] |= 1
    unknown = bytearray(_zip({"a": YAML}))
    for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        unknown[unknown.index(start) + offset] = 77
    flipped = bytearray(gzip.compress(YAML.encode()))
    flipped[20] ^= 0xFF
    _write(tmp_path, "a.yaml", bytes(encrypted))
    _write(tmp_path, "b.yaml", bytes(unknown))
    _write(tmp_path, "c.yaml.gz", bytes(flipped))
    _write(tmp_path, "d.yaml", YAML)
    *wrong, right = _all(tmp_path)
    for record, word in zip(
        wrong, ("File 'a' is encrypted", "NotImplementedError", ""), strict=True
    ):
        assert isinstance(record, InvalidComplex)
        assert record.reason.startswith(f"{tmp_path}/{record.source}: {word}")
    assert isinstance(right, Complex)


def test_read_of_a_folder_makes_names_that_are_not_unicode_invalid_records(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.yaml")
    _write(tmp_path, name, YAML)
    _write(tmp_path, "b.yaml", YAML)
    right, wrong = _all(tmp_path)
    assert isinstance(right, Complex)
    assert wrong == InvalidComplex(
        r"caf\xe9",
        rf"{tmp_path}/caf\xe9.yaml: the file's name is not valid UTF-8; rename it",
        source=r"caf\xe9.yaml",
        index=1,
    )
    assert (
        _error(tmp_path / name)
        == rf"{tmp_path}/caf\xe9.yaml: the name is not valid UTF-8; rename it"
    )
    (tmp_path / os.fsdecode(b"\xff.a3m")).touch()
    (tmp_path / "link.a3m").symlink_to(os.fsdecode(b"\xff.a3m"))
    path = _write(tmp_path, "l.yaml", YAML.replace("empty", "link.a3m"))
    assert _error(path).endswith("'link.a3m' leads to a file whose name is not valid UTF-8")


def test_read_refuses_names_that_are_not_unicode(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    assert _error(long) == f"{long}: File name too long"
    assert _error(_write(tmp_path, "c.tsv", CORUM), long) == f"{long}: File name too long"


def test_read_has_names_and_reasons_in_a_line(tmp_path: Path) -> None:
    table = 'complex_id\tsubunits_uniprot_id\n"1\n2"\tP00001\n3\t"P00001;>\n00001"\n'
    first, second = _all(
        _write(tmp_path, "c.tsv", table), _write(tmp_path, "s.fasta", ">P00001\nMKT\n")
    )
    assert first.name == "1 2"
    assert isinstance(second, InvalidComplex)
    assert second.reason == "unknown accession: > 00001 not in s.fasta"


def test_read_names_a_missing_file_in_a_line(tmp_path: Path) -> None:
    job = {"sequences": [{"protein": {"id": "A", "sequence": "MKT", "msa": "a\nb"}}]}
    error = _error(_write(tmp_path, "x.yaml", json.dumps(job)))
    assert "msa: there is no file a b, neither in" in error


def test_read_cuts_long_reasons(tmp_path: Path) -> None:
    path = _write(tmp_path, "c.csv", f"id,sequence\n{'x' * 9_000},MKT\n{'x' * 9_000},MKT\n")
    second = _all(path)[1]
    assert isinstance(second, InvalidComplex)
    assert len(second.reason) == 2_000


def test_read_table_keeps_unicode_line_separators_in_their_cell(
    tmp_path: Path,
) -> None:
    table = CORUM.replace("pair", '"a" \u2028 \x85 b')
    [pair] = _all(_write(tmp_path, "c.tsv", table), _write(tmp_path, "s.fasta", FASTA))
    assert pair.title == '"a" \u2028 \x85 b'


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("id,sequence,Sequence\nx,MKT,GSH\n", "'sequence', 'Sequence'"),
        (
            CORUM.replace("Organism", "UniProt_ACCs"),
            "'UniProt_ACCs', 'subunits(UniProt IDs)'",
        ),
        (CORUM.replace("ComplexName", "complex_id"), "'ComplexID', 'complex_id'"),
    ],
)
def test_read_refuses_ambiguous_columns(tmp_path: Path, table: str, columns: str) -> None:
    path = _write(tmp_path, "c.csv", table)
    expected = f"{path}: ambiguous columns {columns}; leave out all but one"
    assert _error(path, _write(tmp_path, "s.fasta", FASTA)) == expected
    doubled = "id,sequence,note,note\nx,MKT,a,b\n"
    assert [record.name for record in read_input(_write(tmp_path, "d.csv", doubled))] == ["x"]


def test_errors_are_a_line_whatever_the_names(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text('sequences:\n- protein: {id: "a\\nb", sequence: MKT, msa: no.a3m}\n')
    with pytest.raises(ValueError, match=r"chain a b, msa: there is no file") as error:
        list(read_input(path))
    assert "\n" not in str(error.value)
