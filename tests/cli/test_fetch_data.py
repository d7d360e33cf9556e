"""Downloads of databases from servers that misbehave, all on 127.0.0.1."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from foldcp.pipeline import fetch_data
from foldcp.pipeline.cli import main
from foldcp.pipeline.fetch_data import DATABASES, fetch_database, source_file

pytestmark = pytest.mark.timeout(60)

TABLE = b"complex_id\tcomplex_name\torganism\tsubunits_uniprot_id\n1\ta\tHuman\tP00001\n"
FASTA = gzip.compress(b">sp|P00001|A_HUMAN\n" + b"MKTAY\n" * 5_000)


@dataclass
class Server:
    """A server whose answers are (status, body, bytes sent), in turn; the last one stays."""

    url: str = ""
    answers: list[tuple[int, bytes, int | None]] = field(default_factory=list)
    num_requests: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.num_requests += 1
            only = len(state.answers) == 1
            status, body, num_sent = state.answers[0] if only else state.answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"one"')
            self.send_header("Last-Modified", "Tue, 14 Apr 2026 08:00:00 GMT")
            self.end_headers()
            self.wfile.write(body[:num_sent])

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/file"
    for name, database in list(DATABASES.items()):
        monkeypatch.setitem(DATABASES, name, replace(database, urls=(state.url,)))
    monkeypatch.setattr(fetch_data, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    yield state
    http.shutdown()
    http.server_close()
    thread.join(10)


def test_fetch_database_records_where_the_file_came_from(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, TABLE, None)]
    path, source = fetch_database("corum", tmp_path)
    assert path.read_bytes() == TABLE
    record = json.loads(source_file(path).read_text())
    assert record["sha256"] == source.sha256 == hashlib.sha256(TABLE).hexdigest()
    assert (record["url"], record["etag"], record["size"]) == (server.url, '"one"', len(TABLE))
    assert record["last_modified"] == "Tue, 14 Apr 2026 08:00:00 GMT"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "corum.txt",
        "corum.txt.source.json",
    ]


def test_fetch_database_checks_a_file_that_is_there(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, TABLE, None)]
    path, source = fetch_database("corum", tmp_path)
    assert fetch_database("corum", tmp_path) == (path, source)
    assert server.num_requests == 1
    path.write_bytes(TABLE + b"2\tb\tHuman\tP00002\n")
    with pytest.raises(ValueError, match=rf"corum\.txt: has SHA-256 .*, not {source.sha256} as"):
        fetch_database("corum", tmp_path)
    source_file(path).unlink()
    with pytest.raises(ValueError, match="was not downloaded by foldcp; remove it"):
        fetch_database("corum", tmp_path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!doctype html><html lang=en><body></body></html>", "gives a web page, not the file"),
        (b'{"detail": "no such file"}', "gives another file, which begins with"),
        (b"", "gives another file, which begins with b''"),
    ],
)
def test_fetch_database_refuses_what_is_no_table(
    server: Server, tmp_path: Path, body: bytes, reason: str
) -> None:
    server.answers = [(200, body, None)]
    with pytest.raises(ValueError, match=f"{server.url}: {reason}"):
        fetch_database("corum", tmp_path)
    assert not list(tmp_path.iterdir())


def test_fetch_database_tries_again_when_cut_off(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, FASTA, 20), (200, FASTA[:-9], None), (200, FASTA, None)]
    path, _ = fetch_database("uniprot-human", tmp_path)
    assert path.read_bytes() == FASTA
    assert server.num_requests == 3


def test_fetch_database_gives_up_a_server_that_always_cuts(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, TABLE, 20)]
    with pytest.raises(ValueError, match=f"cut off after 20 of {len(TABLE)} bytes"):
        fetch_database("complexportal", tmp_path)
    assert server.num_requests == fetch_data.MAX_ATTEMPTS
    assert not list(tmp_path.iterdir())


def test_fetch_database_takes_the_second_url(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = (server.url + "/first", server.url + "/second")
    monkeypatch.setitem(DATABASES, "corum", replace(DATABASES["corum"], urls=urls))
    server.answers = [(404, b"", None), (200, TABLE, None)]
    assert fetch_database("corum", tmp_path)[1].url == urls[1]


def test_fetch_database_refuses_a_file_that_never_ends(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATABASES, "corum", replace(DATABASES["corum"], max_bytes=50))
    server.answers = [(200, TABLE, None)]
    with pytest.raises(ValueError, match="gives more than 50 bytes"):
        fetch_database("corum", tmp_path)


@pytest.mark.parametrize(
    ("name", "body", "licence"),
    [
        ("corum", TABLE, "CC BY-NC 4.0, not for commercial use"),
        ("complexportal", b"#Complex ac\tRecommended name\n", "CC0"),
        ("uniprot-human", FASTA, "CC BY 4.0"),
    ],
)
def test_fetch_command_prints_the_licence_and_the_next_command(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    body: bytes,
    licence: str,
) -> None:
    server.answers = [(200, body, None)]
    monkeypatch.setattr(sys, "argv", ["foldcp", "fetch", name, "--to", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("licence: ") and lines[1].endswith(licence)
    assert lines[2].startswith("foldcp plan ")
    assert str(tmp_path / DATABASES[name].file) in lines[2]
