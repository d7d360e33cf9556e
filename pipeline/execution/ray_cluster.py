"""Ray: started on this machine for one process, or a cluster that a run joins.

And the nodes of the cluster.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from foldcp.files import describe_error
from foldcp.pipeline.execution.signals import (
    TRY_AGAIN,
    EndSignals,
    StopSignals,
    adopt_orphans,
    end_process,
    kill_descendants,
)

# Of the object store, whose memory is taken as it fills: Ray needs 80 MB at least, and would take a
# third of the machine.
MIN_STORE_BYTES = 100_000_000
MAX_STORE_BYTES = 4_000_000_000
SHARED_MEMORY = "/dev/shm"
STORE_SHARE = 0.25  # of the shared memory that is free
START_SECONDS = 120.0  # in which Ray must start, also on a busy machine
WAIT_SECONDS = 0.1  # between two looks for a signal meanwhile
CONNECT_SECONDS = 12.0  # in which a cluster must answer before the run joins it
CLOSE_SECONDS = 4.0  # in which Ray must disconnect
GCS_SECONDS = 8.0  # in which the control service (GCS) of a cluster must answer
WATCH_SECONDS = 1.0  # between two looks whether Ray is alive, while a call to it may block
STUCK_SECONDS = 30.0  # after which a process that has not noticed that Ray is lost is ended
DAEMONS = ("gcs_server", "raylet")  # without which a local Ray is dead


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, with the resources that Ray counts."""

    id: str
    host: str
    cpus: int
    gpus: int
    store_bytes: int = 0  # of Ray's object store


class RayLostError(Exception):
    """Ray's daemons are dead or do not answer."""


class RayConnection:
    """Ray, started on this machine for this process alone, or a cluster that it joins.

    `begin` starts or joins it in another thread, so that the input can be read meanwhile, and
    `wait` waits for that. A context, at the end of which it is closed.
    """

    def __init__(self, address: str, num_cpus: int, verbose: bool) -> None:
        """`address` is that of a cluster, which answers (see `check_address`), or empty; `num_cpus`
        are those of a Ray of this machine.
        """
        self.is_local = not address
        self._level = logging.INFO if verbose else logging.ERROR
        self._options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": self._level}
        if address:
            self._options |= {"address": address}
        else:
            self._options |= {
                "address": "local",
                "num_cpus": num_cpus,
                "object_store_memory": _store_bytes(),
                "include_dashboard": False,
            }
        self._thread: threading.Thread | None = None
        self._connected = threading.Event()
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._is_late = False
        self._daemons: list[psutil.Process] = []
        self._gcs: tuple[str, int] | None = None  # host and port, of a cluster that it has joined
        self._others: list[psutil.Process] = []
        self._end_signals = EndSignals()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with StopSignals():  # a second SIGINT would leave Ray half closed
            self.close()
        self._end_signals.end()

    def begin(self) -> None:
        """Begin to start or to join Ray, once."""
        if self._thread:
            return
        # Of whoever called: processes that were there before are not Ray's.
        self._others = psutil.Process().children(recursive=True)
        if self.is_local:
            adopt_orphans()
            self._end_signals.begin(self._others)
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Connect, and stay: Ray's daemons end with the thread that has started them."""
        logging.getLogger("ray").setLevel(self._level)  # it warns that this thread gets no signals
        try:
            ray.init(**self._options)
        except Exception as error:  # `wait` raises it
            self._error = error
        self._connected.set()
        self._closed.wait()

    def wait(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Wait until Ray is connected, or until a stop is requested.

        Raises ValueError when Ray cannot be started, or has not after `START_SECONDS`.
        """
        self.begin()
        deadline = time.monotonic() + START_SECONDS
        while not self._connected.wait(WAIT_SECONDS):
            if stop_requested():
                return
            if time.monotonic() > deadline:
                self._is_late = True
                raise ValueError(
                    f"Ray did not start within {START_SECONDS:.0f} s; its logs are in "
                    f"{_log_folder()}"
                )
        if self._error:
            raise ValueError(
                f"Ray cannot be started on this machine: {describe_error(self._error)}; its logs "
                f"are in {_log_folder()}"
            ) from self._error
        if self.is_local:
            children = psutil.Process().children(recursive=True)
            started = [process for process in children if process not in self._others]
            self._daemons = [process for process in started if process.name() in DAEMONS]
        else:
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            self._gcs = (host.strip("[]"), int(port))

    def close(self) -> None:
        """Disconnect, and end a local Ray with all its processes.

        `ray.shutdown` may block when Ray's daemons are dead; then it is not waited for, and the
        process should exit through `end_process`.
        """
        if not self._thread or self._closed.is_set():
            return
        # Ray ends a process a minute after it was cut off while it connects.
        is_connected = self._connected.wait(0.0 if self._is_late else CONNECT_SECONDS)
        if is_connected and all(map(_is_alive, self._daemons)):
            thread = threading.Thread(target=ray.shutdown, daemon=True)
            thread.start()
            thread.join(CLOSE_SECONDS)
        if self.is_local:
            kill_descendants(spared=self._others)
        self._closed.set()

    def check(self) -> None:
        """RayLostError when a daemon of a local Ray is dead."""
        if not all(map(_is_alive, self._daemons)):
            raise RayLostError("a daemon of Ray is dead")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A context of calls to Ray, in which the process ends if Ray is lost and a call blocks.

        Some calls wait for a dead control service (GCS) until Ray ends the process a minute later,
        with exit code 1. Here another thread ends it before that, with `TRY_AGAIN`.
        """
        left = threading.Event()
        threading.Thread(target=self._watch, args=(left,), name="ray-watch", daemon=True).start()
        try:
            yield
        finally:
            left.set()

    def _watch(self, left: threading.Event) -> None:
        answered_at = time.monotonic()
        while not left.wait(WATCH_SECONDS):
            if self._answers():
                answered_at = time.monotonic()
            elif time.monotonic() - answered_at > STUCK_SECONDS and not left.is_set():
                print(
                    "foldcp: Ray is lost and does not return from a call: stopping; the same "
                    "command resumes",
                    file=sys.stderr,
                )
                end_process(TRY_AGAIN, self._others)

    def _answers(self) -> bool:
        """Whether the daemons of a local Ray are alive, or the GCS of a cluster is reached."""
        if self._gcs is None:
            return all(map(_is_alive, self._daemons))
        try:
            with socket.create_connection(self._gcs, timeout=GCS_SECONDS):
                return True
        except OSError:
            return False


def _store_bytes() -> int:
    """Bytes of the object store of a Ray of this machine."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # not Linux
        return MIN_STORE_BYTES
    return int(min(max(STORE_SHARE * free, MIN_STORE_BYTES), MAX_STORE_BYTES))


def _log_folder() -> Path:
    """The folder of the logs of the Ray that this process has started last."""
    sessions = _ray_folder().glob(f"session_*_{os.getpid()}")
    return max(sessions, default=_ray_folder() / "session_latest") / "logs"


def _ray_folder() -> Path:
    """Where Ray keeps its files on this machine."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_address(address: str) -> str:
    """The address of the cluster to join: `address`, or what `auto` stands for; empty stays empty.

    Raises ValueError when no Ray of the same version answers there. Another process connects, as
    `ray.init` waits for minutes and then ends the process. This process gives Ray's token from now
    on, where the cluster asks for it and the environment says nothing of it.
    """
    if not address:
        return ""
    address = _auto_address() if address == "auto" else address
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isascii() and port.isdecimal()):
        raise ValueError(
            f"--address {address}: expected HOST:PORT, such as localhost:6379, or auto"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS / 4):
            pass
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--address {address}: no Ray cluster answers there: {describe_error(error)}"
        ) from None
    reason = _connect(address)
    if not reason:
        return address
    if "RAY_AUTH_MODE" not in os.environ and not _connect(address, RAY_AUTH_MODE="token"):
        # The first time it may only have been slow.
        if _connect(address):
            _give_token()
        return address
    raise ValueError(f"--address {address}: {reason}")


