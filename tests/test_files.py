"""Reading of files: whole, or an error of one line that names the file."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import lzma
import os
import re
import zipfile
import zlib
from pathlib import Path

import pytest

from foldcp import files
from foldcp.files import (
    check_regular,
    is_regular,
    read_file,
    reading,
    unpacked_name,
    write_file,
)


def test_read_file_unpacks_gzip_and_zip(tmp_path: Path) -> None:
    data = b">a\nACDE\n" * 1000
    plain = tmp_path / "a"
    packed = tmp_path / "b.txt"
    archive = tmp_path / "c"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("folder/", "")
        file.writestr("folder/a.fasta", data)
    for path in (plain, packed, archive):
        content = read_file(path)
        assert content.data == data
        assert content.sha256 == hashlib.sha256(data).hexdigest()


def test_read_file_unpacks_xz_of_bounded_size(tmp_path: Path) -> None:
    data = b">a\nACDE\n" * 1000
    path = tmp_path / "a.xz"
    path.write_bytes(lzma.compress(data[:4_000]) + lzma.compress(data[4_000:]))
    assert read_file(path).data == data
    path.write_bytes(lzma.compress(bytes(50_000_000)))
    with pytest.raises(ValueError, match=r"a\.xz: holds more than 1,000,000 bytes once unpacked"):
        read_file(path, max_bytes=1_000_000)
    path.write_bytes(lzma.compress(data)[:-9])
    with pytest.raises(ValueError, match=r"a\.xz: a truncated file"):
        read_file(path)
    path.write_bytes(lzma.compress(data)[:20] + b"damaged" + lzma.compress(data)[27:])
    with pytest.raises(ValueError, match=r"a\.xz: damaged LZMA data"):
        read_file(path)


def test_read_file_names_a_compression_that_it_cannot_unpack(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x20\x00")
    with pytest.raises(ValueError, match="is compressed with Zstandard, which is not read"):
        read_file(path)


@pytest.mark.parametrize("name", ["a.A3M", "a.a3m.gz", "A.a3m.XZ"])
def test_unpacked_name(name: str) -> None:
    assert unpacked_name(name) == "a.a3m"


def test_read_file_refuses_large_archives_without_unpacking_them(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(50_000_000)))
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(50_000_000))
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(1001))
    for path in (bomb, archive, plain):
        with pytest.raises(ValueError, match=rf"{path.name}: holds more than 1,000 bytes"):
            read_file(path, max_bytes=1000)
    assert len(read_file(plain, max_bytes=1001).data) == 1001


def test_read_file_refuses_files_compressed_twice(tmp_path: Path) -> None:
    packed = tmp_path / "a.gz.gz"
    packed.write_bytes(gzip.compress(gzip.compress(b"ACDE")))
    with pytest.raises(ValueError, match=r"a\.gz\.gz: is compressed with gzip twice"):
        read_file(packed)


def test_read_file_refuses_other_than_regular_files_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    link = tmp_path / "link"
    device = Path("/dev/zero")
    os.mkfifo(pipe)
    link.symlink_to(device)
    for path in (pipe, link, device):
        assert not is_regular(path)
        with pytest.raises(ValueError, match=rf"{path.name}: not a regular file"):
            check_regular(path)
        with pytest.raises(ValueError, match=rf"{path.name}: not a regular file"):
            read_file(path)
    with pytest.raises(ValueError, match="is a folder"):
        read_file(tmp_path)
    with pytest.raises(ValueError, match="absent: No such file"):
        read_file(tmp_path / "absent")
    with pytest.raises(ValueError, match="File name too long"):
        read_file(tmp_path / ("x" * 300))


def test_read_text_names_a_damaged_archive(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"ACDE" * 10_000))
    packed[len(packed) // 2] ^= 0xFF
    damaged = tmp_path / "damaged"
    cut = tmp_path / "cut"
    archive = tmp_path / "archive"
    damaged.write_bytes(packed)
    cut.write_bytes(gzip.compress(b"ACDE" * 10_000)[:-9])
    archive.write_bytes(b"PK\x03\x04" + bytes(100))
    for path in (damaged, cut, archive):
        with pytest.raises(ValueError, match=f"{path.name}: "):
            read_file(path)
    two = tmp_path / "two.zip"
    with zipfile.ZipFile(two, "w") as file:
        file.writestr("a", "")
        file.writestr("b", "")
    with pytest.raises(ValueError, match="2 files"):
        read_file(two)


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("int too big"),
        csv.Error("new-line character seen"),
        zlib.error("Error -3"),
        IndexError("list index out of range"),
        RecursionError("maximum recursion depth exceeded"),
        RuntimeError("File is encrypted"),
        NotImplementedError("compression type 97"),
        OSError(36, "File name too long"),
    ],
)
def test_reading_turns_exceptions_into_value_errors_that_name_the_input(
    error: Exception,
) -> None:
    with pytest.raises(ValueError, match=r"^a\.yaml: .") as caught, reading("a.yaml"):
        raise error
    assert caught.value.__cause__ is error


def test_reading_passes_value_errors_and_hides_no_fault_of_the_code() -> None:
    with pytest.raises(ValueError, match=r"^as it is$"), reading("a.yaml"):
        raise ValueError("as it is")
    for fault in (
        AssertionError("ours"),
        AttributeError("ours"),
        TypeError("ours"),
        MemoryError("ours"),
    ):
        with pytest.raises(type(fault), match="ours"), reading("a.yaml"):
            raise fault


def test_read_file_refuses_damaged_archives_of_any_method(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a", b">a\nACDE\n" * 100)
        data = bytearray(path.read_bytes())
        for place in range(40, 48):
            data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{path.name}: "):
            read_file(path)


def test_write_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_file(path, b"old")
    assert path.read_bytes() == b"old"

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(ValueError, match=r"a\.json: No space left on device"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_write_file_names_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/x: Not a directory|file/x: File exists"):
        write_file(tmp_path / "file" / "x", b"")


def test_write_file_keeps_its_part_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    seen: list[bool] = []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: seen.append(part.exists()))
    write_file(tmp_path / "a", b"x", part)
    assert seen == [True, False]  # the file, then the folder


def test_zip_with_a_damaged_name_is_refused_by_the_name_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("caf\u00e9.csv", "id,sequence\n")
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xbf\xbf"))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_file(path)
