"""A process that starts `foldcp score` by forking, as its imports take longer than a tiny run."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("fork")


class Launcher:
    """Starts drivers, each in a session of its own.

    It must be made before its process begins to use Ray.
    """

    def __init__(self) -> None:
        self._connection, other = FORK.Pipe()
        self._process = FORK.Process(target=_serve, args=(other, self._connection))
        self._process.start()
        other.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Start `foldcp` with these arguments, its output appended to `log`; returns its pid."""
        return self._ask(("start", list(arguments), str(log), dict(environment)))

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a driver, negative if a signal killed it; None while it runs."""
        return self._ask(("poll", pid))

    def close(self) -> None:
        """End the launcher."""
        self._connection.close()
        self._process.join(5)
        self._process.kill()

    def _ask(self, question: tuple[Any, ...]) -> Any:
        self._connection.send(question)
        return self._connection.recv()


def _serve(connection: Connection, other: Connection) -> None:
    """Start drivers and tell their exit codes until the other end is closed."""
    other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes: dict[int, int] = {}
    while True:
        try:
            question = connection.recv()
        except EOFError:
            os._exit(0)
        if question[0] == "start":
            pid = os.fork()
            if not pid:
                connection.close()
                _become_driver(*question[1:])
            connection.send(pid)
            continue
        pid = question[1]
        if pid not in codes:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        connection.send(codes.get(pid))


def _become_driver(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Run `foldcp` in this process, as `python -m foldcp` would."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    faulthandler.register(signal.SIGUSR1)
    sys.argv = ["foldcp", *arguments]
    sys.orig_argv = [sys.executable, "-m", "foldcp", *arguments]  # with which it may start again
    from foldcp.pipeline.cli import main

    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 120  # as the interpreter's own
    os._exit(code)
