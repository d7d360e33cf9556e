"""`foldcp msa` as a process: real searches, kills, signals, and a run that reads the folder."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foldcp.datasets.msa_store import INDEX, read_index
from foldcp.pipeline.storage.tables import read_table
from tests.msa_search.synthetic import sequences, write_homologs, write_queries
from tests.msa_search.test_store import files

needs_mmseqs = pytest.mark.skipif(not shutil.which("mmseqs"), reason="mmseqs is not installed")
needs_jackhmmer = pytest.mark.skipif(
    not shutil.which("jackhmmer"), reason="jackhmmer is not installed"
)
PROGRAM = (sys.executable, "-c", "from foldcp.pipeline.cli import main; main()")
QUERIES = sequences(20)


def foldcp(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=300)


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    return write_queries(tmp_path / "queries.fasta", [*QUERIES, QUERIES[0]])


def mmseqs_database(folder: Path) -> Path:
    fasta = write_homologs(folder / "homologs.fasta", QUERIES)
    command = ["mmseqs", "createdb", fasta, folder / "db", "-v", "1"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "db"


@needs_mmseqs
def test_mmseqs_makes_alignments_that_a_run_uses(queries: Path, tmp_path: Path) -> None:
    out = tmp_path / "msas"
    done = foldcp("msa", queries, "--out", out, "--mmseqs", mmseqs_database(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "20 sequences, 0 stored before, 20 added, 0 failed" in done.stdout
    entries = {entry.sha256: entry for entry in read_index(out)}
    assert all(entry.statistics.depth > 5 for entry in entries.values())
    dimer = tmp_path / "dimer.fasta"
    dimer.write_text(f">dimer\n{QUERIES[0]}:{QUERIES[1]}\n")
    settings = ("--set", "model.steps=2", "--set", "model.recycling=0")
    options = ("--checkpoint", "untrained:tiny", "--gpus", "1", *settings)
    run = foldcp("score", dimer, "--msas", out, "--out", tmp_path / "run", *options)
    assert run.returncode == 0, run.stderr
    for row in read_table(tmp_path / "run", "chains").to_pylist():
        entry = entries[row["sequence_sha256"]]
        assert 5 < row["msa_depth"] <= entry.statistics.depth
        assert row["msa_neff"] == pytest.approx(entry.statistics.neff, rel=1e-6)
        assert row["msa_coverage"] == pytest.approx(entry.statistics.coverage, rel=1e-6)


@needs_mmseqs
def test_organisms_come_from_headers(queries: Path, tmp_path: Path) -> None:
    out = tmp_path / "msas"
    foldcp("msa", queries, "--out", out, "--mmseqs", mmseqs_database(tmp_path))
    for path in out.rglob("*.csv.gz"):
        lines = gzip.decompress(path.read_bytes()).splitlines()[1:]
        keys = [int(line.split(b",")[0]) for line in lines]
        assert keys[0] == -1 and set(keys[1:]) <= set(range(9606, 9618))


@needs_jackhmmer
def test_killed_at_any_moment_it_resumes_to_the_same_files(queries: Path, tmp_path: Path) -> None:
    database = write_homologs(tmp_path / "homologs.fasta", QUERIES)
    options = ("--jackhmmer", database, "--threads", "2")
    assert foldcp("msa", queries, "--out", tmp_path / "whole", *options).returncode == 0
    draw = random.Random(0)
    out = tmp_path / "msas"
    num_stored = set()
    for _ in range(5):
        process = subprocess.Popen(
            [*PROGRAM, "msa", queries, "--out", out, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        before = count_entries(out)
        while count_entries(out) < before + 2 and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.wait()
        num_stored.add(count_entries(out))
    assert len(num_stored) > 1 and min(num_stored) < 20
    assert foldcp("msa", queries, "--out", out, *options).returncode == 0
    assert files(out) == files(tmp_path / "whole")


def count_entries(folder: Path) -> int:
    index = folder / INDEX
    return index.read_bytes().count(b"\n") if index.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_program(
    queries: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A jackhmmer that never ends is killed too."""
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "jackhmmer"
    pids = tmp_path / "pid"
    fake.write_text(f'#!/bin/sh\n[ "$1" = -h ] && exit 0\necho $$ >> {pids}\nexec sleep 600\n')
    fake.chmod(0o755)
    process = subprocess.Popen(
        [*PROGRAM, "msa", queries, "--out", tmp_path / "msas", "--jackhmmer", queries],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "the same command resumes" in err and "Traceback" not in err
    for pid in pids.read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_failures_are_told_and_tried_again(queries: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.a3m").write_text(f">q\n{QUERIES[0]}\n")
    (source / "b.a3m").write_text(f">q\n{QUERIES[1]}\n>r\nAC\n")
    command = ("msa", queries, "--out", tmp_path / "msas", "--from", source)
    first = foldcp(*command)
    assert first.returncode == 1
    assert "20 sequences, 0 stored before, 1 added, 19 failed" in first.stdout
    assert f"{source / 'b.a3m'}: row 2 has 2 columns, the query {len(QUERIES[1])}" in first.stderr
    (source / "b.a3m").write_text(f">q\n{QUERIES[1]}\n")
    second = foldcp(*command)
    assert "1 stored before, 1 added, 18 failed" in second.stdout


def test_missing_takes_only_proteins_without_alignment(queries: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.a3m").write_text(f">q\n{QUERIES[0]}\n")
    first = tmp_path / "first"
    foldcp("msa", queries, "--out", first, "--from", source)
    words = ("--out", tmp_path / "second", "--from", source, "--msas", first, "--missing")
    done = foldcp("msa", queries, *words)
    assert "19 sequences, 0 stored before, 0 added, 19 failed" in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "give one of --from, --mmseqs, --jackhmmer and --server"),
        (("--from", ".", "--jackhmmer", "x"), "give one of"),
        (("--jackhmmer", "/nowhere.fasta"), "/nowhere.fasta"),
        (("--from", "/nowhere"), "/nowhere: not a folder of alignments"),
        (("--from", ".", "--gpu-server"), "need --mmseqs"),
    ],
)
def test_mistakes_are_one_line(
    queries: Path, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    if "/nowhere.fasta" in words and not shutil.which("jackhmmer"):
        pytest.skip("jackhmmer is not installed")
    done = foldcp("msa", queries, "--out", tmp_path / "msas", *words)
    assert done.returncode == 2 and reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "msas").exists()


def test_the_identity_names_what_differs(queries: Path, tmp_path: Path) -> None:
    out = tmp_path / "msas"
    source = tmp_path / "source"
    source.mkdir()
    foldcp("msa", queries, "--out", out, "--from", source)
    identity = json.loads((out / "msas.json").read_text())
    identity["identity"]["method"] = "mmseqs"
    (out / "msas.json").write_text(json.dumps(identity))
    done = foldcp("msa", queries, "--out", out, "--from", source)
    assert done.returncode == 2
    assert "method is 'mmseqs' there and 'import' here" in done.stderr
