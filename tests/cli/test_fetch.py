"""Downloads over connections and from servers that misbehave, all on 127.0.0.1: weights arrive
whole and checked, or not at all.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from foldcp.pipeline import fetch as module
from foldcp.pipeline.cli import main
from foldcp.pipeline.fetch import WEIGHTS, Weights, fetch
from foldcp.pipeline.inputs.input_spec import InputSpec

pytestmark = pytest.mark.timeout(60)

BODY = random.Random(1).randbytes(300_007)
OTHER = random.Random(2).randbytes(300_007)
FILE = "boltz2_conf.ckpt"


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@dataclass
class Server:
    """A server of one URL: what it has and how it misbehaves. `cuts` are the bytes after which its
    responses break off.
    """

    url: str
    body: bytes = BODY
    etag: str = '"one"'
    status: int = 200
    ranges: bool = True
    honors_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        byte_range = handler.headers["Range"]
        condition = handler.headers["If-Range"]
        self.requests.append((byte_range, condition))
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = 0
        if (
            byte_range
            and self.ranges
            and (not self.honors_if_range or condition in (None, self.etag))
        ):
            start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                handler.send_error(416)
                return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header(
                "Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            )
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(self.body[start:][: self.cuts.pop(0) if self.cuts else None])


@dataclass
class Download:
    """Two URLs of one file, and the folder it goes to."""

    first: Server
    second: Server
    folder: Path

    @property
    def target(self) -> Path:
        return self.folder / FILE

    @property
    def part(self) -> Path:
        return self.folder / (FILE + ".part")

    def expect_whole(self) -> None:
        assert fetch("boltz2", self.folder).read_bytes() == BODY
        assert [path.name for path in self.folder.iterdir()] == [FILE], (
            "nothing may stay beside the file"
        )

    def fail(self, match: str) -> str:
        with pytest.raises(ValueError, match=match) as error:
            fetch("boltz2", self.folder)
        assert not self.target.exists()
        return str(error.value)

    def leave_part(self, length: int) -> None:
        """A download that the first address cut off after `length` bytes; then both addresses
        went away.
        """
        self.first.cuts = [length, 0]
        self.second.status = 503
        self.fail("cut off")
        assert self.part.read_bytes() == self.first.body[:length]
        self.first.requests.clear()
        self.second.requests.clear()


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    servers: dict[str, Server] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            servers[self.path].answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("/first", "/second"):
        servers[name] = Server(f"http://127.0.0.1:{server.server_port}{name}")
    both = (servers["/first"].url, servers["/second"].url)
    monkeypatch.setitem(WEIGHTS, "boltz2", Weights(FILE, both, len(BODY), digest(BODY)))
    monkeypatch.setattr(module, "TIMEOUT", 20.0)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FOLDCP_CACHE", str(tmp_path / "cache"))
    yield Download(servers["/first"], servers["/second"], tmp_path / "weights")
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_fetch_downloads_the_whole_file(download: Download) -> None:
    download.expect_whole()
    assert download.first.requests == [(None, None)] and not download.second.requests


@pytest.mark.parametrize(
    "cuts", [(1,), (65_536,), (300_006,), (10, 100_000, 1), (131_071, 131_073, 37_000)]
)
def test_fetch_resumes_cut_connections(download: Download, cuts: tuple[int, ...]) -> None:
    download.first.cuts = list(cuts)
    download.expect_whole()
    starts = [sum(cuts[: n + 1]) for n in range(len(cuts))]
    assert download.first.requests == [(None, None)] + [
        (f"bytes={start}-", '"one"') for start in starts
    ]


@pytest.mark.parametrize("length", [1, 65_537, 300_006])
def test_fetch_resumes_an_earlier_download(download: Download, length: int) -> None:
    download.leave_part(length)
    download.expect_whole()
    assert download.first.requests == [(f"bytes={length}-", '"one"')]


def test_fetch_only_checks_a_whole_part(download: Download) -> None:
    download.leave_part(77)
    download.part.write_bytes(BODY)
    download.expect_whole()
    assert not download.first.requests and not download.second.requests


def test_fetch_restarts_a_part_that_is_too_long(download: Download) -> None:
    download.leave_part(77)
    download.part.write_bytes(BODY + b"x")
    download.expect_whole()
    assert download.first.requests == [(None, None)]


def test_fetch_restarts_at_a_server_without_ranges(download: Download) -> None:
    download.first.ranges = False
    download.first.cuts = [100_000]
    download.expect_whole()
    assert [start for start, _ in download.first.requests] == [
        None,
        "bytes=100000-",
    ] and not download.second.requests


def test_fetch_gives_up_a_server_without_ranges_that_always_cuts(download: Download) -> None:
    download.first.ranges = False
    download.first.cuts = [100_000] * 9
    download.second.status = 404
    download.fail("cut off after 100000 of 300007 bytes.*404.*100000 bytes are kept")
    assert len(download.first.requests) == 2


@pytest.mark.parametrize("honors_if_range", [True, False])
def test_fetch_restarts_when_the_file_has_changed(
    download: Download, honors_if_range: bool
) -> None:
    download.first.body = OTHER
    download.first.etag = '"old"'
    download.leave_part(1000)
    download.first.body = BODY
    download.first.etag = '"new"'
    download.first.honors_if_range = honors_if_range
    download.expect_whole()
    requests = [("bytes=1000-", '"old"')]
    assert download.first.requests == (requests if honors_if_range else [*requests, (None, None)])


def test_fetch_sends_no_weak_etag(download: Download) -> None:
    download.first.etag = 'W/"one"'
    download.leave_part(1000)
    download.expect_whole()
    assert download.first.requests == [("bytes=1000-", None)]


def test_fetch_keeps_the_part_when_the_file_became_shorter(download: Download) -> None:
    download.leave_part(1000)
    download.first.body = BODY[:500]
    download.second.status = 200
    download.expect_whole()
    assert download.first.requests == [("bytes=1000-", '"one"'), (None, None)], (
        "416, so the whole file, which is too short"
    )
    assert download.second.requests == [("bytes=1000-", None)], (
        "what was there stays, and the other address completes it"
    )


def test_fetch_resumes_from_the_second_url(download: Download) -> None:
    download.first.cuts = [200_000, 0]
    download.second.etag = '"two"'
    download.expect_whole()
    assert download.second.requests == [("bytes=200000-", None)]


def test_fetch_keeps_nothing_with_a_wrong_checksum(download: Download) -> None:
    download.first.body = download.second.body = OTHER
    message = download.fail(digest(OTHER))
    assert (
        message.count(digest(BODY)) == 2
        and download.first.url in message
        and download.second.url in message
    )
    assert not list(download.folder.iterdir())


def test_fetch_tries_the_second_url_after_a_wrong_checksum(
    download: Download, capsys: pytest.CaptureFixture[str]
) -> None:
    download.first.body = OTHER
    download.expect_whole()
    assert download.second.requests == [(None, None)], "not one byte of the wrong file may be kept"
    assert digest(OTHER) in capsys.readouterr().err


def test_fetch_refuses_a_page_before_it_is_written(download: Download) -> None:
    download.first.body = download.second.body = b"<html>please log in</html>"
    download.fail("has a file of 26 bytes, not 300007")
    assert not list(download.folder.iterdir())


def test_fetch_tries_the_second_url_when_the_first_has_no_file(download: Download) -> None:
    download.first.status = 404
    download.expect_whole()
    assert len(download.first.requests) == len(download.second.requests) == 1


def test_fetch_without_network_names_the_url(
    download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        monkeypatch.setitem(WEIGHTS, "boltz2", Weights(FILE, (url,), len(BODY), digest(BODY)))
        download.fail(f"{url}: cannot be reached .*refused")


@pytest.mark.parametrize("free", [300_007 - 1000 - 1, 300_007 - 1000])
def test_fetch_checks_the_free_disk_space(
    download: Download, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    download.leave_part(1000)
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - free, free))
    if free < len(BODY) - 1000:
        download.fail("0.00 GB free, 0.00 GB needed")
        assert not download.first.requests
    else:
        download.expect_whole()


def test_fetch_checks_a_file_that_is_already_there(download: Download) -> None:
    download.folder.mkdir()
    download.target.write_bytes(BODY)
    download.expect_whole()
    download.target.write_bytes(OTHER)
    with pytest.raises(
        ValueError, match=f"{FILE}: has SHA-256 {digest(OTHER)}, not {digest(BODY)}"
    ):
        fetch("boltz2", download.folder)
    assert not download.first.requests and not download.second.requests


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["foldcp", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run


def test_fetch_command_prints_the_path_and_the_next_command(
    download: Download, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / FILE
    with pytest.raises(
        ValueError, match=f"boltz2: not at {path}; `foldcp fetch boltz2` downloads it"
    ):
        InputSpec(tmp_path, checkpoint="boltz2")
    code, out, _ = command("fetch", "boltz2")
    assert code == 0 and path.read_bytes() == BODY
    assert out == (
        f"{path}: SHA-256 is right\nlicence: Boltz-2: MIT\n"
        f"foldcp score INPUT --checkpoint {path} --out RUN\n"
    )
    assert InputSpec(tmp_path, checkpoint="boltz2").checkpoint == str(path)
    assert InputSpec(tmp_path, checkpoint="untrained:tiny").checkpoint == "untrained:tiny"
    assert (
        command("fetch", "boltz2", "--to", download.folder)[0] == 0
        and download.target.read_bytes() == BODY
    )


def test_fetch_command_says_that_the_demo_network_is_there(
    download: Download, command: Command
) -> None:
    code, out, err = command("fetch", "demo", "--to", download.folder)
    assert (code, err) == (0, "")
    assert out == (
        "demo: comes with foldcp and needs no download\n"
        "foldcp score INPUT --checkpoint demo --out RUN\n"
    )
    assert not download.folder.exists() and not download.first.requests


def test_fetch_command_prints_one_line_for_mistakes(
    download: Download, command: Command, tmp_path: Path
) -> None:
    download.first.status = download.second.status = 404
    code, _, err = command("fetch", "boltz2")
    assert (
        code == 2
        and err.splitlines()[-1].startswith("foldcp: ")
        and err.splitlines()[-1].count("answers 404") == 2
    )
    (tmp_path / "file").touch()
    assert command("fetch", "boltz2", "--to", tmp_path / "file")[::2] == (
        2,
        f"foldcp: {tmp_path}/file: File exists\n",
    )
    assert command("fetch", "boltz1")[::2] == (
        2,
        "foldcp: boltz1: not known; known: boltz2, corum, corum-human, complexportal, "
        "uniprot-human\n",
    )
