"""Small files that mean much: bytes, levels, numbers, records and work are all bounded."""

from __future__ import annotations

import gc
import gzip
import io
import json
import lzma
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from foldcp.complex import InvalidComplex
from foldcp.datasets.accessions import read_replacements
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.reader import read
from foldcp.features.msa.read import read_msa
from foldcp.features.templates.structure import read_template
from foldcp.pipeline.config import load
from tests.fuzz import seeds

MB = 1_000_000
MAX_BYTES = 4 * MB
PIECE = 16 * MB
TEN_GB = 10_000 * MB


def _gzip_of(line: bytes, num_bytes: int) -> bytes:
    """Gzip of a start and so many bytes of a letter after it, a member for each piece."""
    piece = gzip.compress(line[-1:] * PIECE, 9)
    return gzip.compress(line) + piece * (num_bytes // PIECE)


def _read_within(path: Path, run: Callable[[Path], object], max_bytes: int) -> str:
    """The error of a reader that allocates no more than so many bytes at a time."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            run(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max_bytes
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _records(path: Path) -> object:
    return list(read(path, ReadOptions(max_bytes=MAX_BYTES)))


@pytest.mark.parametrize(
    ("name", "start", "run"),
    [
        ("x.fasta.gz", b">a\nA", _records),
        ("x.csv.gz", b"id,sequence\nx,A", _records),
        ("x.yaml.gz", b"version: 1 #", _records),
        ("x.json.gz", b'[{"name": "a', _records),
        ("x.a3m.gz", b">a\nA", lambda path: read_msa(path, 10, max_bytes=MAX_BYTES)),
        ("x.cif.gz", b"data_a", lambda path: read_template(path, max_bytes=MAX_BYTES)),
        ("x.yaml", b"model: {seed: 1", load),
    ],
)
def test_a_line_of_ten_gigabytes_in_a_gzip_file(
    tmp_path: Path, name: str, start: bytes, run: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_bytes(_gzip_of(start, TEN_GB))
    assert "once unpacked" in _read_within(path, run, 4 * MAX_BYTES)


@pytest.mark.parametrize("name", ["x.fasta", "x.tsv", "x.json"])
def test_a_sparse_file_of_ten_gigabytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b">a\nMKT")
        file.truncate(TEN_GB)
    assert "holds more than 4,000,000 bytes" in _read_within(path, _records, 4 * MAX_BYTES)


def test_a_zip_archive_of_much(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.fasta", b">a\n" + b"A" * 100 * MB)
    assert "once unpacked" in _read_within(path, _records, 4 * MAX_BYTES)


def test_an_xz_file_of_much(tmp_path: Path) -> None:
    path = tmp_path / "x.fasta.xz"
    path.write_bytes(lzma.compress(b">a\n" + b"A" * 100 * MB, preset=0))
    assert "once unpacked" in _read_within(path, _records, 20 * MAX_BYTES)


def _workbook(sheet: str, shared: str = "") -> bytes:
    packed = io.BytesIO()
    parts = seeds.as_workbook(seeds.WORKBOOK[0])
    with (
        zipfile.ZipFile(io.BytesIO(parts)) as valid,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in ("xl/workbook.xml", "xl/_rels/workbook.xml.rels"):
            archive.writestr(name, valid.read(name))
        archive.writestr("xl/sharedStrings.xml", f"<sst>{shared}</sst>")
        archive.writestr("xl/worksheets/s.xml", f"<s>{sheet}</s>")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("sheet", "shared", "problem"),
    [
        ('<row><c r="XFD1"><v>1</v></c></row>' * 3_000, "", "the first sheet holds more than"),
        (
            "<row>" + '<c t="s"><v>0</v></c>' * 10_000 + "</row>",
            f"<si><t>{'x' * MB}</t></si>",
            "the first sheet holds more than",
        ),
        (" " * 40 * MB, "", "holds more than 4,000,000 bytes"),
        ("<row>" * 100_000, "", "damaged XML"),
    ],
    ids=["wide rows", "one long text", "a large member", "nesting"],
)
def test_workbooks_of_much(tmp_path: Path, sheet: str, shared: str, problem: str) -> None:
    path = tmp_path / "x.xlsx"
    path.write_bytes(_workbook(sheet, shared))
    assert problem in _read_within(path, _records, 10 * MAX_BYTES)


def _laughs(levels: int, count: int = 9) -> str:
    lines = ['a0: &a0 ["x"]']
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * count)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nsequences:\n- protein: &p {{{_laughs(9).replace(chr(10), ', ')}}}\n",
        _laughs(30),
        "sequences: " + "[" * 100_000,
        '{"sequences": ' + '{"a": ' * 100_000,
        "sequences: " + "- " * 100_000,
        "sequences:\n" + "".join(" " * i + "a:\n" for i in range(1, 500)),
        "sequences: {? " * 20_000,
        "[" * 100_000,
        '{"queries": {"q": ' + "[" * 50_000 + "]" * 50_000 + "}}",
        '[{"complex_id": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}]",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("run", [_records, load])
def test_aliases_and_levels_without_end(
    tmp_path: Path, text: str, run: Callable[[Path], object]
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    _read_within(path, run, 100 * MB)


@pytest.mark.parametrize("number", ["1e400000", "-1e400000", "9" * 5_000, "0." + "9" * 5_000])
@pytest.mark.parametrize("seed", range(len(seeds.JOBS)))
def test_numbers_of_any_size_in_jobs(tmp_path: Path, seed: int, number: str) -> None:
    """Wherever a number may stand; what takes no such number says so."""
    text = seeds.JOBS[seed].decode()
    path = tmp_path / "x.json"
    (tmp_path / "a.a3m").write_bytes(b">q\nMKTS\n")
    for at in [i for i, letter in enumerate(text) if letter in "123456789" and text[i - 1] in " ["]:
        path.write_text(text[:at] + number + text[at + 1 :])
        try:
            records = list(read(path))
        except ValueError as error:
            assert "x.json" in str(error)
            assert "\n" not in str(error)
            assert len(str(error)) < 1_000
        else:
            reasons = [record.reason for record in records if isinstance(record, InvalidComplex)]
            assert max(map(len, reasons), default=0) < 1_000


def _sequence(number: int) -> str:
    return "".join(random.Random(number).choices("ACDEFGHIKLMNPQRSTVWY", k=12))


def _job(proteins: int, **more: object) -> str:
    entries = [{"proteinChain": {"sequence": _sequence(i), "count": 1}} for i in range(proteins)]
    return json.dumps([{"name": "j", "modelSeeds": [], "sequences": entries, **more}])


_CORUM = "complex_id\tsubunits_uniprot_id\n"
# What is written n times, the file that it is written to, and how that is read.
REPEATED: dict[str, tuple[int, str, Callable[[int], str], Callable[[Path], object]]] = {
    "empty records": (3_000, "x.fasta", lambda n: ">\n" * n, _records),
    "records": (2_000, "x.fasta", lambda n: ">a b\nMKT\n" * n, _records),
    "chains": (2_000, "x.fasta", lambda n: ">a\n" + ":".join(map(_sequence, range(n))), _records),
    "keys": (
        100_000,
        "x.json",
        lambda n: "{" + ", ".join(f'"{i % (n - 1)}": 1' for i in range(n)) + "}",
        _records,
    ),
    "entries": (2_000, "x.json", _job, _records),
    "words": (100_000, "x.txt", lambda n: ";".join(["aaa"] * n) + ";!", _records),
    "anchors": (30_000, "x.yaml", lambda n: "sequences:\n- {a: &a b}\n" + "- *a\n" * n, _records),
    "rows": (4_000, "x.tsv", lambda n: _CORUM + "1\tP00001\n" * n, _records),
    "subunits": (10_000, "x.tsv", lambda n: f"{_CORUM}1\t{'P00001;' * n}\n", _records),
    "columns": (50_000, "x.tsv", lambda n: _CORUM.strip() + "\tc" * n + "\n1\tP00001\n", _records),
    "quotes": (200_000, "x.tsv", lambda n: f'{_CORUM}1\t"{"a" * n}"b"\n"' + "\n" * n, _records),
    "blocks": (8_000, "x.a3m", lambda n: ">q\nMKT\n\0" * n, lambda path: read_msa(path, 10)),
    "zeros of a key": (
        500_000,
        "x.csv",
        lambda n: f"key,sequence\n-1,MKT\n{'0' * n}x,MKT\n",
        lambda path: read_msa(path, 10),
    ),
    "accessions": (
        20_000,
        "x.txt",
        lambda n: "".join(f"Q11111 P{i:05d}\n" for i in range(n)),
        read_replacements,
    ),
    "settings": (1_000, "x.yaml", lambda n: "".join(f"a{i}: 1\n" for i in range(n)), load),
}


def _cpu_seconds(path: Path, run: Callable[[Path], object]) -> float:
    gc.collect()
    gc.disable()  # what other tests have left is not this reader's
    try:
        began = time.process_time()
        with suppress(ValueError):
            run(path)
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", REPEATED)
def test_twice_as_much_takes_less_than_three_times_as_long(tmp_path: Path, name: str) -> None:
    """The least time of the processor in some tries, since others use it, too."""
    count, file, make, run = REPEATED[name]
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    once = tmp_path / "once" / file
    twice = tmp_path / "twice" / file
    once.write_text(make(count))
    twice.write_text(make(2 * count))
    seconds = [(_cpu_seconds(once, run), _cpu_seconds(twice, run)) for _ in range(3)]
    for _ in range(5):
        if min(long for _, long in seconds) < 3 * min(short for short, _ in seconds) + 0.01:
            return
        seconds.append((_cpu_seconds(once, run), _cpu_seconds(twice, run)))
    pytest.fail(f"seconds of the processor: {seconds}")
