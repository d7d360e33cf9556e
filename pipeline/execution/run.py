"""One invocation of a run on a folder: what is left to fold, and how it ended."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from foldcp.complex import InvalidComplex
from foldcp.files import describe_error
from foldcp.pipeline.execution.driver import Driver
from foldcp.pipeline.execution.monitoring.run_status import RunStatus, write_status
from foldcp.pipeline.execution.ray_cluster import RayConnection, RayLostError
from foldcp.pipeline.execution.signals import TRY_AGAIN, StopSignals
from foldcp.pipeline.inputs.tasks import Failed, Task
from foldcp.pipeline.planning.detect_hardware import choose_hardware
from foldcp.pipeline.planning.resume import (
    alone_keys,
    both,
    measured_folds,
    missing_files,
    suspect_keys,
    unfinished_tasks,
)
from foldcp.pipeline.planning.run_plan import RunPlan
from foldcp.pipeline.scheduling.hardware import Hardware
from foldcp.pipeline.storage.results.invalid_records import sync_invalid
from foldcp.pipeline.storage.store import Store
from foldcp.printable import printable

SOME_INVALID = 3


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of an invocation; nothing here changes a result."""

    address: str = ""  # of a Ray cluster; empty starts Ray on this machine
    gpus: int = 0  # GPUs or CPU ranks to use at most; 0: all
    hardware: str = ""  # hardware file or preset; empty: that of this machine
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run. `stopped` is the reason if it ended early, but not by a signal."""

    num_done: int
    failed: tuple[Failed, ...]
    invalid: tuple[InvalidComplex, ...]
    signal: int = 0
    stopped: str = ""
    ray_lost: bool = False  # this process's own Ray died: a new process can resume the run

    @property
    def is_complete(self) -> bool:
        """Whether every task has an outcome."""
        return not (self.signal or self.stopped)

    def exit_code(self, allow_invalid: bool) -> int:
        """The exit code of `foldcp score`.

        0 when every complex has a result, 1 when some failed, 3 when some could not be built,
        unless `allow_invalid`; 75 when the run had to stop early, and 128 + signal when a signal
        stopped it.
        """
        if self.signal:
            return 128 + self.signal
        if self.stopped:
            return TRY_AGAIN
        if self.failed:
            return 1
        return SOME_INVALID if self.invalid and not allow_invalid else 0


def score(plan: RunPlan, out: Path, options: RunOptions, connection: RayConnection) -> Summary:
    """Fold and store everything that has no result in `out` yet; then close the connection.

    Raises ValueError when it cannot begin: Ray does not start, no device is free, or `out` cannot
    be written.
    """
    hardware = choose_hardware(plan.config, options.hardware, options.address)
    with StopSignals() as signals:
        store = Store.open(out, plan.info(hardware.name))
        run = Run(plan, store, hardware, options, connection, signals)
        status = "interrupted"
        try:
            summary = run.score()
            if summary.is_complete:
                status = "finished"
        finally:
            run.kill_groups()
            run.record()
            is_closed = store.close(status)
            connection.close()
        if not summary.is_complete:  # a signal may have come since
            summary = replace(summary, signal=signals.number)
    if is_closed or not summary.is_complete:
        return summary
    return replace(summary, stopped=f"{out}: the end of the run could not be recorded")


class Run:
    """The store, Ray and the driver of one invocation."""

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        hardware: Hardware,
        options: RunOptions,
        connection: RayConnection,
        signals: StopSignals,
    ) -> None:
        self.plan = plan
        self.store = store
        self.hardware = hardware
        self.options = options
        self.connection = connection
        self.signals = signals
        self.driver: Driver | None = None

    def score(self) -> Summary:
        """Fold what has no result."""
        num_done = 0
        stopped = ""
        ray_lost = False
        try:
            self._sync_store()
            unfinished = self._resume()
            num_done = len(self.plan.task_list.tasks) - len(unfinished)
            if not unfinished:
                self._write_status()
            elif not self.signals.number:
                with self.connection.watched():
                    stopped = self._fold(unfinished)
        except RayLostError as error:
            stopped = str(error)
            ray_lost = self.connection.is_local
        except OSError as error:  # the disk fails, or the folder was taken away
            path = error.filename or self.store.root
            stopped = (
                f"{path}: {describe_error(error)}; the run resumes with the same command "
                "once that is fixed"
            )
        outcomes = list(self.driver.scheduler.outcomes.values()) if self.driver else []
        failed = tuple(outcome for outcome in outcomes if isinstance(outcome, Failed))
        num_done += len(outcomes) - len(failed)
        invalid = self.plan.task_list.invalid
        return Summary(num_done, failed, invalid, self.signals.number, stopped, ray_lost)

    def _sync_store(self) -> None:
        """Mark results that the input does not ask for as stale, and store the invalid records."""
        keep = self.plan.config.run.stale == "keep"
        self.store.mark_stale(self.plan.present, keep=keep)
        sync_invalid(self.store, self.plan.task_list.invalid, self.plan.provenance)

    def _resume(self) -> list[Task]:
        """The tasks that are left to fold; on stderr, how many have a result already, and how many
        are folded again for files that it lacks.
        """
        tasks = self.plan.task_list.tasks
        outcomes = self.store.outcomes()
        unfinished = [self._with_former_files(task) for task in unfinished_tasks(tasks, outcomes)]
        num_samples = self.plan.config.model.samples
        lacking = Counter[str]()
        to_complete = []
        for task in tasks:
            if outcomes.get(task.key) != "done":
                continue
            written = self.store.written(task.key)
            num_chains = len(task.complex.chains)
            missing = missing_files(written, task.write, num_samples, num_chains)
            if missing:
                lacking.update(missing)
                to_complete.append(replace(task, write=both(written, task.write)))
        if num_done := len(tasks) - len(unfinished):
            self._tell(f"{num_done} of {len(tasks)} complexes are done already")
        if num_lost := sum(self.store.written_before(task.key) is not None for task in unfinished):
            self._tell(
                f"files of {num_lost} results are missing or shortened: these are folded again, "
                "with all files that they had"
            )
        if to_complete:
            reasons = ", ".join(f"{setting} ({count})" for setting, count in lacking.items())
            self._tell(
                f"{len(to_complete)} of them are folded again, as files that are asked for now "
                f"were not stored: {reasons}"
            )
        return unfinished + to_complete

    def _with_former_files(self, task: Task) -> Task:
        """The task, whose result is to have also the files of one that has lost some."""
        written = self.store.written_before(task.key)
        return task if written is None else replace(task, write=both(written, task.write))

    def _write_status(self) -> None:
        """Say that nothing is left to fold: the status of a killed driver may be behind."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        num_complexes = len(self.plan.task_list.tasks)
        status = RunStatus(
            run_id=self.store.run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=self.hardware.device,
            started=now,
            updated=now,
            num_complexes=num_complexes,
            num_done=num_complexes,
            num_failed=0,
            num_invalid=len(self.plan.task_list.invalid),
            failures={},
            num_gpus=0,
            num_busy_gpus=0,
            gpu_hours=0.0,
            gpu_hours_left=0.0,
            use=0.0,
            seconds_left=0.0,
            groups=(),
        )
        write_status(self.store.root, status)

    def _tell(self, message: str) -> None:
        """Print a line on stderr that names the folder."""
        print(f"{printable(str(self.store.root))}: {message}", file=sys.stderr)

    def _fold(self, tasks: Sequence[Task]) -> str:
        """Fold tasks once Ray has started; returns why it stopped early, or an empty text."""
        self.connection.wait(lambda: self.signals.number > 0)
        self.signals.install()
        if self.signals.number:
            return ""
        self.driver = Driver(
            self.plan,
            tasks,
            self.store,
            self.hardware,
            self.connection,
            self.signals,
            max_ranks=self.options.gpus,
            suspects=suspect_keys(self.store.root),
            alone=alone_keys(self.store.root),
            history=measured_folds(self.store.root, self.plan.task_list.tasks, self.hardware.name),
            verbose=self.options.verbose,
        )
        self.driver.run()
        return self.driver.stopped

    def kill_groups(self) -> None:
        """Kill all worker groups without waiting for them."""
        if self.driver and self.driver.groups:
            with self.connection.watched():
                for group in self.driver.groups.values():
                    group.kill()

    def record(self) -> None:
        """Store the attempts that have ended, if that is still possible."""
        if self.driver:
            try:
                self.driver.record()
            except OSError as error:
                message = f"foldcp: {self.store.root}: {describe_error(error)}"
                print(printable(message), file=sys.stderr)
