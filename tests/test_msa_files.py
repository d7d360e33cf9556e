"""Alignment files: what is read, what is a duplicate, what is an error."""

from __future__ import annotations

import gzip
import random
import time
from pathlib import Path

import numpy as np
import pytest

from foldcp.alignments import Rows, read_alignment
from foldcp.chemistry import PROTEIN_LETTERS, TOKEN_IDS


def letters(rows: Rows) -> list[str]:
    names = {TOKEN_IDS[name]: letter for letter, name in PROTEIN_LETTERS.items()}
    names |= {TOKEN_IDS["-"]: "-", TOKEN_IDS["UNK"]: "X"}
    return ["".join(names[i] for i in row) for row in rows.residues.tolist()]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_a3m_by_hand(tmp_path: Path) -> None:
    text = "#4 1\n>query\nMKLV\n>a x\nM-kqLV\n\n>b\nMK\nLBab\n>a again\nMkqlv---\n>gaps\n----\n>gaps again\n----\n"
    rows = read_alignment(write(tmp_path / "x.a3m", text), 99)
    assert letters(rows) == ["MKLV", "M-LV", "MKLX", "----"]
    assert rows.keys.tolist() == [-1] * 4
    assert rows.deletions.tolist() == [[1, 2, 2]]  # what follows the last column is lost
    assert rows.residues.dtype == np.int8
    assert letters(read_alignment(tmp_path / "x.a3m", 2)) == ["MKLV", "M-LV"]


@pytest.mark.parametrize("order", ["key,sequence", "sequence,key"])
def test_a_csv_by_hand(tmp_path: Path, order: str) -> None:
    rows = [("7", "MKLV"), ("", "MKL-"), ("7", "aM-bcLV"), ("3.0", "-KLV"), ("-1", "M-KL"), ("12", "--LV")]
    lines = [f"{k},{s}" if order.startswith("key") else f"{s},{k}" for k, s in rows]
    read = read_alignment(write(tmp_path / "x.csv", "\n".join([order, *lines, ""])), 99)
    assert letters(read) == ["MKLV", "MKL-", "M-LV", "-KLV", "--LV"]  # M-KL is MKL- without its gap
    assert read.keys.tolist() == [7, -1, 7, 3, 12]
    assert read.deletions.tolist() == [[2, 0, 1], [2, 2, 2]]


def test_a_keyed_row_is_kept_unless_its_key_had_the_sequence(tmp_path: Path) -> None:
    text = "key,sequence\n1,MKLV\n2,MKLV\n2,MKLV\n,MKLV\n-1,mKLVA\n3,MKL-\n,MKL-\n4,-MKL\n"
    path = write(tmp_path / "x.csv", text)
    assert read_alignment(path, 99).keys.tolist() == [1, -1, 3]
    assert read_alignment(path, 99, keep_keyed=True).keys.tolist() == [1, 2, -1, 3, 4]


def reference(rows: list[tuple[int, str]], limit: int) -> tuple[list[str], list[int], list[list[int]]]:
    """Letter by letter."""
    seen, kept, keys, deletions = set(), [], [], []
    for key, row in rows:
        bare = "".join(c.upper() for c in row if c != "-")
        if bare in seen or len(kept) == limit:
            continue
        seen.add(bare)
        columns, count = "", 0
        for c in row:
            if c.islower():
                count += 1
            else:
                if count:
                    deletions.append([len(kept), len(columns), count])
                columns, count = columns + ("X" if c in "BJOUXZ" else c), 0
        kept.append(columns)
        keys.append(key)
    return kept, keys, deletions


@pytest.mark.parametrize("seed", range(4))
def test_random_files_against_reading_letter_by_letter(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldcp.alignments._BLOCK", 37)  # several blocks of rows
    rng = random.Random(seed)
    rows = []
    for _ in range(60):
        row = rng.choices("ACDEFGHIKLMNPQRSTVWYXUBZJO-----", k=5 + 8 * (seed > 0))
        for _ in range(rng.choice([0, 0, 1, 2])):
            row.insert(rng.randint(0, len(row)), "".join(rng.choices("abc", k=rng.randint(1, 3))))
        rows.append((rng.randint(-1, 5), "".join(row)))
    rows += rows[3:9]
    rng.shuffle(rows)
    text = "key,sequence\n" + "".join(f"{key},{row}\n" for key, row in rows)
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write(text)
    limit = (99, 17)[seed % 2]
    read = read_alignment(tmp_path / "x.csv.gz", limit)
    kept, keys, deletions = reference(rows, limit)
    assert (letters(read), read.keys.tolist(), read.deletions.tolist()) == (kept, keys, deletions)
    wrapped = "".join(f">{i}\n{row[:4]}\n{row[4:]}\n" for i, (_, row) in enumerate(rows))
    assert letters(read_alignment(write(tmp_path / "x.a3m", wrapped), limit)) == kept


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.a3m", "", "it has no sequences"),
        ("x.a3m", "# nothing\n>a\n>b\n", "it has no sequences"),
        ("x.a3m", "MKLV\n>a\nMKLV\n", r"line 1 comes before the first header"),
        ("x.a3m", ">q\nMKLV\n>a\nMKL\n", "sequence 2 has 3 columns, but the query 4"),
        ("x.a3m", ">q\nMKLV\n>a\nMKLV\n>b\nM*LV\n", r"'\*' in sequence 3 is no residue"),
        ("x.a3m", ">q\nMKLV\n>a\nMKéV\n", "'é' in sequence 2 is no residue"),
        ("x.csv", "", "the columns must be key and sequence"),
        ("x.csv", "key,sequence\n", "it has no sequences"),
        ("x.csv", "key,seq\n1,MKLV\n", "the columns must be key and sequence, not 'key,seq'"),
        ("x.csv", "key,sequence\n1,MKLV\n9606 x,MKLA\n", "line 3: the key '9606 x' is no integer"),
        ("x.csv", "key,sequence\n1,MKLV\n1.5,MKLA\n", "line 3: the key '1.5' is no integer"),
        ("x.csv", "key,sequence\n1,MKLV,3\n", "line 2 has 3 fields, not 2"),
        ("x.sto", "# STOCKHOLM 1.0\n", r"its name ends neither in \.a3m nor in \.csv"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_alignment(path, 99)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.a3m: No such file"):
        read_alignment(tmp_path / "none.a3m", 99)


def test_eight_thousand_rows_take_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY-", dtype=np.uint8)[rng.integers(0, 21, (8192, 1000))]
    rows[0] = np.where(rows[0] == ord("-"), ord("A"), rows[0])
    text = "".join(f">{i}\n{row.tobytes().decode()}\n" for i, row in enumerate(rows))
    start = time.perf_counter()
    read = read_alignment(write(tmp_path / "x.a3m", text), 8192)
    assert time.perf_counter() - start < 10
    assert read.residues.nbytes == 8192 * 1000
