"""Ray: started on this machine for one process, or a cluster that a run joins.

And the nodes of the cluster.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError

from foldcp.files import describe_error
from foldcp.pipeline.execution.signals import adopt_orphans, kill_descendants

# Ray needs 80 MB at least, and would take a third of the machine.
OBJECT_STORE_BYTES = 100_000_000
CONNECT_SECONDS = 12.0  # in which a cluster must answer before the run joins it
CLOSE_SECONDS = 4.0  # in which Ray must disconnect
GCS_SECONDS = 8.0  # in which the control service (GCS) of a cluster must answer
DAEMONS = ("gcs_server", "raylet")  # without which a local Ray is dead


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, with the resources that Ray counts."""

    id: str
    host: str
    cpus: int
    gpus: int


class RayLostError(Exception):
    """Ray's daemons are dead or do not answer."""


class RayConnection:
    """Ray, started on this machine for this process alone, or a cluster that it joined."""

    def __init__(self, address: str, num_cpus: int, verbose: bool) -> None:
        """Start Ray, or join the cluster at `address`, which answers (see `check_address`).

        Raises ValueError when Ray cannot be started.
        """
        level = logging.INFO if verbose else logging.ERROR
        options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
        self._daemons: list[psutil.Process] = []
        self._others: list[psutil.Process] = []
        self.is_local = not address
        if address:
            ray.init(address=address, **options)
            return
        # Of whoever called: processes that were there before are not Ray's.
        self._others = psutil.Process().children(recursive=True)
        adopt_orphans()
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **options,
            )
        except (OSError, RuntimeError, RayError) as error:
            raise ValueError(
                f"Ray cannot be started on this machine: {describe_error(error)}"
            ) from error
        children = psutil.Process().children(recursive=True)
        started = [process for process in children if process not in self._others]
        self._daemons = [process for process in started if process.name() in DAEMONS]

    def close(self) -> None:
        """Disconnect, and end a local Ray with all its processes.

        `ray.shutdown` may block when Ray's daemons are dead; then it is not waited for, and the
        process should exit through `end_process`.
        """
        thread = threading.Thread(target=ray.shutdown, daemon=True)
        if all(map(_is_alive, self._daemons)):
            thread.start()
            thread.join(CLOSE_SECONDS)
        if self.is_local:
            kill_descendants(spared=self._others)

    def check(self) -> None:
        """RayLostError when a daemon of a local Ray is dead."""
        for daemon in self._daemons:
            if not _is_alive(daemon):
                raise RayLostError("a daemon of Ray is dead")


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_address(address: str) -> str:
    """The address of the cluster to join: `address`, or what `auto` stands for; empty stays empty.

    Raises ValueError when no Ray of the same version answers there. Another process connects, as
    `ray.init` waits for minutes and then ends the process.
    """
    if not address:
        return ""
    address = _auto_address() if address == "auto" else address
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS / 4):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"--address {address}: no Ray cluster answers there: {describe_error(error)}"
        ) from None
    reason = _connect(address)
    if not reason:
        return address
    if "RAY_AUTH_MODE" not in os.environ and not _connect(address, RAY_AUTH_MODE="token"):
        # The first time it may only have been slow.
        if not _connect(address):
            return address
        reason = "the cluster asks for Ray's token: set the variable RAY_AUTH_MODE=token"
    raise ValueError(f"--address {address}: {reason}")


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
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    file = Path(folder) / "ray" / "ray_current_cluster"
    try:
        return file.read_text().strip()
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
