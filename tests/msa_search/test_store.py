"""The folder of alignments: what a crash leaves, identities, and reading it."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from foldcp.datasets.msa_store import INDEX, alignment_path, read_index
from foldcp.datasets.msas import open_msas
from foldcp.pipeline.msa_search import store as store_module
from foldcp.pipeline.msa_search.search import AlignedRow, FoundAlignment, FoundPairs
from foldcp.pipeline.msa_search.store import TEMPORARY, MsaStore, sequence_sha256

IDENTITY = {"method": "test", "version": "1"}
ONE = FoundAlignment("MKTAY", (AlignedRow("MKTAY"), AlignedRow("MKgT-Y", 9606)))
TWO = FoundAlignment("GSHMR", (AlignedRow("GSHMR"), AlignedRow("GSHM-")))


class CrashError(Exception):
    pass


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder but for its lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def fill(folder: Path) -> None:
    with MsaStore(folder, IDENTITY) as store:
        for found in (ONE, TWO):
            if found.sequence not in store:
                store.add(found)


def test_stored_alignments_are_found_with_their_statistics(tmp_path: Path) -> None:
    fill(tmp_path)
    path = open_msas([tmp_path]).find("MKTAY", [])
    assert path is not None and path == alignment_path(tmp_path.resolve(), sequence_sha256("MKTAY"))
    assert gzip.decompress(path.read_bytes()) == b"key,sequence\n-1,MKTAY\n9606,MKgT-Y\n"
    statistics = open_msas([tmp_path]).statistics[path]
    assert (statistics.depth, statistics.neff, statistics.coverage) == (2, 1, 0.8)
    assert open_msas([tmp_path]).find("AAAA", []) is None


def test_every_crash_is_repaired_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "whole")
    whole = files(tmp_path / "whole")
    num_calls = 0
    for crash_at in range(1, 100):
        folder = tmp_path / str(crash_at)
        num_calls = 0

        def step(real):  # noqa: ANN202
            def call(*arguments: object) -> object:
                nonlocal num_calls
                num_calls += 1
                if num_calls == crash_at:  # noqa: B023
                    raise CrashError
                return real(*arguments)

            return call

        with monkeypatch.context() as patched:
            patched.setattr(store_module.os, "fsync", step(os.fsync))
            patched.setattr(store_module.os, "replace", step(os.replace))
            try:
                fill(folder)
            except CrashError:
                pass
            else:
                break
        fill(folder)
        assert files(folder) == whole
    assert num_calls > 10


def test_parts_of_files_are_where_the_next_run_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    parts: list[Path] = []
    monkeypatch.setattr(os, "replace", lambda a, b: (parts.append(Path(a)), replace(a, b)))
    fill(tmp_path / "a")
    with MsaStore(tmp_path / "a", IDENTITY) as store:
        store.add_pairs(FoundPairs(("GS", "MK"), "#2,2\t1,1\n"))
        (store.temporary / "left").touch()
    assert len(parts) == 4
    assert {path.parent for path in parts} == {tmp_path / "a" / TEMPORARY}
    (tmp_path / "a" / TEMPORARY).mkdir()
    (tmp_path / "a" / TEMPORARY / "left").touch()  # of a run that was killed
    fill(tmp_path / "a")
    assert not (tmp_path / "a" / TEMPORARY).exists()


def test_a_torn_last_line_is_ignored_and_repaired(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    whole = (tmp_path / "whole" / INDEX).read_bytes()
    for cut in range(1, len(whole) - whole.index(b"\n")):
        folder = tmp_path / "torn"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / INDEX).write_bytes(whole[:-cut])
        assert [entry.length for entry in read_index(folder)] == [5]
        if cut % 40 == 1:
            fill(folder)
            assert (folder / INDEX).read_bytes() == whole
        shutil.rmtree(folder)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    with (tmp_path / INDEX).open("ab") as file:
        file.write(b'{"sha256": 1}\n')
    with pytest.raises(ValueError, match="line 3: damaged: sha256 is 1"):
        open_msas([tmp_path])


def test_a_folder_holds_one_identity_and_has_one_writer(tmp_path: Path) -> None:
    writer = MsaStore(tmp_path / "a", IDENTITY)
    with writer, pytest.raises(ValueError, match="another process is writing there"):
        MsaStore(tmp_path / "a", IDENTITY)
    with pytest.raises(ValueError, match="version is '1' there and '2' here"):
        MsaStore(tmp_path / "a", IDENTITY | {"version": "2"})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.a3m").write_text(">q\nMKT\n")
    with pytest.raises(ValueError, match="neither empty nor a folder of `foldcp msa`"):
        MsaStore(tmp_path / "b", IDENTITY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("MKTA", "row 2 has 4 columns"), ("MKT,Y", "the letter ','"), ("", "row 2 has the letter")],
)
def test_rows_that_are_no_alignment_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    found = FoundAlignment("MKTAY", (AlignedRow("MKTAY"), AlignedRow(text)))
    with MsaStore(tmp_path, IDENTITY) as store, pytest.raises(ValueError, match=reason):
        store.add(found)
