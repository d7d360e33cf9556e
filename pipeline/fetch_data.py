"""Download of databases of complexes and of sequences, with a record of what was downloaded.

Unlike weights, the current release of a database has no checksum that could be known here: the
record beside the file holds the one that it had when it came.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import time
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

from tqdm import tqdm

from foldcp.files import file_sha256, reading, write_file
from foldcp.pipeline.fetch import CHUNK_BYTES, DownloadError, read_chunk, request

MAX_ATTEMPTS = 4
FIRST_WAIT = 2.0  # seconds, doubled for each attempt
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Database:
    """A file of a database: the first of its URLs that gives it is taken."""

    file: str
    urls: tuple[str, ...]
    begins: bytes  # of the file, unpacked: what no page of an error has
    licence: str
    command: str  # that uses the file, with {path}
    max_bytes: int  # a larger file is refused


_CORUM = (
    "https://mips.helmholtz-muenchen.de/fastapi-corum/public/file/download_current_file"
    "?file_id={}&file_format=txt"
)
_CORUM_LICENCE = "CORUM: CC BY-NC 4.0, not for commercial use"
_PLAN = "foldcp plan {path} --uniprot  # or --sequences FASTA, see `foldcp fetch uniprot-human`"
_UNIPROT_FTP = (
    "https://ftp.uniprot.org/pub/databases/uniprot/current_release/knowledgebase/"
    "reference_proteomes/Eukaryota/UP000005640/UP000005640_9606.fasta.gz"
)
_UNIPROT_REST = (
    "https://rest.uniprot.org/uniprotkb/stream?compressed=true&format=fasta"
    "&query=proteome:UP000005640"
)
DATABASES = {
    "corum": Database(
        "corum.txt",
        (_CORUM.format("complete"),),
        b"complex_id\t",
        _CORUM_LICENCE,
        _PLAN,
        1_000_000_000,
    ),
    "corum-human": Database(
        "corum_human.txt",
        (_CORUM.format("human"),),
        b"complex_id\t",
        _CORUM_LICENCE,
        _PLAN,
        1_000_000_000,
    ),
    "complexportal": Database(
        "complexportal_9606.tsv",
        ("https://ftp.ebi.ac.uk/pub/databases/intact/complex/current/complextab/9606.tsv",),
        b"#Complex ac\t",
        "Complex Portal: CC0",
        _PLAN.replace("--uniprot ", "--uniprot --proteins-only "),
        1_000_000_000,
    ),
    "uniprot-human": Database(
        "uniprot_human.fasta.gz",
        (_UNIPROT_FTP, _UNIPROT_REST),
        b">",
        "UniProt: CC BY 4.0",
        "foldcp plan INPUT --sequences {path}",
        4_000_000_000,
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file came from, as the record beside it says; `date` is that of the download."""

    url: str
    date: str
    etag: str
    last_modified: str
    size: int
    sha256: str


def fetch_database(name: str, folder: Path) -> tuple[Path, Source]:
    """Download a database into `folder`, unless it is there; its path and where it came from.

    A file that is there must be the one that was downloaded. Raises ValueError for an unknown name,
    a file that has changed since or has no record, a folder that cannot be written, and when no URL
    gives the file, naming each and why.
    """
    database = DATABASES.get(name)
    if database is None:
        raise ValueError(f"{name}: no such database; known: {', '.join(DATABASES)}")
    target = folder / database.file
    with reading(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return target, _checked(target)
        return target, _download(database, target)


def source_file(target: Path) -> Path:
    """The record beside a file."""
    return target.with_name(target.name + ".source.json")


def _checked(target: Path) -> Source:
    """The record of a file that is there, which must be the file's."""
    record = source_file(target)
    if not record.exists():
        raise ValueError(f"{target}: was not downloaded by foldcp; remove it and fetch again")
    try:
        source = Source(**json.loads(record.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{record}: damaged; remove it and the file, and fetch again") from error
    if (sha256 := file_sha256(target)) != source.sha256:
        raise ValueError(
            f"{target}: has SHA-256 {sha256}, not {source.sha256} as downloaded on {source.date}; "
            "remove it and fetch again"
        )
    return source


def _download(database: Database, target: Path) -> Source:
    reasons: list[str] = []
    part = target.with_name(target.name + ".part")
    for url in database.urls:
        try:
            source = _receive_patiently(database, part, url)
        except DownloadError as error:
            part.unlink(missing_ok=True)
            reasons.append(f"{url}: {error}")
            continue
        # The record comes first: a file without one would be refused.
        write_file(source_file(target), (json.dumps(asdict(source), indent=2) + "\n").encode())
        part.replace(target)
        return source
    raise ValueError("; ".join(reasons))


def _receive_patiently(database: Database, part: Path, url: str) -> Source:
    """The whole file, in as many attempts as it needs."""
    wait = FIRST_WAIT
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            source = _receive(database, part, url)
            _check_content(database, part)
        except _DamagedError:
            if attempt == MAX_ATTEMPTS:
                raise
            time.sleep(wait)
            wait *= 2
        else:
            return source
    raise AssertionError  # the last attempt has returned or raised


class _DamagedError(DownloadError):
    """What came is not whole, and another attempt may help."""


def _receive(database: Database, part: Path, url: str) -> Source:
    with request(url, 0, "") as response, part.open("wb") as file:
        size = _copy(response, file, database)
        file.flush()
        os.fsync(file.fileno())
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and size != int(length):
            raise _DamagedError(f"cut off after {size} of {length} bytes")
        return Source(
            url=url,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            etag=response.headers.get("ETag", ""),
            last_modified=response.headers.get("Last-Modified", ""),
            size=size,
            sha256=file_sha256(part),
        )


def _copy(response: HTTPResponse, file: IO[bytes], database: Database) -> int:
    size = 0
    with tqdm(desc=database.file, unit="B", unit_scale=True, disable=None) as bar:
        while chunk := read_chunk(response, CHUNK_BYTES):
            size += file.write(chunk)
            bar.update(len(chunk))
            if size > database.max_bytes:
                raise DownloadError(f"gives more than {database.max_bytes:,} bytes")
    return size


def _check_content(database: Database, part: Path) -> None:
    """Raise DownloadError for a page, for another file, and for a damaged archive."""
    with part.open("rb") as file:
        start = file.read(4096)
    if _PAGE.match(start):
        raise DownloadError("gives a web page, not the file")
    if start.startswith(b"\x1f\x8b"):
        start = _unpacked_start(part)
    if not start.removeprefix(b"\xef\xbb\xbf").startswith(database.begins):
        raise DownloadError(f"gives another file, which begins with {start[:40]!r}")


def _unpacked_start(part: Path) -> bytes:
    """The first bytes of an archive, which is unpacked to its end to see that it is whole."""
    try:
        with gzip.open(part) as file:
            start = file.read(4096)
            while file.read(CHUNK_BYTES):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _DamagedError(f"gives a damaged archive ({error})") from error
    return start
