"""`foldcp msa --server` as a process, against a server that works and often does not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from foldcp.complex import Complex
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.msas import open_msas
from foldcp.datasets.reader import read
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msas
from foldcp.pipeline.msa_search.server.tickets import FILE_NAME
from foldcp.pipeline.storage.tables import read_table
from tests.msa_search.server import (
    FakeServer,
    Reply,
    Request,
    archive,
    blocks,
    running_server,
    status,
)
from tests.msa_search.synthetic import sequences
from tests.msa_search.test_store import files

QUERIES = sequences(45)
# The command with waits a thousandth as long.
PROGRAM = """
import time
import foldcp.pipeline.msa_search.command as command

class ImpatientServer(command.ColabFoldServer):
    def __post_init__(self):
        self.sleep = lambda seconds: time.sleep(seconds / 1000)
        self.clock = lambda: time.monotonic() * 1000
        super().__post_init__()

command.ColabFoldServer = ImpatientServer
from foldcp.pipeline.cli import main
main()
"""


@dataclass
class WorkingServer:
    """Searches by making up rows from the sequences; `faults` are the share of requests that go
    wrong, `pause` the seconds that each takes."""

    faults: float = 0.0
    pause: float = 0.0
    tickets: dict[str, list[str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    searched: Counter[str] = field(default_factory=Counter)
    draw: random.Random = field(default_factory=lambda: random.Random(3))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Reply:
        time.sleep(self.pause)
        with self.lock:
            fault = self.draw.choice(FAULTS) if self.draw.random() < self.faults else None
            if fault is not None and fault.sent is None:
                return fault
            reply = self.answer(request)
            if fault is not None:
                reply.sent = fault.sent
            return reply

    def answer(self, request: Request) -> Reply:
        kind, _, rest = request.path.strip("/").partition("/")
        if kind == "ticket" and request.form:
            ticket = f"T{len(self.tickets)}"
            self.tickets[ticket] = request.form["q"].split("\n")[1::2]
            self.kinds[ticket] = rest
            self.searched.update(
                [":".join(self.tickets[ticket])] if rest == "pair" else self.tickets[ticket]
            )
            return status("PENDING", ticket)
        ticket = rest.removeprefix("download/")
        if ticket not in self.tickets:
            return Reply(code=404)
        if kind == "ticket":
            return status(self.draw.choice(["RUNNING", "COMPLETE"]), ticket)
        queries = self.tickets[ticket]
        if self.kinds[ticket] == "pair":
            return Reply(
                archive({"pair.a3m": blocks(*([q, "--" + q[2:], q[:-3] + "---"] for q in queries))})
            )
        uniref = blocks(
            *([query, "-" + query[1:], query[:9] + "a" + query[9:]] for query in queries)
        )
        environmental = blocks(*([query, query[::-1]] for query in queries))
        return Reply(archive({"uniref.a3m": uniref, ENVIRONMENTAL: environmental}))


ENVIRONMENTAL = "bfd.mgnify30.metaeuk30.smag30.a3m"
FAULTS = [
    Reply(dropped=True),
    Reply(code=429, headers={"Retry-After": "3"}),
    Reply(code=502),
    Reply(code=503),
    Reply(b"<html>busy</html>"),
    Reply(sent=30),
]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running_server() as fake:
        fake.respond = WorkingServer()
        yield fake


def command(fake: FakeServer, complexes: Path, out: Path, *words: str | Path) -> list[str | Path]:
    program = [sys.executable, "-c", PROGRAM, "msa", complexes, "--out", out, *words]
    return [*program, "--server", fake.url]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = command(*arguments)  # type: ignore[arg-type]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.fixture
def complexes(tmp_path: Path) -> Path:
    """Complexes of two and three proteins, of which some share proteins and one is there twice."""
    path = tmp_path / "complexes.fasta"
    lines = [f">c{i}\n{QUERIES[i]}:{QUERIES[i + 1]}\n" for i in range(0, 40, 4)]
    lines += [f">t{i}\n{QUERIES[i]}:{QUERIES[i]}:{QUERIES[i + 1]}\n" for i in range(0, 8, 4)]
    lines += [f">m{i}\n{QUERIES[i]}\n" for i in (2, 3, 44)]
    lines += [f">three\n{QUERIES[0]}:{QUERIES[44]}:{QUERIES[43]}\n"]
    path.write_text("".join(lines))
    return path


def test_a_server_gives_alignments_and_pairs_that_a_run_uses(
    server: FakeServer, complexes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "msas"
    done = run(server, complexes, out)
    assert done.returncode == 0, done.stderr
    assert (
        "24 sequences, 0 stored before, 24 added, 0 failed; 11 paired alignments, 0" in done.stdout
    )
    assert max(server.respond.searched.values()) == 1
    options = ReadOptions(msas=open_msas([out]))
    records = list(read(complexes, options))
    for record in records:
        assert isinstance(record, Complex)
        several = len({chain.sequence for chain in record.chains}) > 1
        assert all(bool(chain.paired_msa) == several for chain in record.chains)
        for chain, msa in zip(record.chains, read_chain_msas(record, MsaSettings()), strict=True):
            assert chain.msa_statistics.depth == 4
            assert (msa.keys >= 0).sum() == (2 if several else 0)
    short = tmp_path / "one.fasta"
    short.write_text(f">c0\n{QUERIES[0]}:{QUERIES[1]}\n")
    words = ["--msas", out, "--out", tmp_path / "run", "--checkpoint", "untrained:tiny"]
    words += ["--gpus", "1", "--set", "model.steps=2", "--set", "model.recycling=0"]
    program = [sys.executable, "-m", "foldcp", "score", short, *words]
    scored = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert scored.returncode == 0, scored.stderr
    rows = read_table(tmp_path / "run", "chains").to_pylist()
    assert [row["msa_depth"] for row in rows] == [6, 6]


def test_a_second_run_asks_for_nothing(server: FakeServer, complexes: Path, tmp_path: Path) -> None:
    out = tmp_path / "msas"
    run(server, complexes, out, "--unpaired")
    assert not (out / "paired").exists()
    run(server, complexes, out)
    assert max(server.respond.searched.values()) == 1
    before = files(out)
    num_requests = len(server.requests)
    done = run(server, complexes, out)
    assert "24 stored before, 0 added, 0 failed; 11 paired alignments, 11 stored" in done.stdout
    assert len(server.requests) == num_requests
    assert files(out) == before


def test_a_bad_server_gives_the_same_files(
    server: FakeServer, complexes: Path, tmp_path: Path
) -> None:
    run(server, complexes, tmp_path / "whole")
    server.respond = WorkingServer(faults=0.35)
    for _ in range(5):
        done = run(server, complexes, tmp_path / "msas")
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "msas") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder; the lines of the index have no order."""
    found = files(folder)
    found["index.jsonl"] = b"\n".join(sorted(found["index.jsonl"].splitlines()))
    return found


