"""Standard streams that cannot end a run: a closed pipe, a full disk or a closed descriptor."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


def guard_streams() -> None:
    """Open the descriptors 0 to 2 if they are closed, and make writing to stderr never fail.

    A file that is opened while descriptor 2 is closed would get that number, and libraries would
    print into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = _NeverFailingStream(sys.stderr)  # type: ignore[assignment]


def close_stdout() -> None:
    """Flush stdout; if its reader is gone, redirect it.

    Otherwise the interpreter would fail when it flushes again.
    """
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


class _NeverFailingStream:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: closed
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