def _give_token() -> None:
    """As `ray start` does, and `ray.init` without an address, where a user has a token."""
    from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]

    os.environ["RAY_AUTH_MODE"] = "token"
    Config.initialize("")  # Ray read the environment when it was imported


def _connect(address: str, **environment: str) -> str:
    """Why a process with these variables cannot connect to a cluster; empty when it can."""
    program = (
        "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    )
    command = [sys.executable, "-c", program, address]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CONNECT_SECONDS,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        return "no Ray cluster answers there"
    lines = result.stderr.strip().splitlines() or ["no Ray cluster answers there"]
    return lines[-1] if result.returncode else ""


def _auto_address() -> str:
    """The address in RAY_ADDRESS, or of the cluster that `ray start` started here.

    `ray.init` would also join the private Ray of another process.
    """
    if address := os.environ.get("RAY_ADDRESS", ""):
        return address
    try:
        return (_ray_folder() / "ray_current_cluster").read_text().strip()
    except OSError:
        raise ValueError(
            "--address auto: no Ray cluster was started on this machine (ray start --head), and "
            "RAY_ADDRESS is not set"
        ) from None


def call_gcs(function: Callable[[], Any]) -> Any:
    """The result of a call to Ray's control service (GCS).

    Raises RayLostError when it does not answer in time, which Ray itself would notice after a
    minute by ending the process.
    """
    results: list[Any] = []

    def call() -> None:
        results.append(function())

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(GCS_SECONDS)
    if thread.is_alive():
        raise RayLostError(f"Ray's control service did not answer for {GCS_SECONDS:.0f} s")
    if not results:
        raise RayLostError("Ray's control service failed")
    return results[0]


def alive_nodes() -> list[Node]:
    """The nodes that are alive, by host name.

    Raises RayLostError when that of this process is not among them: Ray starts nothing more for it,
    on other nodes neither, and says nothing.
    """
    nodes = [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            store_bytes=int(node["Resources"].get("object_store_memory", 0)),
        )
        for node in call_gcs(ray.nodes)
        if node["Alive"]
    ]
    own = ray.get_runtime_context().get_node_id()
    if all(node.id != own for node in nodes):
        raise RayLostError("the Ray node of this process is dead")
    return sorted(nodes, key=lambda node: (node.host, node.id))


def ranks_per_node(
    nodes: Sequence[Node], device: str, cpu_ranks: int, max_ranks: int
) -> dict[str, int]:
    """Ranks that each node takes, by its id: its GPUs, or up to `cpu_ranks` CPUs where the device
    is one.

    At most `max_ranks` in all, 0 for all. Nodes that take none are left out.
    """
    ranks: dict[str, int] = {}
    for node in nodes:
        count = node.gpus if device == "cuda" else min(node.cpus, cpu_ranks)
        if max_ranks:
            count = min(count, max_ranks - sum(ranks.values()))
        if count:
            ranks[node.id] = count
    return ranks


def cpus_per_rank(node: Node, device: str) -> float:
    """CPUs that Ray counts for a rank: some nodes have fewer of them than GPUs."""
    return min(1.0, 0.5 * node.cpus / max(1, node.gpus)) if device == "cuda" else 1.0
