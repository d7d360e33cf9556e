"""Entries of UniProt's REST service, kept on disk: politely requested, and each only once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from foldcp.datasets.accessions import UNIPROT
from foldcp.files import reading, write_file

URL = "https://rest.uniprot.org"
URL_VARIABLE = "FOLDCP_UNIPROT_URL"  # of a mirror
FIELDS = "accession,sequence,version,date_modified,sec_acc,gene_primary,protein_name"
BATCH = 100  # accessions of a request
MAX_RESPONSE = 64_000_000  # bytes; a hundred times the longest protein are 4 MB
MAX_ROUNDS = 8  # of entries that replace entries
TIMEOUT = 60.0  # seconds without a byte
INTERVAL = 0.4  # seconds between two requests
FIRST_WAIT = 1.0  # seconds, doubled for each failure of a request
MAX_WAIT = 120.0  # seconds, whatever the server asks for
MAX_ATTEMPTS = 7  # of a request
SECONDS_ABSENT = 7 * 86_400  # for which an accession that UniProt lacks is not asked for again
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Entry:
    """What UniProt says of an accession: a sequence, or the entries that replace it, or neither.

    `version` and `date` are those of the entry; `requested` is when it was, in seconds of Unix
    time.
    """

    accession: str
    sequence: str = ""
    version: int = 0
    date: str = ""
    replaced_by: tuple[str, ...] = ()
    deleted: bool = False
    requested: float = 0.0
    gene: str = ""
    protein_name: str = ""


class RequestError(Exception):
    """A request without a usable answer; `wait` is how long the server asks to wait, if it does."""

    def __init__(self, reason: str, is_transient: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.is_transient = is_transient
        self.wait = wait


def look_up(accessions: Iterable[str], cache: Path) -> dict[str, Entry]:
    """The entries of accessions, and those that replace obsolete ones.

    Entries in the folder `cache` are not requested; each batch is stored there as soon as it has
    come, so that the next call goes on from where this one was stopped. Raises ValueError naming
    the URL when UniProt cannot be reached, and the file when the folder cannot be used.
    """
    with reading(str(cache)):
        cache.mkdir(parents=True, exist_ok=True)
        known = _stored(cache)
    service = _Service(os.environ.get(URL_VARIABLE, URL).rstrip("/"))
    wanted = {name for name in accessions if re.fullmatch(UNIPROT, name)}
    for _ in range(MAX_ROUNDS):
        missing = sorted(wanted - known.keys())
        for start in range(0, len(missing), BATCH):
            entries = service.entries(missing[start : start + BATCH])
            _store(cache, entries)
            known.update(entries)
        wanted |= {follower for name in wanted for follower in known[name].replaced_by}
        if wanted <= known.keys():
            break
    return {name: known[name] for name in wanted if name in known}


def parse_entries(accessions: Iterable[str], tree: Any, requested: float) -> dict[str, Entry]:
    """The entries of a response by accession, one for each that was asked for.

    Raises ValueError for a response that is not what UniProt answers.
    """
    asked = set(accessions)
    found: dict[str, Entry] = {}
    replaced: dict[str, list[str]] = {}
    for result in tree["results"]:
        name = str(result["primaryAccession"])
        if result.get("entryType") == "Inactive":
            found[name] = _inactive(name, result["inactiveReason"], requested)
            continue
        audit = result.get("entryAudit", {})
        found[name] = Entry(
            accession=name,
            sequence=str(result["sequence"]["value"]),
            version=int(audit.get("entryVersion", 0)),
            date=str(audit.get("lastAnnotationUpdateDate", "")),
            requested=requested,
            gene=_gene(result),
            protein_name=_protein_name(result),
        )
        for secondary in asked & set(result.get("secondaryAccessions", ())):
            replaced.setdefault(secondary, []).append(name)
    for name in asked - found.keys():
        found[name] = Entry(name, replaced_by=tuple(replaced.get(name, ())), requested=requested)
    return found


def _gene(result: Mapping[str, Any]) -> str:
    """The gene's primary name; empty without one."""
    names = (gene.get("geneName", {}).get("value", "") for gene in result.get("genes", ()))
    return str(next(filter(None, names), ""))


def _protein_name(result: Mapping[str, Any]) -> str:
    """The recommended name, or the first that was submitted; empty without one."""
    description = result.get("proteinDescription", {})
    submitted = description.get("submissionNames", ())
    name = description.get("recommendedName") or next(iter(submitted), {})
    return str(name.get("fullName", {}).get("value", ""))