def test_killed_at_random_moments_it_searches_nothing_twice(
    server: FakeServer, complexes: Path, tmp_path: Path
) -> None:
    run(server, complexes, tmp_path / "whole")
    server.respond = WorkingServer(pause=0.02)
    server.requests.clear()
    draw = random.Random(5)
    out = tmp_path / "msas"
    num_kills = 0
    for _ in range(16):
        process = subprocess.Popen(
            command(server, complexes, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        num_requests = len(server.requests)
        moment = draw.randint(1, 4)
        while process.poll() is None and len(server.requests) < num_requests + moment:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        num_kills += 1
    assert num_kills >= 10
    assert run(server, complexes, out).returncode == 0
    assert files(out) == files(tmp_path / "whole")
    asked_for = {request.path.rpartition("/")[2] for request in server.requests}
    lost = [ticket for ticket in server.respond.tickets if ticket not in asked_for]
    assert len(lost) < num_kills / 2  # those of which a client did not hear before it was killed
    num_repeated = sum(count - 1 for count in server.respond.searched.values())
    assert num_repeated <= 20 * len(lost)


@pytest.mark.parametrize("kind", ["ticket/msa", "ticket/pair"])
def test_a_ticket_that_a_killed_run_left_behind_is_forgotten_once_all_is_stored(
    server: FakeServer, complexes: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "msas"
    run(server, complexes, out)
    tickets = out / ".tickets" / FILE_NAME
    mode = "env" if kind == "ticket/msa" else "pairgreedy"
    job = {"ticket": "T1", "url": server.url, "path": kind, "mode": mode}
    stored = job | {"sequences": sorted(QUERIES[:2])}
    other = job | {"sequences": sorted([QUERIES[0], QUERIES[20], QUERIES[21]])}
    other["sequences"][0] = other["sequences"][0][::-1]  # stored nowhere
    tickets.write_text(json.dumps([stored, other]))
    tickets.with_name(f"{FILE_NAME}.part").write_text("[")  # it was killed as it wrote
    assert run(server, complexes, out).returncode == 0
    assert json.loads(tickets.read_text()) == [other]
    assert [path.name for path in tickets.parent.iterdir()] == [FILE_NAME]


def test_a_signal_while_it_waits(server: FakeServer, complexes: Path, tmp_path: Path) -> None:
    server.respond = lambda request: status("RUNNING")
    out = tmp_path / "msas"
    process = subprocess.Popen(command(server, complexes, out), stderr=subprocess.PIPE, text=True)
    while len(server.requests) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "interrupted; the same command resumes from here\n"
    (kept,) = json.loads((out / ".tickets" / FILE_NAME).read_text())
    assert kept["ticket"] == "T1" and len(kept["sequences"]) == 20


def test_failures_of_a_server(server: FakeServer, complexes: Path, tmp_path: Path) -> None:
    working = server.respond

    def respond(request: Request) -> Reply:
        if request.path == "/ticket/pair":
            return status("ERROR", error="no pairs\x1b[31m")
        return working(request)

    server.respond = respond
    done = run(server, complexes, tmp_path / "msas")
    assert done.returncode == 1
    assert (
        "24 added, 0 failed; 11 paired alignments, 0 stored before, 0 added, 11 fail" in done.stdout
    )
    assert " residues) and 10 more: " in done.stderr and "no pairs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    pair = sum(len(query) for query in QUERIES[:2])
    assert f".. ({pair} residues) and" in done.stderr
    server.respond = lambda request: Reply(code=401)
    done = run(server, complexes, tmp_path / "msas")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "HTTP 401" in done.stderr


def test_an_address_that_is_wrong(complexes: Path, tmp_path: Path) -> None:
    with running_server() as fake:
        pass
    done = run(fake, complexes, tmp_path / "msas")
    assert done.returncode == 2 and "no answer in 8 attempts" in done.stderr
    assert done.stderr.count("\n") == 1
    environment = {**os.environ, "FOLDCP_MSA_USER": "me"}
    words = command(fake, complexes, tmp_path / "other")
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "set both FOLDCP_MSA_USER and" in done.stderr
    assert not (tmp_path / "other").exists()
