"""Weights arrive whole and checked, or not at all, over lines and from servers that misbehave.
All on 127.0.0.1.
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
class Site:
    """One address: what it has and how it misbehaves. `cuts`: after how many bytes each answer
    breaks off.
    """

    url: str
    body: bytes = BODY
    etag: str = '"one"'
    status: int = 200
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers["Range"]
        condition = handler.headers["If-Range"]
        self.asked.append((wanted, condition))
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = 0
        if wanted and self.ranges and (not self.heeds_if_range or condition in (None, self.etag)):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
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
class World:
    """Two addresses of one file, and the folder it goes to."""

    first: Site
    second: Site
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
        self.first.asked.clear()
        self.second.asked.clear()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    sites: dict[str, Site] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sites[self.path].answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("/first", "/second"):
        sites[name] = Site(f"http://127.0.0.1:{server.server_port}{name}")
    both = (sites["/first"].url, sites["/second"].url)
    monkeypatch.setitem(WEIGHTS, "boltz2", Weights(FILE, both, len(BODY), digest(BODY)))
    monkeypatch.setattr(module, "TIMEOUT", 20.0)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FOLDCP_CACHE", str(tmp_path / "cache"))
    yield World(sites["/first"], sites["/second"], tmp_path / "weights")
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_whole_file(world: World) -> None:
    world.expect_whole()
    assert world.first.asked == [(None, None)] and not world.second.asked


@pytest.mark.parametrize(
    "cuts", [(1,), (65_536,), (300_006,), (10, 100_000, 1), (131_071, 131_073, 37_000)]
)
def test_cut_off_and_resumed_in_one_go(world: World, cuts: tuple[int, ...]) -> None:
    world.first.cuts = list(cuts)
    world.expect_whole()
    starts = [sum(cuts[: n + 1]) for n in range(len(cuts))]
    assert world.first.asked == [(None, None)] + [(f"bytes={start}-", '"one"') for start in starts]


@pytest.mark.parametrize("length", [1, 65_537, 300_006])
def test_next_command_goes_on(world: World, length: int) -> None:
    world.leave_part(length)
    world.expect_whole()
    assert world.first.asked == [(f"bytes={length}-", '"one"')]


def test_whole_part_needs_only_its_check(world: World) -> None:
    world.leave_part(77)
    world.part.write_bytes(BODY)
    world.expect_whole()
    assert not world.first.asked and not world.second.asked


def test_part_that_is_too_long_starts_anew(world: World) -> None:
    world.leave_part(77)
    world.part.write_bytes(BODY + b"x")
    world.expect_whole()
    assert world.first.asked == [(None, None)]


def test_server_without_ranges_starts_anew(world: World) -> None:
    world.first.ranges = False
    world.first.cuts = [100_000]
    world.expect_whole()
    assert [start for start, _ in world.first.asked] == [
        None,
        "bytes=100000-",
    ] and not world.second.asked


def test_server_without_ranges_that_always_cuts_ends(world: World) -> None:
    world.first.ranges = False
    world.first.cuts = [100_000] * 9
    world.second.status = 404
    world.fail("cut off after 100000 of 300007 bytes.*404.*100000 bytes are kept")
    assert len(world.first.asked) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_changed_file_starts_anew(world: World, heeds_if_range: bool) -> None:
    world.first.body = OTHER
    world.first.etag = '"old"'
    world.leave_part(1000)
    world.first.body = BODY
    world.first.etag = '"new"'
    world.first.heeds_if_range = heeds_if_range
    world.expect_whole()
    asked = [("bytes=1000-", '"old"')]
    assert world.first.asked == (asked if heeds_if_range else [*asked, (None, None)])


def test_weak_etag_is_no_condition(world: World) -> None:
    world.first.etag = 'W/"one"'
    world.leave_part(1000)
    world.expect_whole()
    assert world.first.asked == [("bytes=1000-", None)]


def test_file_that_became_shorter(world: World) -> None:
    world.leave_part(1000)
    world.first.body = BODY[:500]
    world.second.status = 200
    world.expect_whole()
    assert world.first.asked == [("bytes=1000-", '"one"'), (None, None)], (
        "416, so the whole file, which is too short"
    )
    assert world.second.asked == [("bytes=1000-", None)], (
        "what was there stays, and the other address completes it"
    )


def test_second_address_goes_on(world: World) -> None:
    world.first.cuts = [200_000, 0]
    world.second.etag = '"two"'
    world.expect_whole()
    assert world.second.asked == [("bytes=200000-", None)]


def test_wrong_checksum_names_both_and_keeps_nothing(world: World) -> None:
    world.first.body = world.second.body = OTHER
    message = world.fail(digest(OTHER))
    assert (
        message.count(digest(BODY)) == 2
        and world.first.url in message
        and world.second.url in message
    )
    assert not list(world.folder.iterdir())


def test_wrong_checksum_then_second_address(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.first.body = OTHER
    world.expect_whole()
    assert world.second.asked == [(None, None)], "not one byte of the wrong file may be kept"
    assert digest(OTHER) in capsys.readouterr().err


def test_page_instead_of_the_file_is_refused_before_it_is_written(world: World) -> None:
    world.first.body = world.second.body = b"<html>please log in</html>"
    world.fail("has a file of 26 bytes, not 300007")
    assert not list(world.folder.iterdir())


def test_missing_then_second_address(world: World) -> None:
    world.first.status = 404
    world.expect_whole()
    assert len(world.first.asked) == len(world.second.asked) == 1


def test_no_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        monkeypatch.setitem(WEIGHTS, "boltz2", Weights(FILE, (url,), len(BODY), digest(BODY)))
        world.fail(f"{url}: cannot be reached .*refused")


@pytest.mark.parametrize("free", [300_007 - 1000 - 1, 300_007 - 1000])
def test_disk_must_hold_what_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    world.leave_part(1000)
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - free, free))
    if free < len(BODY) - 1000:
        world.fail("0.00 GB free, 0.00 GB needed")
        assert not world.first.asked
    else:
        world.expect_whole()


def test_already_there(world: World) -> None:
    world.folder.mkdir()
    world.target.write_bytes(BODY)
    world.expect_whole()
    world.target.write_bytes(OTHER)
    with pytest.raises(
        ValueError, match=f"{FILE}: has SHA-256 {digest(OTHER)}, not {digest(BODY)}"
    ):
        fetch("boltz2", world.folder)
    assert not world.first.asked and not world.second.asked


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


def test_command_says_where_and_how_to_go_on(
    world: World, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / FILE
    with pytest.raises(
        ValueError, match=f"boltz2: not at {path}; `foldcp fetch boltz2` downloads it"
    ):
        InputSpec(tmp_path, checkpoint="boltz2")
    code, out, _ = command("fetch", "boltz2")
    assert code == 0 and path.read_bytes() == BODY
    assert out == f"{path}: SHA-256 is right\nfoldcp score INPUT --checkpoint {path} --out RUN\n"
    assert InputSpec(tmp_path, checkpoint="boltz2").checkpoint == str(path)
    assert InputSpec(tmp_path, checkpoint="untrained:tiny").checkpoint == "untrained:tiny"
    assert (
        command("fetch", "boltz2", "--to", world.folder)[0] == 0
        and world.target.read_bytes() == BODY
    )


def test_mistakes_are_one_line(world: World, command: Command, tmp_path: Path) -> None:
    world.first.status = world.second.status = 404
    code, _, err = command("fetch", "boltz2")
    assert (
        code == 2
        and err.splitlines()[-1].startswith("foldcp: ")
        and err.splitlines()[-1].count("404") == 2
    )
    (tmp_path / "file").touch()
    assert command("fetch", "boltz2", "--to", tmp_path / "file")[::2] == (
        2,
        f"foldcp: {tmp_path}/file: File exists\n",
    )
    assert command("fetch", "boltz1")[::2] == (
        2,
        "foldcp: boltz1: no such weights; known: boltz2\n",
    )
