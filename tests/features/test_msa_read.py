"""MSA files: rows, duplicates and errors."""

from __future__ import annotations

import gzip
import hashlib
import random
import time
from pathlib import Path

import numpy as np
import pytest

from foldcp.chemistry.vocabulary import PROTEIN_LETTERS, TOKEN_IDS
from foldcp.features.msa.read import ChainMsa, read_msa


def letters(rows: ChainMsa) -> list[str]:
    names = {TOKEN_IDS[name]: letter for letter, name in PROTEIN_LETTERS.items()}
    names |= {TOKEN_IDS["-"]: "-", TOKEN_IDS["UNK"]: "X"}
    return ["".join(names[i] for i in row) for row in rows.residues.tolist()]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_read_msa_of_an_a3m_worked_out_by_hand(tmp_path: Path) -> None:
    text = (
        "#4 1\n>query\nMKLV\n>a x\nM-kqLV\n\n>b\nMK\nLBab\n>a "
        "again\nMkqlv---\n>gaps\n----\n>gaps again\n----\n"
    )
    rows = read_msa(write(tmp_path / "x.a3m", text), 99)
    assert letters(rows) == ["MKLV", "M-LV", "MKLX", "----"]
    assert rows.keys.tolist() == [-1] * 4
    assert rows.deletions.tolist() == [[1, 2, 2]]  # what follows the last column is lost
    assert rows.residues.dtype == np.int8
    assert letters(read_msa(tmp_path / "x.a3m", 2)) == ["MKLV", "M-LV"]


@pytest.mark.parametrize("order", ["key,sequence", "sequence,key"])
def test_read_msa_of_a_csv_worked_out_by_hand(tmp_path: Path, order: str) -> None:
    rows = [
        ("7", "MKLV"),
        ("", "MKL-"),
        ("7", "aM-bcLV"),
        ("3.0", "-KLV"),
        ("-1", "M-KL"),
        ("12", "--LV"),
    ]
    lines = [f"{k},{s}" if order.startswith("key") else f"{s},{k}" for k, s in rows]
    read = read_msa(write(tmp_path / "x.csv", "\n".join([order, *lines, ""])), 99)
    assert letters(read) == [
        "MKLV",
        "MKL-",
        "M-LV",
        "-KLV",
        "--LV",
    ]  # M-KL is MKL- without its gap
    assert read.keys.tolist() == [7, -1, 7, 3, 12]
    assert read.deletions.tolist() == [[2, 0, 1], [2, 2, 2]]


def test_read_msa_keeps_a_keyed_row_unless_its_key_had_the_sequence(tmp_path: Path) -> None:
    text = "key,sequence\n1,MKLV\n2,MKLV\n2,MKLV\n,MKLV\n-1,mKLVA\n3,MKL-\n,MKL-\n4,-MKL\n"
    path = write(tmp_path / "x.csv", text)
    assert read_msa(path, 99).keys.tolist() == [1, -1, 3]
    assert read_msa(path, 99, keep_keyed=True).keys.tolist() == [1, 2, -1, 3, 4]


def reference(
    rows: list[tuple[int, str]], limit: int
) -> tuple[list[str], list[int], list[list[int]]]:
    """Letter by letter."""
    seen = set()
    kept = []
    keys = []
    deletions = []
    for key, row in rows:
        bare = "".join(c.upper() for c in row if c != "-")
        if bare in seen or len(kept) == limit:
            continue
        seen.add(bare)
        columns = ""
        count = 0
        for c in row:
            if c.islower():
                count += 1
            else:
                if count:
                    deletions.append([len(kept), len(columns), count])
                columns = columns + ("X" if c in "BJOUXZ" else c)
                count = 0
        kept.append(columns)
        keys.append(key)
    return kept, keys, deletions


