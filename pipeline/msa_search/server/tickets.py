"""Tickets of searches that a server is working on, kept in a file so that a rerun finds them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foldcp.files import read_file, write_file

FILE_NAME = "server_tickets.json"
_MAX_TICKETS = 1_000
_MAX_BYTES = 100_000_000
_TICKET = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


def is_ticket(text: object) -> bool:
    """Whether a value can be a ticket, which becomes a part of addresses."""
    return isinstance(text, str) and _TICKET.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Job:
    """What is sent to a server."""

    url: str
    path: str
    mode: str
    sequences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tickets:
    """The tickets in a folder, by what was sent; None keeps none."""

    folder: Path | None

    def jobs(self) -> list[Job]:
        """The searches that have a ticket. Raises ValueError for a file that is damaged."""
        return list(self._read())

    def get(self, job: Job) -> str:
        """The ticket of a search, "" for none. Raises ValueError for a file that is damaged."""
        return self._read().get(job, "")

    def put(self, job: Job, ticket: str) -> None:
        """Keep a ticket, on the disk once this returns."""
        if self.folder is not None:
            tickets = self._read()
            tickets.pop(job, None)
            tickets[job] = ticket
            self._write(self.folder, dict(list(tickets.items())[-_MAX_TICKETS:]))

    def drop(self, job: Job) -> None:
        """Forget the ticket of a search that is done."""
        if self.folder is not None:
            tickets = self._read()
            if tickets.pop(job, None) is not None:
                self._write(self.folder, tickets)

    def _read(self) -> dict[Job, str]:
        if self.folder is None or not (self.folder / FILE_NAME).exists():
            return {}
        path = self.folder / FILE_NAME
        try:
            return dict(map(_parse, json.loads(read_file(path, _MAX_BYTES).data)))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{path}: damaged, delete it ({error})") from error

    def _write(self, folder: Path, tickets: dict[Job, str]) -> None:
        content = [{"ticket": ticket, **asdict(job)} for job, ticket in tickets.items()]
        part = folder / f"{FILE_NAME}.part"  # one name, so that the next write replaces a leftover
        write_file(folder / FILE_NAME, json.dumps(content, indent=0).encode(), part)


def _parse(entry: Any) -> tuple[Job, str]:
    ticket = entry["ticket"]
    if not is_ticket(ticket):
        raise ValueError(f"invalid ticket {ticket!r}")
    sequences = tuple(map(str, entry["sequences"]))
    return Job(str(entry["url"]), str(entry["path"]), str(entry["mode"]), sequences), ticket
