"""A Ray cluster on this machine, whose daemons and workers are found as processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import psutil

from tests.chaos.launcher import Launcher

from ray.cluster_utils import Cluster  # isort: skip  after launcher.py, which sets its environment

OBJECT_STORE_BYTES = 80_000_000
CPUS_PER_NODE = 2
# On a quiet machine, so that a frozen node is given up after seconds instead of half a minute.
HEALTH_CHECK_SECONDS = 2.0
NUM_HEALTH_CHECKS = 3
WORKERS = ("WorkerActor", "WorkerGroupActor", "ProgressActor")
CLEAN_SECONDS = 20.0  # in which all that a run had must be gone


def slowness() -> float:
    """How much longer than on a quiet machine everything may take."""
    return max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))


class ChaosCluster:
    """A head, where the drivers are, and perhaps a second node."""

    def __init__(self, launcher: Launcher | None = None) -> None:
        """`launcher` is that of the workers; None where Ray starts them."""
        self._launcher = launcher
        config = {
            "health_check_initial_delay_ms": 1000,
            "health_check_period_ms": 1000,
            "health_check_timeout_ms": int(1000 * HEALTH_CHECK_SECONDS * slowness()),
            "health_check_failure_threshold": NUM_HEALTH_CHECKS,
        }
        head = {
            "include_dashboard": False,
            "no_monitor": True,
            "_system_config": config,
            **_node_options(),
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._frozen: list[psutil.Process] = []

    @property
    def address(self) -> str:
        """The address that drivers join."""
        return self._cluster.address

    def processes(self) -> list[psutil.Process]:
        """The daemons of the cluster."""
        nodes = [self._cluster.head_node, *self._cluster.worker_nodes]
        return [daemon for node in nodes for daemon in _daemons(node)]

    def workers(self) -> list[psutil.Process]:
        """The processes of worker groups and of the progress, on all nodes."""
        return [
            process
            for process in with_descendants(self.processes(), self._forked())
            if any(name in title(process) for name in WORKERS)
        ]

    def _forked(self) -> dict[int, int]:
        return self._launcher.workers() if self._launcher is not None else {}

    def gcs(self) -> psutil.Process:
        """The cluster's control service."""
        return _only(self.processes(), "gcs_server")

    def head_raylet(self) -> psutil.Process:
        """The raylet of the drivers."""
        return _only(_daemons(self._cluster.head_node), "raylet")

    def set_nodes(self, number: int) -> None:
        """Let the cluster have one node or two."""
        self._thaw()

        def has_number() -> bool:
            # A node that was frozen may end itself only now, as it learns that it was given up; or
            # it lives beside the one that was added for it.
            workers = self._cluster.worker_nodes
            for node in list(workers):
                is_whole = all(is_running(process) for process in _daemons(node))
                if len(workers) >= number or not is_whole:
                    self._cluster.remove_node(node, allow_graceful=False)
            if len(workers) < number - 1:
                self.add_node()
            return self._num_alive() == number

        wait_until(has_number, f"a cluster of {number}")

    def add_node(self) -> None:
        """Add a node, without waiting for it."""
        self._cluster.add_node(wait=False, **_node_options())

    def lose_node(self, kind: str) -> bool:
        """Kill, remove or freeze the node without a driver; whether there was one."""
        if not self._cluster.worker_nodes:
            return False
        node = next(iter(self._cluster.worker_nodes))
        if kind == "remove_node":
            self._cluster.remove_node(node, allow_graceful=True)
            return True
        found = with_descendants(_daemons(node), self._forked())
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP if kind == "freeze_node" else signal.SIGKILL)
        if kind == "freeze_node":
            self._frozen += found
        return True

    def leftovers(self) -> list[str]:
        """What the last run left: processes, placement groups, and resources that are not free."""
        state = self._cluster.global_state
        found = [f"process {process.pid} {title(process)}" for process in self.workers()]
        found += [
            f"placement group {table['name']} is {table['state']}"
            for table in state.placement_group_table().values()
            if table["state"] != "REMOVED"
        ]
        free = state.available_resources_per_node()
        for node in state.node_table():
            if node["Alive"]:
                cpus = free.get(node["NodeID"], {}).get("CPU", 0.0)
                if cpus != CPUS_PER_NODE:
                    found.append(f"{cpus:g} of {CPUS_PER_NODE} CPUs of a node are free")
        return found

    def wait_until_clean(self) -> list[str]:
        """What is left some seconds after a run."""
        self._thaw()
        end = time.monotonic() + CLEAN_SECONDS * slowness()
        while (left := self.leftovers()) and time.monotonic() < end:
            time.sleep(0.3)
        return left

    def close(self) -> None:
        """Kill all processes of the cluster."""
        found = with_descendants(self.processes())
        kill(found)

    def _thaw(self) -> None:
        """Let frozen processes run on, as after a pause of the whole machine."""
        for process in self._frozen:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self._frozen.clear()

    def _num_alive(self) -> int:
        return sum(node["Alive"] for node in self._cluster.global_state.node_table())


def _node_options() -> dict[str, Any]:
    return {
        "num_cpus": CPUS_PER_NODE,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_log_monitor": False,
    }


def _daemons(node: Any) -> list[psutil.Process]:
    """The processes that were started for a node of the cluster."""
    found = []
    for infos in node.all_processes.values():
        for info in infos:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(info.process.pid))
    return found


def _only(processes: Iterable[psutil.Process], name: str) -> psutil.Process:
    (found,) = [process for process in processes if process.name() == name]
    return found


def title(process: psutil.Process) -> str:
    """How a process calls itself: Ray's after what they run; empty if it is gone."""
    try:
        return " ".join(process.cmdline()[:1])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def is_running(process: psutil.Process) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def with_descendants(
    processes: Iterable[psutil.Process], forked: Mapping[int, int] = MappingProxyType({})
) -> list[psutil.Process]:
    """Processes that run, and all that they started; `forked` is `Launcher.workers()`."""
    found: dict[int, psutil.Process] = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for each in [process, *process.children(recursive=True)]:
                found[each.pid] = each
    for asking in forked.keys() & found.keys():
        with suppress(psutil.NoSuchProcess):
            found[forked[asking]] = psutil.Process(forked[asking])
    return [process for process in found.values() if is_running(process)]


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and wait for their ends."""
    found = list(processes)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=5)


def marked(variable: str, value: str) -> list[psutil.Process]:
    """The processes that inherited a variable of the environment."""
    entry = f"{variable}={value}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                is_marked = entry in file.read().split(b"\0")
        except OSError:
            continue
        if is_marked and process.pid != os.getpid() and is_running(process):
            found.append(process)
    return found


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition. Raises TimeoutError."""
    end = time.monotonic() + seconds * slowness()
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)