@pytest.mark.parametrize("seed", range(4))
def test_read_msa_of_random_files_equals_reading_letter_by_letter(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldcp.features.msa.read._CHUNK_CHARACTERS", 37)  # several blocks of rows
    rng = random.Random(seed)
    rows = []
    for _ in range(60):
        row = rng.choices("ACDEFGHIKLMNPQRSTVWYXUBZJO-----", k=5 + 8 * (seed > 0))
        for _ in range(rng.choice([0, 0, 1, 2])):
            row.insert(
                rng.randint(0, len(row)),
                "".join(rng.choices("abc", k=rng.randint(1, 3))),
            )
        rows.append((rng.randint(-1, 5), "".join(row)))
    rows += rows[3:9]
    rng.shuffle(rows)
    text = "key,sequence\n" + "".join(f"{key},{row}\n" for key, row in rows)
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write(text)
    limit = (99, 17)[seed % 2]
    read = read_msa(tmp_path / "x.csv.gz", limit)
    kept, keys, deletions = reference(rows, limit)
    assert (letters(read), read.keys.tolist(), read.deletions.tolist()) == (
        kept,
        keys,
        deletions,
    )
    wrapped = "".join(f">{i}\n{row[:4]}\n{row[4:]}\n" for i, (_, row) in enumerate(rows))
    assert letters(read_msa(write(tmp_path / "x.a3m", wrapped), limit)) == kept


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.a3m", "", "it has no sequences"),
        ("x.a3m", "# nothing\n>a\n>b\n", "the query, before line 3, has no sequence"),
        ("x.a3m", "MKLV\n>a\nMKLV\n", r"line 1 comes before the first header"),
        ("x.a3m", ">q\nMKLV\n>a\nMKL\n", "sequence 2 has 3 columns, but the query 4"),
        (
            "x.a3m",
            ">q\nMKLV\n>a\nMKLV\n>b\nM*LV\n",
            r"invalid letter '\*' in sequence 3",
        ),
        ("x.a3m", ">q\nMKLV\n>a\nMKéV\n", "invalid letter 'é' in sequence 2"),
        ("x.csv", "", "the columns must be key and sequence"),
        ("x.csv", "key,sequence\n", "it has no sequences"),
        (
            "x.csv",
            "key,seq\n1,MKLV\n",
            "the columns must be key and sequence, not 'key,seq'",
        ),
        (
            "x.csv",
            "key,sequence\n1,MKLV\n9606 x,MKLA\n",
            "line 3: invalid key '9606 x'",
        ),
        (
            "x.csv",
            "key,sequence\n1,MKLV\n1.5,MKLA\n",
            "line 3: invalid key '1.5'",
        ),
        ("x.csv", "key,sequence\n1,MKLV,3\n", "line 2 has 3 fields, not 2"),
        (
            "x.csv",
            f"key,sequence\n1,MKLV\n{2**63},MKLA\n",
            f"line 3: the key '{2**63}' exceeds 64 bits",
        ),
        (
            "x.csv",
            f"key,sequence\n{'9' * 5000},MKLV\n",
            "line 2: the key '9+' exceeds 64 bits",
        ),
        ("x.a3m", ">q\nab\n>a\nMK\n", "its query has no residues"),
        ("x.sto", "# STOCKHOLM 1.0\n", r"expected a name that ends in \.a3m or \.csv"),
    ],
)
def test_read_msa_of_an_invalid_file_names_the_file(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_msa(path, 99)
    assert str(path) in str(caught.value)


A3M = ">q é\nMKLV\n>a\nM-kqLV\n>b\nMK\nL-\n"
CSV = "key,sequence\n-1,MKLV\n7,M-kqLV\n,MKL-\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"), [("x.a3m", A3M), ("x.csv", CSV), ("y.csv", CSV.replace(",", ";"))]
)
def test_read_msa_accepts_encodings_and_line_ends(
    tmp_path: Path, name: str, text: str, encoding: str, end: str
) -> None:
    (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
    rows = read_msa(tmp_path / name, 99)
    assert letters(rows) == ["MKLV", "M-LV", "MKL-"]
    assert rows.keys.tolist() == ([-1] * 3 if name == "x.a3m" else [-1, 7, -1])
    assert rows.deletions.tolist() == [[1, 2, 2]]


def test_read_msa_of_a_csv_with_long_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", f"key,sequence\n1,{'A' * 200_000}\n")
    assert read_msa(path, 99).residues.shape == (1, 200_000)


def test_read_msa_shows_an_invalid_letter_as_written(tmp_path: Path) -> None:
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "x.a3m").write_bytes(">q\nMKLV\n>a\nMKéV\n".encode(encoding))
        with pytest.raises(ValueError, match="invalid letter 'é' in sequence 2"):
            read_msa(tmp_path / "x.a3m", 99)


def test_read_text_recognises_compression_by_content(tmp_path: Path) -> None:
    (tmp_path / "x.a3m").write_bytes(gzip.compress(A3M.encode()))
    (tmp_path / "x.a3m.gz").write_text(A3M)
    packed, plain = (read_msa(tmp_path / name, 99) for name in ("x.a3m", "x.a3m.gz"))
    assert letters(packed) == letters(plain) == ["MKLV", "M-LV", "MKL-"]
    assert (
        set(packed.digests.values())
        == set(plain.digests.values())
        == {hashlib.sha256(A3M.encode()).hexdigest()}
    )
    torn = bytearray(gzip.compress(A3M.encode() * 99))
    torn[40] ^= 255
    (tmp_path / "torn.a3m.gz").write_bytes(torn)
    with pytest.raises(ValueError, match=r"torn\.a3m\.gz"):
        read_msa(tmp_path / "torn.a3m.gz", 99)


def test_read_msa_refuses_another_content_than_planned(tmp_path: Path) -> None:
    path = write(tmp_path / "x.a3m", A3M)
    digest = read_msa(path, 99).digests[path]
    assert letters(read_msa(path, 99, digest=digest)) == ["MKLV", "M-LV", "MKL-"]
    path.write_text(A3M + ">c\nMMMM\n")
    with pytest.raises(
        ValueError,
        match=r"alignment .*x\.a3m: its content has changed since the run began",
    ):
        read_msa(path, 99, digest=digest)


