"""How do released weights get onto this machine, whole and checked, however often the line is
cut?
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from foldcp.files import file_sha256

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Weights:
    """A released file: its name, its addresses (the first that works is taken), bytes, and
    SHA-256.
    """

    file: str
    urls: tuple[str, ...]
    size: int
    sha256: str


# The addresses are those of boltz 2.2.1.
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


class DownloadError(Exception):
    """Why one address did not give the file."""


def cache_folder() -> Path:
    """Where fetched weights lie: $FOLDCP_CACHE, or ~/.foldcp."""
    return Path(os.environ.get("FOLDCP_CACHE") or Path.home() / ".foldcp")


def find(name: str) -> str:
    """The path of fetched weights for a name such as boltz2, anything else as it is. ValueError
    when not fetched.
    """
    if name not in WEIGHTS or Path(name).is_file():
        return name
    path = cache_folder() / WEIGHTS[name].file
    if not path.exists():
        raise ValueError(f"{name}: not at {path}; `foldcp fetch {name}` downloads it")
    return str(path)


def fetch(name: str, folder: Path) -> Path:
    """Download the weights called `name` into `folder`, or go on with a download that was cut off
    there.

    Nothing stands under the final name before its SHA-256 is right. Weights already there are
    checked, and nothing is requested. Raises ValueError for an unknown name, too small a disk, a
    folder that cannot be written, an existing file with another content, and when no address gives
    the file.
    """
    if name not in WEIGHTS:
        raise ValueError(f"{name}: no such weights; known: {', '.join(WEIGHTS)}")
    weights = WEIGHTS[name]
    target = folder / WEIGHTS[name].file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            download(weights, target)
        elif (found := file_sha256(target)) != weights.sha256:
            raise ValueError(
                f"{target}: has SHA-256 {found}, not {weights.sha256}; remove it and fetch again"
            )
    except OSError as error:
        raise ValueError(f"{error.filename or folder}: {error.strerror}") from None
    return target


def download(weights: Weights, target: Path) -> None:
    """Fill `target`.part from the first address that has the file, check it, give it its name."""
    part = target.with_name(target.name + ".part")
    if bytes_of(part) > weights.size:
        discard(part)
    missing = weights.size - bytes_of(part)
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
            fill(part, url, weights)
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
            continue
        part.replace(target)
        discard(part)
        return
    if have := bytes_of(part):
        reasons.append(f"{have} bytes are kept, and the same command goes on there")
    raise ValueError("; ".join(reasons))


def fill(part: Path, url: str, weights: Weights) -> None:
    """Bring `part` to its full size, over as many connections as add something, and check its
    SHA-256.
    """
    have = bytes_of(part)
    while have < weights.size:
        receive(part, url, weights)
        before = have
        have = bytes_of(part)
        if have <= before:
            raise DownloadError(f"cut off after {have} of {weights.size} bytes")
    found = file_sha256(part)
    if found != weights.sha256:
        discard(part)
        raise DownloadError(f"gave a file of SHA-256 {found}, not {weights.sha256}")


def receive(part: Path, url: str, weights: Weights) -> None:
    """Append to `part` what one connection gives; a server that cannot go on gives the file from
    its first byte.
    """
    have = bytes_of(part)
    note = note_of(part)
    known_url, _, etag = note.read_text().partition("\n") if note.exists() else ("", "", "")
    # Another server's ETag says nothing about this one's file; the SHA-256 at the end does.
    with ask(url, have, etag if known_url == url else "") as answer:
        start = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
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
                note.write_text(f"{url}\n{strong_etag(answer)}")
            while block := read(answer, weights.size - start):
                file.write(block)
                start += len(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())


def ask(url: str, have: int, etag: str) -> HTTPResponse:
    """Request a file from byte `have` on. The answer starts there (status 206), or with the first
    byte when the server knows no ranges or its file is no longer the one of `etag`. DownloadError
    when there is no answer.
    """
    part_of_it = {"Range": f"bytes={have}-", **({"If-Range": etag} if etag else {})} if have else {}
    try:
        answer: HTTPResponse = urlopen(
            Request(url, headers={"User-Agent": "foldcp", **part_of_it}),
            timeout=TIMEOUT,
        )
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the server's file ends before byte `have`
            return ask(url, 0, "")
        raise DownloadError(f"answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DownloadError(f"cannot be reached ({reason})") from None
    goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if have and answer.status == 206 and not (goes_on and etag in ("", strong_etag(answer))):
        answer.close()
        return ask(url, 0, "")
    return answer


def read(answer: HTTPResponse, most: int) -> bytes:
    """The next bytes of an answer; none at its end and when the line is cut, which the size
    tells apart.
    """
    try:
        return answer.read1(min(CHUNK, most)) if most else b""
    except (OSError, HTTPException):
        return b""


def strong_etag(answer: HTTPResponse) -> str:
    """The ETag, or "" for a weak one: those name no exact bytes, and If-Range may not carry
    them.
    """
    etag = answer.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def note_of(part: Path) -> Path:
    """The file beside `part` that says which address it came from, and its ETag there."""
    return part.with_name(part.name + ".etag")


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
