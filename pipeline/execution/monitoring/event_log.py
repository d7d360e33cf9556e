"""Log of a run: a line of JSON for everything that its driver decides or hears of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


class EventLog:
    """Appends to RUN/log.jsonl; each line is written at once, with its time in UTC."""

    def __init__(self, root: Path, run_id: str) -> None:
        self._run_id = run_id
        self._path = root / LOG_FILE

    def write(self, event: str, **fields: Any) -> None:
        """Write one event. Raises OSError when the disk fails."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "run_id": self._run_id, "event": event, **fields}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