def _inactive(name: str, reason: Mapping[str, Any], requested: float) -> Entry:
    followers = tuple(map(str, reason.get("mergeDemergeTo", ())))
    return Entry(name, replaced_by=followers, deleted=not followers, requested=requested)


class _Service:
    """UniProt's REST service, or a mirror; requests keep a distance in time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.next_request = 0.0  # of the monotonic clock

    def entries(self, accessions: Sequence[str]) -> dict[str, Entry]:
        """The entries of a batch. Raises ValueError naming the URL after `MAX_ATTEMPTS`."""
        url = f"{self.url}/uniprotkb/accessions?accessions={','.join(accessions)}"
        url += f"&format=json&fields={FIELDS}&size={BATCH}"
        wait = FIRST_WAIT
        for attempt in range(1, MAX_ATTEMPTS + 1):
            time.sleep(max(0.0, self.next_request - time.monotonic()))
            self.next_request = time.monotonic() + INTERVAL
            try:
                return _parse(accessions, _get(url))
            except RequestError as error:
                if attempt == MAX_ATTEMPTS or not error.is_transient:
                    raise ValueError(
                        f"{self.url}: {error}, {attempt} times; the entries that came are kept, "
                        "and the same command goes on from there"
                    ) from error
                time.sleep(min(max(wait, error.wait), MAX_WAIT))
                wait *= 2
        raise AssertionError  # the last attempt has returned or raised


def _parse(accessions: Sequence[str], body: bytes) -> dict[str, Entry]:
    try:
        return parse_entries(accessions, json.loads(body), time.time())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise RequestError("the answer is damaged or no JSON of UniProt's") from error


def _get(url: str) -> bytes:
    request = Request(url, headers={"User-Agent": "foldcp", "Accept": "application/json"})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            body: bytes = response.read(MAX_RESPONSE + 1)
            length = response.headers.get("Content-Length", "")
    except HTTPError as error:
        wait = retry_after_seconds(error.headers.get("Retry-After", ""))
        error.close()
        reason = f"answers {error.code} {error.reason}"
        raise RequestError(reason, error.code in _TRANSIENT, wait) from error
    except (OSError, HTTPException) as error:
        problem = error.reason if isinstance(error, URLError) else error
        raise RequestError(f"cannot be reached ({problem})") from error
    if len(body) > MAX_RESPONSE:
        raise RequestError(f"answers with more than {MAX_RESPONSE:,} bytes", is_transient=False)
    if length.isdigit() and len(body) != int(length):
        raise RequestError(f"the answer breaks off after {len(body):,} of {int(length):,} bytes")
    return body


def retry_after_seconds(text: str) -> float:
    """Seconds to wait as a Retry-After header says, which may be a date; 0 if it says nothing."""
    if re.fullmatch(r"\d+", text.strip(), re.ASCII):
        return float(text.strip()[:9])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - time.time())


def _stored(cache: Path) -> dict[str, Entry]:
    """The entries in a folder, without those that UniProt lacked a while ago."""
    entries: dict[str, Entry] = {}
    for path in sorted(cache.glob("*.json")):
        for entry in _read(path):
            known = entries.get(entry.accession)
            if known is None or entry.requested >= known.requested:
                entries[entry.accession] = entry
    oldest = time.time() - SECONDS_ABSENT
    return {
        name: entry
        for name, entry in entries.items()
        if entry.sequence or entry.replaced_by or entry.requested > oldest
    }


def _read(path: Path) -> Iterator[Entry]:
    try:
        values = json.loads(path.read_bytes())["entries"]
        for value in values:
            yield Entry(**{**value, "replaced_by": tuple(value["replaced_by"])})
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path}: a damaged file of UniProt entries; remove it") from error


def _store(cache: Path, entries: Mapping[str, Entry]) -> None:
    """Write a batch under a name of its own, whole or not at all."""
    document = {
        "source": URL,
        "stored": datetime.now(UTC).isoformat(timespec="seconds"),
        "entries": [asdict(entry) for entry in entries.values()],
    }
    data = json.dumps(document, indent=0).encode()
    path = cache / f"{hashlib.sha256(data).hexdigest()[:32]}.json"
    write_file(path, data)
