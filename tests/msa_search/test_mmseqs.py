"""Searches with MMseqs2 of databases with clusters, of two databases, and on a GPU server."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from foldcp.pipeline.msa_search.mmseqs import MmseqsSearch
from foldcp.pipeline.msa_search.search import FoundAlignment
from tests.msa_search.synthetic import sequences, write_homologs

MMSEQS = shutil.which("mmseqs")
needs_mmseqs = pytest.mark.skipif(MMSEQS is None, reason="mmseqs is not installed")
QUERIES = sequences(4)


def mmseqs(*words: str | Path) -> None:
    command = [str(MMSEQS), *map(str, words), "-v", "1"]
    subprocess.run(command, check=True, capture_output=True)


def plain_database(folder: Path, count: int = 12, seed: int = 2) -> Path:
    folder.mkdir()
    fasta = write_homologs(folder / "homologs.fasta", QUERIES, count, seed)
    mmseqs("createdb", fasta, folder / "db")
    return folder / "db"


def clustered_database(folder: Path) -> Path:
    """One with clusters as ColabFold's: representatives, members and their alignments."""
    database = plain_database(folder)
    members = folder / "db_seq"
    for path in list(folder.glob("db*")):
        path.rename(folder / path.name.replace("db", "db_seq", 1))
    mmseqs("cluster", members, folder / "clusters", folder / "tmp", "-c", "0.8")
    mmseqs("align", members, members, folder / "clusters", folder / "db_aln", "-a", "-e", "inf")
    mmseqs("result2repseq", members, folder / "clusters", database)
    assert len((folder / "db.index").read_text().splitlines()) < 10
    return database


def search(queries: Sequence[str], *arguments: object) -> list[FoundAlignment]:
    found = list(MmseqsSearch(*arguments, threads=1).search(queries))  # type: ignore[arg-type]
    assert all(isinstance(item, FoundAlignment) for item in found), found
    return found  # type: ignore[return-value]


def keys(found: FoundAlignment) -> set[int]:
    return {row.key for row in found.rows[1:]}


@needs_mmseqs
def test_members_of_clusters_are_rows(tmp_path: Path) -> None:
    for found in search(QUERIES, clustered_database(tmp_path / "clustered")):
        assert len(keys(found)) > 8
        assert keys(found) <= set(range(9606, 9618))
        columns = {len(re.sub("[a-z]", "", row.text)) for row in found.rows}
        assert columns == {len(found.sequence)}
        assert any(re.search("gsg", row.text) for row in found.rows)


@needs_mmseqs
def test_organisms_beside_the_clusters(tmp_path: Path) -> None:
    """ColabFold's databases have no organisms beside their members."""
    database = clustered_database(tmp_path / "clustered")
    lines = (tmp_path / "clustered/db_seq.lookup").read_text().splitlines()
    numbers = [line.split("\t")[0] for line in lines]
    mapping = "".join(f"{number}\t{500 + int(number)}\n" for number in numbers)
    (tmp_path / "clustered/db_mapping").write_text(mapping)
    before = sorted(path.name for path in (tmp_path / "clustered").iterdir())
    for found in search(QUERIES, database):
        assert len(keys(found)) > 8 and keys(found) <= set(range(500, 548))
    assert sorted(path.name for path in (tmp_path / "clustered").iterdir()) == before


@needs_mmseqs
@pytest.mark.parametrize("clustered", [False, True])
def test_environmental_rows_follow_and_are_searched_by_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clustered: bool
) -> None:
    database = plain_database(tmp_path / "plain", 6)
    if clustered:
        second = clustered_database(tmp_path / "second")
    else:
        second = plain_database(tmp_path / "second", seed=9)
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    (programs / "mmseqs").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {MMSEQS} "$@"\n')
    (programs / "mmseqs").chmod(0o755)
    alone = search(QUERIES, database)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    both = search(QUERIES, database, second)
    for one, two in zip(alone, both, strict=True):
        assert two.rows[: len(one.rows)] == one.rows
        assert len(two.rows) > len(one.rows) + 4
    searches = [line for line in log.read_text().splitlines() if line.startswith("search ")]
    assert [Path(line.split()[1]).name for line in searches] == ["queries", "profile_1"]
    expansions = [line for line in log.read_text().splitlines() if line.startswith("expandaln ")]
    assert len(expansions) == clustered


def test_the_gpu_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    program = tmp_path / "mmseqs"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != search ]\n')
    program.chmod(0o755)
    (tmp_path / "db.dbtype").touch()
    (tmp_path / "db.index").write_text("0\t0\t2\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = {}
    for gpu_server in (True, False):
        method = MmseqsSearch(tmp_path / "db", gpu_server=gpu_server)
        assert "mmseqs search: ended with code 1" in next(method.search(["MKTAY"])).reason
        asked[gpu_server] = log.read_text().splitlines()[-1]
        assert ("--gpu 1" in method.identity["parameters"]) == gpu_server
    assert "--gpu 1 --gpu-server 1 --prefilter-mode 1" in asked[True] and " -s " not in asked[True]
    assert " -s 8" in asked[False] and "--gpu" not in asked[False]


@pytest.mark.parametrize("names", [(), ("db",), ("db", "db.dbtype")])
def test_what_is_no_database(tmp_path: Path, names: tuple[str, ...]) -> None:
    if MMSEQS is None:
        pytest.skip("mmseqs is not installed")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="db: not a database of MMseqs2"):
        MmseqsSearch(tmp_path / "db")
    for name in ("db.dbtype", "db.index"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="db: has no sequences"):
        MmseqsSearch(tmp_path / "db")
