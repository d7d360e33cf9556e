"""Faults that hit the processes of a run at their moments, which are events of its log."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.cluster import ChaosCluster, title, with_descendants
from tests.chaos.launcher import Launcher
from tests.chaos.schedule import GROUP_FAULTS, NODE_FAULTS, SIGNALS, Invocation, ProcessFault


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that happened, and the complexes that were being folded then."""

    kind: str
    folding: tuple[str, ...]


@dataclass(slots=True)
class RunLog:
    """The events of one invocation in RUN/log.jsonl."""

    path: Path
    offset: int  # where it begins
    counts: Counter[str] = field(default_factory=Counter)
    folding: dict[int, str] = field(default_factory=dict)  # complexes by group

    def read(self) -> None:
        """Count the events that are new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self.offset += end
        for line in content[:end].splitlines():
            with suppress(ValueError):  # a line that a full disk cut short
                self._count(json.loads(line))

    def _count(self, event: dict[str, Any]) -> None:
        self.counts[event["event"]] += 1
        if event["event"] == "fold_started":
            self.folding[event["group"]] = event["complex"]
        elif event["event"] in ("attempt_ended", "group_stopped"):
            self.folding.pop(event["group"], None)


class Injector:
    """Lets the faults of one invocation happen."""

    def __init__(
        self,
        invocation: Invocation,
        driver: int,
        log: Path,
        cluster: ChaosCluster | None,
        launcher: Launcher,
        others: dict[str, Callable[[], None]],
    ) -> None:
        """`cluster` is None where the driver has a Ray of its own; `others` are the faults that
        are not of processes.
        """
        self.hits: list[Hit] = []
        self._waiting = list(invocation.faults)
        self._driver = psutil.Process(driver)
        self._log = RunLog(log, log.stat().st_size if log.exists() else 0)
        self._cluster = cluster
        self._launcher = launcher
        self._others = others
        self._due: list[tuple[float, ProcessFault]] = []

    def step(self) -> None:
        """Let happen what is due."""
        self._log.read()
        now = time.monotonic()
        for fault in list(self._waiting):
            if self._log.counts[fault.event] >= fault.count:
                self._waiting.remove(fault)
                self._due.append((now + fault.delay, fault))
        for due in sorted(self._due, key=lambda due: due[0]):
            if due[0] <= now:
                self._due.remove(due)
                folding = tuple(self._log.folding.values())
                if self._happens(due[1]):
                    self.hits.append(Hit(due[1].kind, folding))

    def _happens(self, fault: ProcessFault) -> bool:
        """Let a fault happen; whether it hit anything."""
        kind = fault.kind
        if kind in SIGNALS:
            return _send(self._driver, signal.Signals[kind])
        if kind in GROUP_FAULTS:
            return self._hit_group(kind, fault.target)
        if kind in NODE_FAULTS:
            assert self._cluster is not None
            return self._cluster.lose_node(kind)
        if kind == "add_node":
            assert self._cluster is not None
            self._cluster.add_node()
            return True
        if kind in ("kill_raylet", "kill_gcs"):
            return _send(self._daemon(kind.removeprefix("kill_")), signal.SIGKILL)
        self._others[kind]()
        return True

    def _hit_group(self, kind: str, target: int) -> bool:
        """Kill or freeze a rank, or the actor of a worker group."""
        name = "WorkerActor" if kind.endswith("rank") else "WorkerGroupActor"
        processes = (
            self._cluster.workers()
            if self._cluster
            else with_descendants([self._driver], self._launcher.workers())
        )
        found = [process for process in processes if name in title(process)]
        if not found:
            return False
        number = signal.SIGSTOP if kind.startswith("freeze") else signal.SIGKILL
        return _send(found[target % len(found)], number)

    def _daemon(self, name: str) -> psutil.Process | None:
        """A daemon of the driver's Ray, or of the cluster that it joined."""
        if self._cluster:
            return self._cluster.gcs() if name == "gcs" else self._cluster.head_raylet()
        process_name = "gcs_server" if name == "gcs" else "raylet"
        for process in with_descendants([self._driver]):
            if process.name() == process_name:
                return process
        return None


def _send(process: psutil.Process | None, number: signal.Signals) -> bool:
    """Send a signal; whether the process was there."""
    if process is None:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
