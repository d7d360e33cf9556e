"""A process that forks drivers and Ray's workers, as their imports take longer than their work.

A raylet starts a worker as ever; what it has started asks the launcher for a fork that becomes the
worker, and stays for as long as this one runs (see `path/sitecustomize.py`). When either ends, so
does the other: the raylet may kill the process that it has started, or the one that registered.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Ray reads these variables when it is imported, and never again. So forked workers know no job, as
# those that a raylet starts before there is one, and learn theirs with their first task; and they
# look whether this process is there instead of the raylet, after which they are killed (see above).
WORKER_VARIABLES = {"RAY_JOB_ID": "ffffffff", "RAY_RAYLET_PID": str(os.getpid())}
IS_BEFORE_RAY = "ray" not in sys.modules
os.environ.update(WORKER_VARIABLES)
from foldcp.pipeline.execution import ray_cluster  # noqa: E402, F401  which imports Ray

for name in WORKER_VARIABLES:
    del os.environ[name]

FORK = multiprocessing.get_context("fork")
SOCKET = "launcher"  # in the folder of a lane
MAX_BYTES = 1 << 18  # of a worker's command with its environment
# What takes time to import, but nothing that `ray.remote` decorates: to name it, Ray draws a random
# number in this process, and from then on all forks would draw the same ones, so that two groups of
# a run would make one placement group.
MODULES = (
    "duckdb",
    "foldcp.pipeline.cli",
    "foldcp.pipeline.execution.worker",
    "foldcp.pipeline.planning.run_plan",
    "foldcp.pipeline.reporting.report",
    "foldcp.pipeline.scheduling.scheduler",
    "foldcp.pipeline.storage.store",
    "pyarrow.dataset",
    "pydantic.v1",
    "ray._private.workers.default_worker",
    "ray.util.metrics",
    "tests.chaos.faulty_worker",
)


def preload() -> None:
    """Import once what drivers and workers need, and decode what they need of each amino acid."""
    assert IS_BEFORE_RAY, "this module must be imported before Ray"
    for name in MODULES:
        importlib.import_module(name)
    from foldcp.complex import Chain, Complex
    from foldcp.features.featurize import featurize

    featurize(Complex("all", (Chain("A", "protein", "ACDEFGHIKLMNPQRSTVWY"),)))
    assert _draw_in_fork() != _draw_in_fork(), "a module of MODULES makes Ray draw random numbers"
    gc.collect()
    gc.freeze()  # so that no fork copies the memory to collect what is in it


def _draw_in_fork() -> bytes:
    """A random number that Ray draws in a fork of this process."""
    from ray._raylet import UniqueID

    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, UniqueID.from_random().binary())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


class Launcher:
    """Starts drivers, each in a session of its own, and the workers of the raylets of a lane.

    It must be made before its process begins to use Ray.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` has the socket at which workers are asked for."""
        self._connection, other = FORK.Pipe()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(folder / SOCKET))
        listener.listen(64)
        arguments = (other, listener, self._connection)
        self._process = FORK.Process(target=_serve, args=arguments)
        self._process.start()
        other.close()
        listener.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Start `foldcp` with these arguments, its output appended to `log`; returns its pid."""
        return self._ask("start", list(arguments), str(log), dict(environment))

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a driver, negative if a signal killed it; None while it runs."""
        return self._ask("exit_code", pid)

    def workers(self) -> dict[int, int]:
        """The workers that run, by the processes which the raylets have started for them."""
        return self._ask("workers")

    def close(self) -> None:
        """End the launcher and all workers."""
        self._connection.close()
        self._process.join(5)
        self._process.kill()

    def _ask(self, *question: Any) -> Any:
        self._connection.send(question)
        return self._connection.recv()


def _serve(control: Connection, listener: socket.socket, other: Connection) -> None:
    """Start drivers and workers until the other end is closed."""
    other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Server(control, listener).run()


@dataclass(frozen=True, slots=True)
class _Worker:
    """A forked worker, and the connection of the process that has asked for it."""

    pid: int
    connection: socket.socket


class _Server:
    """The launcher's event loop."""

    def __init__(self, control: Connection, listener: socket.socket) -> None:
        self.control = control
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.codes: dict[int, int | None] = {}  # exit codes by driver; None while it runs
        self.workers: dict[int, _Worker] = {}  # by the process that has asked for it
        self._watch(control, self._answer)
        self._watch(listener, self._accept)

    def run(self) -> None:
        """Answer until the process ends."""
        while True:
            for key, _ in self.selector.select():
                if self.selector.get_map().get(key.fd) is key:  # not ended by an event before
                    key.data()

    def _watch(self, file: Any, callback: Callable[[], None]) -> None:
        self.selector.register(file, selectors.EVENT_READ, callback)

    def _answer(self) -> None:
        """Answer a question of the `Launcher`."""
        try:
            kind, *arguments = self.control.recv()
        except EOFError:
            for worker in self.workers.values():
                os.kill(worker.pid, signal.SIGKILL)
            os._exit(0)
        if kind == "start":
            pid = self._fork(lambda: _become_driver(*arguments))
            self.codes[pid] = None
            self._watch_end(pid, lambda code: self.codes.update({pid: code}))
            self.control.send(pid)
        elif kind == "exit_code":
            self.control.send(self.codes[arguments[0]])
        else:
            self.control.send({asking: worker.pid for asking, worker in self.workers.items()})

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        self._watch(connection, lambda: self._start_worker(connection))

    def _start_worker(self, connection: socket.socket) -> None:
        """Fork a worker for the process at the other end."""
        self.selector.unregister(connection)
        request, files, _, _ = socket.recv_fds(connection, MAX_BYTES, 3)
        if not request:
            connection.close()
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        asking, _, _ = struct.unpack("3i", credentials)
        pid = self._fork(lambda: _become_worker(*json.loads(request), files))
        for file in files:
            os.close(file)
        worker = _Worker(pid, connection)
        self.workers[asking] = worker
        self._watch(connection, lambda: self._kill_worker(worker))
        self._watch_end(pid, lambda code: self._end_worker(asking, code))

    def _kill_worker(self, worker: _Worker) -> None:
        """Kill a worker, as the process that has asked for it is dead."""
        self.selector.unregister(worker.connection)
        os.kill(worker.pid, signal.SIGKILL)  # which is waited for only later

    def _end_worker(self, asking: int, code: int) -> None:
        """Let the process that has asked for a worker end as well."""
        worker = self.workers.pop(asking)
        with suppress(KeyError):
            self.selector.unregister(worker.connection)
        with suppress(OSError):
            worker.connection.send(str(code).encode())
        worker.connection.close()

    def _watch_end(self, pid: int, callback: Callable[[int], None]) -> None:
        """Wait for the end of a child, and call back with its exit code."""
        descriptor = os.pidfd_open(pid)

        def ended() -> None:
            self.selector.unregister(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(pid, 0)
            callback(os.waitstatus_to_exitcode(status))

        self._watch(descriptor, ended)

    def _fork(self, become: Callable[[], None]) -> int:
        """Fork a process that has no file of this one but its standard streams."""
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
        pid = os.fork()
        if not pid:
            self._close()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            become()
        return pid

    def _close(self) -> None:
        """Close what a fork does not need."""
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            else:
                key.fileobj.close()
        self.selector.close()


def _become_driver(arguments: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """Run `foldcp` in this process, as `python -m foldcp` would. Never returns."""
    os.setsid()
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

    _exit_after(main)


def _become_worker(
    command: Sequence[str], environment: Mapping[str, str], folder: str, files: Sequence[int]
) -> None:
    """Run a worker's command in this process, as Python would. Never returns."""
    os.setpgid(0, 0)  # as the raylet does
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = list(command)
    sys.orig_argv = [sys.executable, *command]
    sys.path[0] = os.path.dirname(command[0])
    from ray._raylet import Config

    from tests.chaos.faulty_worker import patch

    Config.initialize("")  # reads other variables of the environment again, as RAY_AUTH_MODE
    patch()

    def run() -> None:
        runpy.run_path(command[0], run_name="__main__")

    _exit_after(run)


def _exit_after(run: Callable[[], object]) -> None:
    """Run a program and exit, as the interpreter does."""
    code = 0
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 120  # as the interpreter's own
    os._exit(code)
