"""Download of released weights: resumed where it was cut off, and checked by SHA-256."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from importlib import resources
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from foldcp.files import file_sha256

CHUNK_BYTES = 1 << 20
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Weights:
    """A released file."""

    file: str
    urls: tuple[str, ...]  # the first that works is taken
    size: int  # bytes
    sha256: str


# The URLs are those of boltz 2.2.1.
WEIGHTS = {
    "boltz2": Weights(
        "boltz2_conf.ckpt",
        (
            "https://model-gateway.boltz.bio/boltz2_conf.ckpt",
            "https://huggingface.co/boltz-community/boltz-2/resolve/main/boltz2_conf.ckpt",
        ),
        2_286_561_469,
        "090e82ac8c92f5e943fa1b39e7410a44027bea7243c0bbb3caa67a77fc1428e1",
    )
}


# The weights that come with foldcp, by name.
INCLUDED = {"demo": ("foldcp.datasets.demo", "network.safetensors")}


class DownloadError(Exception):
    """A URL did not give the file; the message says why."""


def cache_folder() -> Path:
    """The folder of fetched weights: $FOLDCP_CACHE, or ~/.foldcp."""
    return Path(os.environ.get("FOLDCP_CACHE") or Path.home() / ".foldcp")


def find_weights(name: str) -> str:
    """The path of weights by name: `demo`, which come with foldcp, or fetched ones, such as boltz2;
    anything else as it is.

    Raises ValueError when they have not been fetched.
    """
    if Path(name).is_file():
        return name
    if name in INCLUDED:
        package, file = INCLUDED[name]
        return str(resources.files(package) / file)
    if name not in WEIGHTS:
        return name
    path = cache_folder() / WEIGHTS[name].file
    if not path.exists():
        raise ValueError(f"{name}: not at {path}; `foldcp fetch {name}` downloads it")
    return str(path)


def fetch(name: str, folder: Path) -> Path:
    """Download the weights called `name` into `folder`; their path.

    A download that was cut off there is resumed. The file gets its final name after its SHA-256 was
    checked. Weights already there are checked, and nothing is requested. Raises ValueError for an
    unknown name, too small a disk, a folder that cannot be written, an existing file with another
    content, and when no URL gives the file.
    """
    if name not in WEIGHTS:
        raise ValueError(f"{name}: no such weights; known: {', '.join(WEIGHTS)}")
    weights = WEIGHTS[name]
    target = folder / weights.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            download(weights, target)
        elif (sha256 := file_sha256(target)) != weights.sha256:
            raise ValueError(
                f"{target}: has SHA-256 {sha256}, not {weights.sha256}; remove it and fetch again"
            )
    except OSError as error:
        raise ValueError(f"{error.filename or folder}: {error.strerror}") from None
    return target


def download(weights: Weights, target: Path) -> None:
    """Download to `target`.part from the first URL that has the file, check it, and rename it."""
    part = target.with_name(target.name + ".part")
    if file_size(part) > weights.size:
        discard(part)
    missing = weights.size - file_size(part)
    free = shutil.disk_usage(target.parent).free
    if free < missing:
        raise ValueError(
            f"{target.parent}: {free / 1e9:.2f} GB free, {missing / 1e9:.2f} GB needed for "
            f"{weights.file}"
        )
    reasons: list[str] = []
    for url in weights.urls:
        if reasons:
            print(f"{reasons[-1]}; trying {url}", file=sys.stderr)
        try:
            complete(part, url, weights)
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
            continue
        part.replace(target)
        discard(part)
        return
    if kept := file_size(part):
        reasons.append(f"{kept} bytes are kept, and the same command resumes from there")
    raise ValueError("; ".join(reasons))


def complete(part: Path, url: str, weights: Weights) -> None:
    """Complete `part` over as many connections as add something, and check its SHA-256."""
    size = file_size(part)
    while size < weights.size:
        receive(part, url, weights)
        size_before = size
        size = file_size(part)
        if size <= size_before:
            raise DownloadError(f"cut off after {size} of {weights.size} bytes")
    sha256 = file_sha256(part)
    if sha256 != weights.sha256:
        discard(part)
        raise DownloadError(f"gave a file of SHA-256 {sha256}, not {weights.sha256}")


def receive(part: Path, url: str, weights: Weights) -> None:
    """Append to `part` what one connection gives.

    A server that cannot resume gives the file from its first byte.
    """
    size = file_size(part)
    with request(url, size, known_etag(part, url)) as response:
        start = size if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        if length is not None and start + int(length) != weights.size:
            raise DownloadError(f"has a file of {start + int(length)} bytes, not {weights.size}")
        bar = tqdm(
            desc=weights.file,
            total=weights.size,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with part.open("ab" if start else "wb") as file, bar:
            if not start:
                etag_file(part).write_text(f"{url}\n{strong_etag(response)}")
            while chunk := read_chunk(response, weights.size - start):
                file.write(chunk)
                start += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())


def request(url: str, start: int, etag: str) -> HTTPResponse:
    """Request a file from byte `start` on.

    The response begins there (status 206), or with the first byte when the server has no ranges or
    its file is no longer the one of `etag`. Raises DownloadError when there is no response.
    """
    headers = {"User-Agent": "foldcp"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return request(url, 0, "")  # the server's file ends before byte `start`
        raise DownloadError(f"answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DownloadError(f"cannot be reached ({reason})") from None
    if start and response.status == HTTPStatus.PARTIAL_CONTENT:
        begins_there = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        is_same_file = etag in ("", strong_etag(response))
        if not (begins_there and is_same_file):
            response.close()
            return request(url, 0, "")
    return response


def read_chunk(response: HTTPResponse, max_bytes: int) -> bytes:
    """The next bytes of a response.

    None at its end and when the connection is cut, which the size tells apart.
    """
    try:
        return response.read1(min(CHUNK_BYTES, max_bytes)) if max_bytes else b""
    except (OSError, HTTPException):
        return b""


def strong_etag(response: HTTPResponse) -> str:
    """The ETag, or "" for a weak one.

    Weak ones identify no exact bytes, and If-Range may not have them.
    """
    etag = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def known_etag(part: Path, url: str) -> str:
    """The ETag of the file of which `part` is the beginning; "" if it is not known.

    Another server's ETag says nothing about this one's file; the SHA-256 at the end does.
    """
    file = etag_file(part)
    if not file.exists():
        return ""
    known_url, _, etag = file.read_text().partition("\n")
    return etag if known_url == url else ""


def etag_file(part: Path) -> Path:
    """The file beside `part` with the URL that it came from, and its ETag there."""
    return part.with_name(part.name + ".etag")


def discard(part: Path) -> None:
    """Remove a part and its ETag."""
    part.unlink(missing_ok=True)
    etag_file(part).unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
