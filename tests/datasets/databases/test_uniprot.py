"""Entries of UniProt's REST service, played by a server on 127.0.0.1 that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets import uniprot
from foldcp.datasets.uniprot import Entry, look_up
from tests.support.inputs import read_input

pytestmark = pytest.mark.timeout(60)

Fault = tuple[int, dict[str, str], Callable[[bytes], bytes]]


def whole(body: bytes) -> bytes:
    return body


@dataclass
class Service:
    """What the server knows, the faults that it answers with first, and what it was asked."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    agents: set[str | None] = field(default_factory=set)

    def has(self, name: str, sequence: str, secondary: tuple[str, ...] = ()) -> None:
        self.results[name] = {
            "entryType": "UniProtKB reviewed (Swiss-Prot)",
            "primaryAccession": name,
            "secondaryAccessions": list(secondary),
            "entryAudit": {"entryVersion": 7, "lastAnnotationUpdateDate": "2026-01-28"},
            "sequence": {"value": sequence, "length": len(sequence)},
        }

    def replaced(self, name: str, kind: str, followers: tuple[str, ...] = ()) -> None:
        reason = {"inactiveReasonType": kind, "mergeDemergeTo": list(followers)}
        self.results[name] = {
            "entryType": "Inactive",
            "primaryAccession": name,
            "inactiveReason": reason,
        }

    def answer(self, names: list[str]) -> bytes:
        found = {
            primary: result
            for primary, result in self.results.items()
            if primary in names or set(result.get("secondaryAccessions", ())) & set(names)
        }
        return json.dumps({"results": list(found.values())}).encode()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            assert parts.path == "/uniprotkb/accessions"
            names = parse_qs(parts.query)["accessions"][0].split(",")
            state.asked.append(names)
            state.agents.add(self.headers["User-Agent"])
            status, headers, sent = state.faults.pop(0) if state.faults else (200, {}, whole)
            body = state.answer(names)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(sent(body))

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv(uniprot.URL_VARIABLE, f"http://127.0.0.1:{http.server_port}/")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(uniprot, "INTERVAL", 0.0)
    yield state
    http.shutdown()
    http.server_close()
    thread.join(10)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait would have been."""
    found: list[float] = []
    monkeypatch.setattr(uniprot.time, "sleep", lambda seconds: found.append(seconds))
    return found


def test_look_up_requests_each_entry_once(service: Service, tmp_path: Path) -> None:
    names = [f"P{number:05}" for number in range(250)]
    for name in names:
        service.has(name, "MKTAY")
    entries = look_up([*names, "not an accession"], tmp_path / "cache")
    assert sorted(entries) == names
    entry = entries["P00007"]
    assert (entry.sequence, entry.version, entry.date) == ("MKTAY", 7, "2026-01-28")
    assert [len(batch) for batch in service.asked] == [100, 100, 50]
    assert service.agents == {"foldcp"}
    assert look_up(names, tmp_path / "cache") == entries
    assert len(service.asked) == 3


def test_look_up_keeps_a_distance_between_requests(
    service: Service, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniprot, "INTERVAL", 100.0)
    look_up([f"P{number:05}" for number in range(150)], tmp_path)
    assert waits[0] == 0 and 90 < waits[1] <= 100


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        ((429, {"Retry-After": "17"}, whole), 17),
        ((429, {"Retry-After": "99999"}, whole), uniprot.MAX_WAIT),
        ((503, {}, whole), uniprot.FIRST_WAIT),
        ((503, {"Retry-After": "soon"}, whole), uniprot.FIRST_WAIT),
        ((200, {}, lambda body: body[:-9]), uniprot.FIRST_WAIT),
        ((200, {}, lambda body: body[:-2] + b"  "), uniprot.FIRST_WAIT),
        ((200, {}, lambda body: b"<html>" + body[6:]), uniprot.FIRST_WAIT),
    ],
)
def test_look_up_tries_again(
    service: Service, tmp_path: Path, waits: list[float], fault: Fault, wait: float
) -> None:
    service.has("P00001", "MKTAY")
    service.faults = [fault, fault]
    assert look_up(["P00001"], tmp_path)["P00001"].sequence == "MKTAY"
    assert [seconds for seconds in waits if seconds] == [
        wait,
        min(max(wait, 2 * uniprot.FIRST_WAIT), uniprot.MAX_WAIT),
    ]


def test_look_up_waits_until_the_date_that_the_server_names(
    service: Service, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniprot.time, "time", lambda: 1_000_000.0)
    service.faults = [(503, {"Retry-After": formatdate(1_000_030, usegmt=True)}, whole)]
    look_up(["P00001"], tmp_path)
    assert max(waits) == 30


def test_look_up_gives_up_and_goes_on_later(
    service: Service, tmp_path: Path, waits: list[float]
) -> None:
    names = [f"P{number:05}" for number in range(150)]
    for name in names:
        service.has(name, "MKTAY")
    service.faults = [(200, {}, whole), *[(503, {}, whole)] * uniprot.MAX_ATTEMPTS]
    with pytest.raises(ValueError, match=r"http://127.0.0.1:\d+: answers 503 .*, 7 times; the ent"):
        look_up(names, tmp_path)
    assert sum(waits) < uniprot.MAX_ATTEMPTS * uniprot.MAX_WAIT
    service.asked.clear()
    assert len(look_up(names, tmp_path)) == 150
    assert [len(batch) for batch in service.asked] == [50]


def test_look_up_does_not_repeat_a_request_that_is_wrong(
    service: Service, tmp_path: Path, waits: list[float]
) -> None:
    service.faults = [(400, {}, whole)]
    with pytest.raises(ValueError, match="answers 400 Bad Request, 1 times"):
        look_up(["P00001"], tmp_path)


def test_look_up_of_a_server_that_is_silent(
    service: Service, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniprot, "TIMEOUT", 0.05)
    monkeypatch.setattr(uniprot, "MAX_ATTEMPTS", 2)
    service.faults = [(200, {}, lambda body: body[:5] + _after_a_while())] * 2
    with pytest.raises(ValueError, match=r"cannot be reached \(timed out\), 2 times"):
        look_up(["P00001"], tmp_path)


def _after_a_while() -> bytes:
    from threading import Event

    Event().wait(0.3)
    return b""


def test_look_up_asks_again_for_absent_entries_after_a_week(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look_up(["P00001"], tmp_path)["P00001"].sequence == ""
    look_up(["P00001"], tmp_path)
    assert len(service.asked) == 1
    service.has("P00001", "MKTAY")
    monkeypatch.setattr(uniprot, "SECONDS_ABSENT", -1)
    assert look_up(["P00001"], tmp_path)["P00001"].sequence == "MKTAY"


def test_look_up_names_a_damaged_file(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"entries": [{"name": 1}]}')
    with pytest.raises(ValueError, match=r"a\.json: a damaged file of UniProt entries; remove it"):
        look_up(["P00001"], tmp_path)


def test_look_up_stores_whole_files(service: Service, tmp_path: Path) -> None:
    service.has("P00001", "MKTAY")
    look_up(["P00001"], tmp_path)
    [path] = tmp_path.iterdir()
    [value] = json.loads(path.read_text())["entries"]
    stored = Entry(**{**value, "replaced_by": tuple(value["replaced_by"])})
    assert (stored.accession, stored.sequence, stored.version) == ("P00001", "MKTAY", 7)


def test_databases_take_sequences_of_uniprot(service: Service, tmp_path: Path) -> None:
    service.has("P00002", "GSHW", secondary=("Q00002",))
    service.has("P00003", "CCW", secondary=("Q00009",))
    service.has("P00004", "MMM", secondary=("Q00009",))
    service.replaced("Q00005", "MERGED", ("P00003",))
    service.replaced("Q00006", "DEMERGED", ("P00003", "P00004"))
    service.replaced("Q00007", "DELETED")
    names = [
        "P00001",
        "P00002-2",
        "Q00002",
        "Q00005",
        "Q00006",
        "Q00009",
        "Q00007",
        "Q00008",
        "P00002:2-3",
    ]
    rows = "".join(f"{name}\tn\tHuman\t{name}\n" for name in names)
    (tmp_path / "s.fasta").write_text(">P00001\nMKTAY\n")
    (tmp_path / "db.tsv").write_text(f"complex_id\tname\torganism\tsubunits_uniprot_id\n{rows}")
    records = list(
        read_input(tmp_path / "db.tsv", tmp_path / "s.fasta", uniprot=tmp_path / "cache")
    )
    sequences = {r.name: r.chains[0].sequence for r in records if isinstance(r, Complex)}
    assert sequences == {
        "P00001": "MKTAY",
        "P00002-2": "GSHW",
        "Q00002": "GSHW",
        "Q00005": "CCW",
        "P00002:2-3": "SH",
    }
    notes = {record.name: record.notes for record in records}
    origin = "P00002 from UniProt, version 7 of 2026-01-28"
    assert f"sequence: full-length P00002 used for P00002-2 ({origin})" in notes["P00002-2"]
    assert f"sequence: P00002 used for Q00002, which it replaces ({origin})" in notes["Q00002"]
    assert f"sequence: {origin}" in notes["P00002:2-3"]
    reasons = {r.name: r.reason for r in records if isinstance(r, InvalidComplex)}
    for name in ("Q00006", "Q00009"):
        assert reasons[name].startswith(f"{name} is obsolete and was split into P00003, P00004;")
    where = "not in s.fasta, UniProt"
    assert reasons["Q00007"] == f"unknown accession: Q00007 (deleted at UniProt) {where}"
    assert reasons["Q00008"] == f"unknown accession: Q00008 {where}"
    assert "P00001" not in {name for batch in service.asked for name in batch}
