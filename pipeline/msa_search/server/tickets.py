"""Tickets of searches that a server is working on, kept in a file so that a rerun finds them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from foldcp.files import read_file, reading

FILE_NAME = "server_tickets.json"
_MAX_TICKETS = 1_000
_MAX_BYTES = 1_000_000
_TICKET = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)


def is_ticket(text: object) -> bool:
    """Whether a value can be a ticket, which becomes a part of addresses."""
    return isinstance(text, str) and _TICKET.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Tickets:
    """The tickets in a folder, by a key of what was sent; None keeps none."""

    folder: Path | None

    def get(self, key: str) -> str:
        """The ticket of a search, "" for none. Raises ValueError for a file that is damaged."""
        return self._read().get(key, "")

    def put(self, key: str, ticket: str) -> None:
        """Keep a ticket, on the disk once this returns."""
        if self.folder is not None:
            tickets = self._read()
            tickets.pop(key, None)
            tickets[key] = ticket
            self._write(self.folder, dict(list(tickets.items())[-_MAX_TICKETS:]))

    def drop(self, key: str) -> None:
        """Forget the ticket of a search that is done."""
        if self.folder is not None:
            tickets = self._read()
            if tickets.pop(key, None) is not None:
                self._write(self.folder, tickets)

    def _read(self) -> dict[str, str]:
        if self.folder is None or not (self.folder / FILE_NAME).exists():
            return {}
        path = self.folder / FILE_NAME
        try:
            tickets = json.loads(read_file(path, _MAX_BYTES).data)
        except ValueError as error:
            raise ValueError(f"{path}: damaged, delete it ({error})") from error
        if not isinstance(tickets, dict) or not all(map(is_ticket, tickets.values())):
            raise ValueError(f"{path}: damaged, delete it (expected tickets by their keys)")
        return tickets

    def _write(self, folder: Path, tickets: dict[str, str]) -> None:
        with reading(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{FILE_NAME}.{os.getpid()}.part"
            with part.open("w") as file:
                json.dump(tickets, file, indent=0)
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / FILE_NAME)