def test_read_msa_refuses_more_bytes_than_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "x.a3m", A3M)
    size = path.stat().st_size
    assert len(read_msa(path, 99, max_bytes=size).keys) == 3
    with pytest.raises(ValueError, match=rf"x\.a3m: holds more than {size - 1} bytes"):
        read_msa(path, 99, max_bytes=size - 1)


def types(sequence: str) -> np.ndarray:
    return np.array([TOKEN_IDS[PROTEIN_LETTERS[letter]] for letter in sequence], dtype=np.int8)


def test_read_msa_of_msas_separated_by_nul_takes_that_of_the_query(
    tmp_path: Path,
) -> None:
    one = write(tmp_path / "one.a3m", ">101\nMKLV\n>a\nM-LV\n\0")
    assert letters(read_msa(one, 99)) == ["MKLV", "M-LV"]
    two = write(tmp_path / "two.a3m", ">101\nMKLV\n>a\nM-LV\n\0>102\nGSH\n>b\nGAH\n>c\nG-H\n\0")
    assert letters(read_msa(two, 99, chain=types("MKLV"))) == ["MKLV", "M-LV"]
    assert letters(read_msa(two, 99, chain=types("GSH"))) == ["GSH", "GAH", "G-H"]
    again = write(tmp_path / "again.a3m", two.read_text() + ">101\nMKLV\n>d\nMK-V\n\0")
    assert letters(read_msa(again, 99, chain=types("MKLV"))) == [
        "MKLV",
        "M-LV",
        "MK-V",
    ]
    with pytest.raises(ValueError, match=r"two\.a3m: it is of several chains, and none is named"):
        read_msa(two, 99)
    wrong = r"none of its queries \(of 4, 3 residues\) .* residue 3 is HIS, but TRP in the chain"
    with pytest.raises(ValueError, match=wrong):
        read_msa(two, 99, chain=types("GSW"))
    table = write(tmp_path / "x.csv", "key,sequence\n1,MKLV\n\0")
    assert letters(read_msa(table, 99)) == ["MKLV"]
    inside = write(tmp_path / "inside.csv", "key,sequence\n1,MKLV\n2,MK\0V\n")
    with pytest.raises(ValueError, match=r"invalid letter '\\x00' in sequence 2"):
        read_msa(inside, 99)


COMPLEX = (
    "#4,3\t1,1\n>101\t102\nMKLVGSH\n>a\tb\nM-qLVGAHw\n>c\td\nMKLAGG-\n"
    ">101\nMKLV---\n>e\nMKVVab---\n>102\n----GSH\n>f\n----sGtSA\n"
)


def test_read_msa_cuts_a_colabfold_complex_into_its_chains(tmp_path: Path) -> None:
    path = write(tmp_path / "x.a3m", COMPLEX)
    first, second = (read_msa(path, 99, chain=types(chain)) for chain in ("MKLV", "GSH"))
    assert letters(first) == ["MKLV", "M-LV", "MKLA", "MKVV"]
    assert first.keys.tolist() == [-1, 2, 3, -1]  # the rows of both chains are paired
    assert first.deletions.tolist() == [[1, 2, 1]]
    assert letters(second) == ["GSH", "GAH", "GG-", "GSA"]
    assert second.keys.tolist() == [-1, 2, 3, -1]
    assert second.deletions.tolist() == [[3, 1, 1]]  # what stands between the chains ends the first
    whole = read_msa(path, 99, chain=types("MKLVGSH"))
    assert letters(whole)[:2] == ["MKLVGSH", "M-LVGAH"] and set(whole.keys.tolist()) == {-1}
    with pytest.raises(ValueError, match=r"none of its queries \(of 7, 4, 3 residues\)"):
        read_msa(path, 99, chain=types("MKLVG"))
    wrong = write(tmp_path / "y.a3m", COMPLEX.replace("#4,3", "#4,4"))
    with pytest.raises(ValueError, match=r"sequence 1 has 7 columns; its first line says 8"):
        read_msa(wrong, 99, chain=types("MKLV"))


def test_find_record_of_copies_of_one_chain_needs_no_lengths(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "x.a3m", "#4\t2\n>101\nMKLV\n>a\nM-LV\n")
    rows = read_msa(path, 99, chain=types("MKLV"))
    assert letters(rows) == ["MKLV", "M-LV"] and rows.keys.tolist() == [-1, -1]


def test_read_file_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.a3m: No such file"):
        read_msa(tmp_path / "none.a3m", 99)


def test_read_msa_of_eight_thousand_rows_takes_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY-", dtype=np.uint8)[
        rng.integers(0, 21, (8192, 1000))
    ]
    rows[0] = np.where(rows[0] == ord("-"), ord("A"), rows[0])
    text = "".join(f">{i}\n{row.tobytes().decode()}\n" for i, row in enumerate(rows))
    start = time.perf_counter()
    read = read_msa(write(tmp_path / "x.a3m", text), 8192)
    assert time.perf_counter() - start < 10
    assert read.residues.nbytes == 8192 * 1000
