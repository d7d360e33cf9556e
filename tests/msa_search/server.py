"""A ColabFold server of the tests: it answers what the test has told it to, in order."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import tarfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


@dataclass
class Reply:
    """An HTTP answer; `sent` bytes of the body come before the connection ends."""

    body: bytes | dict[str, str] = b""
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    dropped: bool = False


@dataclass
class Request:
    """What came: the path, the form of a POST, and the headers."""

    path: str
    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class FakeServer:
    """`replies` of a path are used up in order, the last of them stays; `respond`, where a test
    gives one, makes the replies instead.
    """

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=lambda: defaultdict(list))
    requests: list[Request] = field(default_factory=list)
    respond: Callable[[Request], Reply] | None = None

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


def status(text: str, ticket: str = "T1", **other: str) -> Reply:
    return Reply({"id": ticket, "status": text, **other})


def blocks(*alignments: list[str], first: int = 101) -> bytes:
    """The text of an a3m of several queries; row 0 of each is the query."""
    text = b""
    for number, rows in enumerate(alignments, first):
        lines = [f">{number}", rows[0]]
        for i, row in enumerate(rows[1:]):
            lines += [f">UniRef100_A{i}\t123\t0.5", row]
        text += ("\n".join(lines) + "\n\0").encode()
    return text


def archive(members: dict[str, bytes], packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


@contextmanager
def running_server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer({key: values[0] for key, values in parse_qs(text).items()})

        def _answer(self, form: dict[str, str]) -> None:
            request = Request(self.path, form, dict(self.headers))
            fake.requests.append(request)
            if fake.respond is None:
                replies = fake.replies[self.path] or [Reply(code=404)]
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
            else:
                reply = fake.respond(request)
            self.close_connection = True
            if reply.dropped:  # a reset, not an orderly end
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.code)
            for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # of a client that was killed
                self.wfile.write(body[: reply.sent])

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # of the connections that the handler drops

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
