"""`foldcp msa` as a process: real searches, kills, signals, and a run that reads the folder."""

from __future__ import annotations

import gzip
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Chain, Complex, InvalidComplex
from foldcp.datasets.msa_store import INDEX, read_index
from foldcp.pipeline.msa_search.stage import wanted_alignments
from foldcp.pipeline.storage.tables import read_table
from tests.msa_search.synthetic import LETTERS, sequences, write_homologs, write_queries
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


@pytest.mark.parametrize(
    ("num_rows", "max_bytes", "file"), [(200, 8_000, ".csv.gz"), (0, 4_000, "index.jsonl")]
)
def test_a_file_that_cannot_grow_ends_it_and_the_same_command_resumes(
    queries: Path, tmp_path: Path, num_rows: int, max_bytes: int, file: str
) -> None:
    """As on a full disk."""
    source = tmp_path / "source"
    source.mkdir()
    draw = random.Random(4)
    for i, query in enumerate(QUERIES):
        rows = [
            "".join(draw.choices(LETTERS, k=len(query))) for _ in range(0 if i < 5 else num_rows)
        ]
        text = "".join(f">{k}\n{row}\n" for k, row in enumerate([query, *rows]))
        (source / f"{i:02}.a3m").write_text(text)
    whole = ("msa", queries, "--out", tmp_path / "whole", "--from", source)
    assert foldcp(*whole).returncode == 0
    command = ("msa", queries, "--out", tmp_path / "msas", "--from", source)
    done = subprocess.run(
        [*PROGRAM, *command],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes)),
    )
    assert done.returncode == 2
    assert done.stderr.endswith(f"{file}: File too large\n") and done.stderr.count("\n") == 1
    assert 4 <= count_entries(tmp_path / "msas") < 20
    second = foldcp(*command)
    assert second.returncode == 0 and "0 failed" in second.stdout
    assert files(tmp_path / "msas") == files(tmp_path / "whole")


def test_wanted_alignments() -> None:
    def chain(name: str, sequence: str, **more: Any) -> Chain:
        return Chain(name, "protein", sequence, **more)

    path = Path("x.csv")
    records = [
        InvalidComplex("bad", "?"),
        Complex("homodimer", (chain("A", "MK"), chain("B", "MK"))),
        Complex("pair", (chain("A", "MK"), chain("B", "GS"), Chain("R", "rna", "ACGU"))),
        Complex("turned", (chain("A", "GS"), chain("B", "MK"))),
        Complex("alone", (chain("A", "VV", single_sequence=True), chain("B", "MK"))),
        Complex("known", (chain("A", "AA", msa=path, paired_msa=path), chain("B", "CC"))),
    ]
    wanted = wanted_alignments(records, only_missing=False)
    assert wanted.sequences == ("MK", "GS", "VV", "AA", "CC")
    assert wanted.pairs == (("GS", "MK"), ("MK", "VV"), ("AA", "CC"))
    wanted = wanted_alignments(records, only_missing=True)
    assert wanted.sequences == ("MK", "GS", "CC")
    assert wanted.pairs == (("GS", "MK"),)
    assert [record.name for record in wanted.invalid] == ["bad"]


def test_invalid_complexes_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(f">good\n{QUERIES[0]}\n>bad\n>worse\nM1\n")
    (tmp_path / "source").mkdir()
    done = foldcp(
        "msa", tmp_path / "a.fasta", "--out", tmp_path / "o", "--from", tmp_path / "source"
    )
    assert "1 sequences, 0 stored before, 0 added, 1 failed; 2 invalid complexes" in done.stdout
    assert "  invalid: bad: " in done.stderr and "  invalid: worse: " in done.stderr
    assert f"({len(QUERIES[0])} residues): no alignment of it" in done.stderr


@needs_jackhmmer
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"ACDE\n"])
def test_jackhmmer_needs_an_unpacked_fasta(queries: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    done = foldcp("msa", queries, "--out", tmp_path / "o", "--jackhmmer", tmp_path / "db")
    assert done.returncode == 2 and "db: not an unpacked FASTA file" in done.stderr


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
        (("--from", ".", "--unpaired"), "--unpaired needs --server"),
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
