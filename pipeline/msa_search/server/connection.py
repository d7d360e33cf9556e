"""Requests to a server of alignments: spaced, repeated where that helps, with access data."""

from __future__ import annotations

import base64
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import version
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from foldcp.datasets.uniprot import retry_after_seconds

MIN_INTERVAL = 1.0  # seconds between two requests
TIMEOUT = 60.0  # seconds without a byte
MAX_ATTEMPTS = 8
FIRST_DELAY = 5.0  # seconds before the second attempt; each further delay is twice as long
MAX_DELAY = 600.0
_CHUNK = 1 << 20
_TOO_MANY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_NO_ACCESS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
)


class ServerError(Exception):
    """The server did not do what was asked; the message says why."""


class NotFoundError(ServerError):
    """The server has nothing under an address."""


@dataclass(frozen=True, slots=True)
class Access:
    """Names and values of the headers that prove who asks; never printed."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name, value in self.headers:
            if not re.fullmatch(r"[A-Za-z0-9-]+", name):
                raise ValueError(f"server of alignments: invalid header name {name!r}")
            # The library's error would show the value.
            if not (value.isascii() and value.isprintable()):
                raise ValueError(
                    f"server of alignments: the value of {name} has a line break or a character "
                    "that is not ASCII"
                )


def basic_access(user: str, password: str) -> Access:
    """Access by user name and password."""
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Access((("Authorization", f"Basic {packed}"),))


def token_access(token: str, header: str = "Authorization") -> Access:
    """Access by a token: `Authorization: Bearer TOKEN`, or the token alone in another header."""
    value = f"Bearer {token}" if header.lower() == "authorization" else token
    return Access(((header, value),))


def access_from_environment(environment: Mapping[str, str] = os.environ) -> Access:
    """Access as the environment says, none where it says nothing.

    FOLDCP_MSA_USER and FOLDCP_MSA_PASSWORD, or FOLDCP_MSA_TOKEN, whose header is
    FOLDCP_MSA_TOKEN_HEADER (Authorization if that is not set). Raises ValueError for half of it and
    for both.
    """
    user = environment.get("FOLDCP_MSA_USER", "")
    password = environment.get("FOLDCP_MSA_PASSWORD", "")
    token = environment.get("FOLDCP_MSA_TOKEN", "")
    if bool(user) != bool(password):
        raise ValueError("set both FOLDCP_MSA_USER and FOLDCP_MSA_PASSWORD, or neither")
    if user and token:
        raise ValueError("set either FOLDCP_MSA_TOKEN or FOLDCP_MSA_USER, not both")
    if user:
        return basic_access(user, password)
    if token:
        return token_access(token, environment.get("FOLDCP_MSA_TOKEN_HEADER") or "Authorization")
    return Access()


def check_url(url: str) -> str:
    """The address of a server without a slash at its end. Raises ValueError for another."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port  # computed here, and an error where it is no number
    except ValueError as error:
        raise ValueError("server of alignments: its address is not a URL") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "server of alignments: give user and password in FOLDCP_MSA_USER and "
            "FOLDCP_MSA_PASSWORD, not in its address"
        )
    is_clean = re.fullmatch(r"[!-~]+", url) and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not host or port == 0 or not is_clean:
        raise ValueError(f"server of alignments {url!r}: expected http(s)://HOST or with a path")
    return url.rstrip("/")


@dataclass(slots=True)
class Waiter:
    """Waits that grow, each with a random part so that clients do not come back all at once."""

    sleep: Callable[[float], None]
    delay: float = FIRST_DELAY
    factor: float = 2.0
    longest: float = MAX_DELAY
    waited: float = 0.0  # seconds so far

    def wait(self, at_least: float = 0.0) -> None:
        """Wait the present delay, or what the server asks for, up to the longest."""
        seconds = min(max(self.delay, at_least), self.longest) * random.uniform(1.0, 1.25)
        self.delay = min(self.delay * self.factor, self.longest)
        self.waited += seconds
        self.sleep(seconds)


@dataclass(slots=True)
class Connection:
    """Requests to one server, `min_interval` seconds apart at least."""

    url: str
    access: Access = field(default_factory=Access)
    min_interval: float = MIN_INTERVAL
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _last: float | None = None

    def request(self, path: str, max_bytes: int, form: Mapping[str, str] | None = None) -> bytes:
        """The answer to a GET, or to a POST of `form`.

        Dropped connections, errors of the server and rate limits are tried again. Raises ValueError
        for a server that cannot be reached or gives no access, NotFoundError for 404, and
        ServerError for what else goes wrong.
        """
        waiter = Waiter(self.sleep)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            is_last = attempt == MAX_ATTEMPTS
            try:
                return self._request_once(path, max_bytes, form)
            except HTTPError as error:
                retry_after = retry_after_seconds(error.headers.get("Retry-After", ""))
                error.close()
                self._refuse(error.code, is_last)
                waiter.wait(retry_after)
            except (OSError, HTTPException) as error:
                if is_last:
                    reason = getattr(error, "reason", "") or str(error) or type(error).__name__
                    raise ValueError(
                        f"server of alignments {self.url}: no answer in {MAX_ATTEMPTS} attempts "
                        f"({reason})"
                    ) from error
                waiter.wait()
        raise AssertionError("the last attempt returns or raises")

    def _request_once(self, path: str, max_bytes: int, form: Mapping[str, str] | None) -> bytes:
        self._keep_interval()
        data = None if form is None else urlencode(form).encode()
        request = Request(f"{self.url}/{path}", data)
        request.add_header("User-Agent", f"foldcp/{version('foldcp')}")
        for name, value in self.access.headers:
            request.add_unredirected_header(name, value)  # another host must not see it
        with urlopen(request, timeout=TIMEOUT) as response:
            chunks: list[bytes] = []
            size = 0
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise ServerError(f"{self.url}/{path}: the answer exceeds {max_bytes:,} bytes")
                chunks.append(chunk)
            expected = response.headers.get("Content-Length", "")
            if expected.isdigit() and int(expected) != size:
                raise HTTPException(f"{size:,} of {int(expected):,} bytes came")
        return b"".join(chunks)

    def _refuse(self, code: int, is_last: bool) -> None:
        """Raise for an HTTP error that another attempt would not mend."""
        if code in _NO_ACCESS:
            raise ValueError(
                f"server of alignments {self.url}: gives no access (HTTP {code}); check "
                "FOLDCP_MSA_USER and FOLDCP_MSA_PASSWORD, or FOLDCP_MSA_TOKEN"
            )
        if code == HTTPStatus.NOT_FOUND:
            raise NotFoundError(f"{self.url}: has no such page (HTTP 404)")
        if code in _TOO_MANY and is_last:
            raise ValueError(
                f"server of alignments {self.url}: accepts no request at present (HTTP {code}); "
                "run again later"
            )
        if is_last or (code not in _TOO_MANY and code < HTTPStatus.INTERNAL_SERVER_ERROR):
            raise ServerError(f"{self.url}: HTTP error {code}")

    def _keep_interval(self) -> None:
        if self._last is not None:
            rest = self._last + self.min_interval - self.clock()
            if rest > 0:
                self.sleep(rest)
        self._last = self.clock()
