"""External programs that search: found, run, and ended with this process."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

_TAIL = 600  # characters of a program's messages in an error


class ProgramError(Exception):
    """A program that failed; the message has the end of its own."""


class Programs:
    """Runs programs from any thread; `stop` kills those that run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str | Path]) -> str:
        """Run a program to its end; what it printed. Raises ProgramError when it fails."""
        words = [str(word) for word in command]
        with self._lock:
            if self._stopped:
                raise ProgramError(f"{words[0]}: stopped")
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            out, err = process.communicate()
        finally:
            process.kill()
            process.wait()
            self._running.discard(process)
        text = out.decode(errors="replace")
        if process.returncode:
            tail = " ".join((err.decode(errors="replace").strip() or text.strip())[-_TAIL:].split())
            name = " ".join(words[:2])
            raise ProgramError(f"{name}: ended with code {process.returncode}: {tail}")
        return text

    def stop(self) -> None:
        """Kill the running programs, and start none any more."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                process.kill()


def find_program(name: str) -> str:
    """The path of a program. Raises ValueError where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise ValueError(f"{name}: not found on this machine's PATH; install it")
    return path


def database_identity(path: Path) -> str:
    """Name, bytes and time of the last change of a database's file."""
    status = path.stat()
    return f"{path.name}, {status.st_size} bytes, changed {int(status.st_mtime)}"
