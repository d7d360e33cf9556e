"""Signals that stop a run, and the end of all processes that it started.

A run must end within seconds of SIGINT, SIGTERM or SIGHUP, even when its process group got the
signal and Ray's daemons are dead already: calls to Ray may then block for a minute. So a thread
records the signals, and ends the process when the main thread takes too long; the store is safe at
any instant.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Self

import psutil

STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
TRY_AGAIN = 75  # exit code of a run that had to stop: EX_TEMPFAIL of sysexits.h
STOP_SECONDS = 6.0  # from a signal to the end of the process, unless it ends earlier by itself
_KILL_SECONDS = 2.0  # in which killed processes must end
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_PR_SET_CHILD_SUBREAPER = 36


class StopSignals:
    """A context in which signals are recorded and end nothing.

    `number` is that of the first one, 0 before. Outside the main thread, where Python handles no
    signals, none is recorded. A signal that was ignored when the process started (nohup, a shell's
    background jobs) stays ignored.
    """

    def __init__(self, seconds: float = STOP_SECONDS) -> None:
        self.number = 0
        self._seconds = seconds
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self.install()
            threading.Thread(target=self._watch, name="stop-signals", daemon=True).start()
        return self

    def install(self) -> None:
        """Install the handlers in the main thread; again after a library has installed its own, as
        `ray.init` does.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if handler is signal.SIG_IGN:
                continue
            if handler is not _do_nothing:
                self._handlers.setdefault(number, handler)
            signal.signal(number, _do_nothing)
        signal.alarm(0)  # with which Ray's handler ends the process some seconds after a signal

    def __exit__(self, *error: object) -> None:
        if not self._handlers:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._old_fd)
        self._writer.close()  # which ends the thread

    def _watch(self) -> None:
        """Record the first signal, and end the process if it still runs `seconds` later."""
        with self._reader:
            while numbers := self._reader.recv(1):
                if numbers[0] in self._handlers:
                    break
            if not numbers:
                return
            self.number = numbers[0]
            print(f"foldcp: {signal.Signals(self.number).name}: stopping", file=sys.stderr)
            self._reader.settimeout(self._seconds)
            try:
                while self._reader.recv(1):
                    pass
            except TimeoutError:
                end_process(128 + self.number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The handler of signals that the watching thread records."""


class EndSignals:
    """What SIGTERM and SIGHUP do while nothing looks for signals and Ray's processes are there:
    where they would end this process at once, its descendants end with it, but for `spared` ones.

    From `begin` to `end`, in the main thread alone.
    """

    def __init__(self) -> None:
        self._handled: list[int] = []
        self._spared: Collection[psutil.Process] = ()

    def begin(self, spared: Collection[psutil.Process]) -> None:
        """Install the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._spared = spared
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
                self._handled.append(number)

    def end(self) -> None:
        """Remove those handlers that are still there."""
        for number in self._handled:
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        self._handled = []

    def _end(self, number: int, frame: FrameType | None) -> None:
        end_process(128 + number, self._spared)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, so that `kill_descendants` finds them.

    On Linux only; elsewhere Ray's processes end by themselves some seconds after their daemons.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_raylet() -> None:
    """Let a worker of Ray be killed when the raylet that started it dies, even a stopped one.

    Ray's workers look whether the raylet's process exists. Where nobody waits for dead processes,
    as in containers whose first process is no init, it exists for ever, and so would they, with
    their GPUs. On Linux only; elsewhere, and outside a worker, nothing is changed.
    """
    if sys.platform == "linux" and "RAY_RAYLET_PID" in os.environ:
        number = int(signal.SIGKILL)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def kill_descendants(spared: Collection[psutil.Process] = ()) -> None:
    """Kill all child processes and their descendants, but for `spared` ones and theirs."""
    for _ in range(3):  # a process may start another just before it dies
        kept = set(spared)
        for process in spared:
            with suppress(psutil.NoSuchProcess):
                kept.update(process.children(recursive=True))
        processes = [x for x in psutil.Process().children(recursive=True) if x not in kept]
        if not processes:
            return
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=_KILL_SECONDS)


def end_process(code: int, spared: Collection[psutil.Process] = ()) -> None:
    """Kill all descendants, but for `spared` ones, and exit at once, without Ray's exit handlers.

    Those may block when Ray's daemons are dead.
    """
    kill_descendants(spared)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
