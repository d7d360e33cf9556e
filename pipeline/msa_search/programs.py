"""External programs that search: found, run, and ended with this process or by its signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

SECONDS_BETWEEN_LOOKS = 0.5  # at signals

_TAIL = 600  # characters of a program's messages in an error

Result = TypeVar("Result")


class ProgramError(Exception):
    """A program that failed; the message has the end of its own."""


class StoppedError(BaseException):
    """A signal has ended the stage; what is stored stays."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Programs:
    """Runs programs from any thread; `stop` kills those that run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str | Path]) -> str:
        """Run a program to its end; what it printed. Raises ProgramError when it fails."""
        # In a thread, so that no signal comes between the start of a program and its record.
        with ThreadPoolExecutor(1) as runner:
            try:
                return result_of(runner.submit(self._run, [str(word) for word in command]))
            except (StoppedError, KeyboardInterrupt):
                self.stop()
                raise

    def _run(self, words: Sequence[str]) -> str:
        with self._start(words) as process:
            out, err = process.communicate()
        self._running.discard(process)
        text = out.decode(errors="replace")
        if process.returncode:
            tail = " ".join((err.decode(errors="replace").strip() or text.strip())[-_TAIL:].split())
            name = " ".join(words[:2])
            raise ProgramError(f"{name}: {_describe_end(process.returncode)}: {tail}")
        return text

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
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
        return process

    def stop(self) -> None:
        """Kill the running programs, and start none any more."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                _kill(process)


def result_of(future: Future[Result]) -> Result:
    """The result of a thread, waited for in small pieces: of a wait without end a signal is seen
    only if it comes after the wait has begun, not just before.
    """
    while not wait([future], SECONDS_BETWEEN_LOOKS).done:
        pass
    return future.result()


def _describe_end(code: int) -> str:
    if code > 0:
        return f"ended with code {code}"
    return f"ended by signal {-code} ({signal.strsignal(-code)})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and those that it has started: MMseqs2 is a script that runs others."""
    if process.poll() is None:  # else its number may be another's by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def running_programs() -> Iterator[Programs]:
    """Programs that end with this context.

    SIGINT, SIGTERM and SIGHUP raise StoppedError where the main thread is.
    """
    programs = Programs()
    try:
        with _stopping_on_signals():
            yield programs
    finally:
        programs.stop()


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
