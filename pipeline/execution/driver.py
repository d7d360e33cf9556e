"""The run: tasks without a result -> scheduler -> groups -> store, until nothing is left or
somebody stops it.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from foldcp.complex import InvalidComplex
from foldcp.files import describe_error
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.ray_cluster import (
    Node,
    RayConnection,
    RayLostError,
    alive_nodes,
    check_address,
)
from foldcp.pipeline.execution.signals import StopSignals
from foldcp.pipeline.execution.worker_group import (
    Answer,
    WorkerGroupHandle,
    fetch_prediction,
    hear,
    prefetch_features,
)
from foldcp.pipeline.inputs.tasks import Failed, Task
from foldcp.pipeline.planning.run_plan import RunPlan, cpu_ranks, gpu_hardware, local_hardware
from foldcp.pipeline.scheduling.cost_model import Costs, Hardware, load_hardware
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.types import (
    Action,
    Attempt,
    Failure,
    Fold,
    Start,
    Stop,
    WorkerConfig,
)
from foldcp.pipeline.storage.filesystem import is_disk_failure
from foldcp.pipeline.storage.results.invalid_records import sync_invalid
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import attempt_row, failed_rows, result_rows
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from foldcp.printable import printable

import ray  # isort: skip  after ray_cluster.py, which sets its environment

TICK = 0.5  # seconds at most between two looks at deadlines and signals
AHEAD_TOKENS = 2048  # of larger complexes the features take little of the time, and much memory
# of what folds faster the features are made as fast as a process that makes them is started
AHEAD_SECONDS = 1.0
NODE_TICK = 5.0  # seconds between two looks at the nodes


@dataclass(frozen=True, slots=True)
class Options:
    """Where to run: a cluster's address ("" starts one), how many GPUs (0: all), the hardware
    file ("" looks).
    """

    address: str = ""
    gpus: int = 0
    hardware: str = ""
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. `stopped` says why it ended before all was done, without a signal."""

    num_done: int
    failed: tuple[Failed, ...]
    invalid: tuple[InvalidComplex, ...]
    signal: int = 0
    stopped: str = ""
    ray_lost: bool = False  # the Ray of this process died: the same run can go on in a new process

    @property
    def is_complete(self) -> bool:
        """Whether every task has an outcome."""
        return not (self.signal or self.stopped)

    @property
    def exit_code(self) -> int:
        """0 when every task has a result, 1 when some failed, 3 when the run had to stop before its
        end, and 128 + signal when somebody stopped it.
        """
        if self.signal:
            return 128 + self.signal
        return 3 if self.stopped else int(bool(self.failed))


def score(prepared: RunPlan, out: Path, options: Options) -> Summary:
    """Fold and store everything that has no result in `out` yet.

    Raises ValueError when it cannot begin: no Ray answers, no device is free, or `out` cannot be
    written.
    """
    options = replace(options, address=check_address(options.address))
    hardware, num_cpus = choose_hardware(prepared.config, options)
    with StopSignals() as signals:
        store = Store.open(out, prepared.info(hardware.name))
        run = Run(prepared, store, hardware, options, signals)
        status = "interrupted"
        try:
            summary = run.score(num_cpus)
            if summary.is_complete:
                status = "finished"
        finally:
            run.kill_groups()
            run.settle()
            is_closed = store.close(status)
            run.disconnect()
        if not summary.is_complete:  # a signal may have come since
            summary = replace(summary, signal=signals.number)
    if is_closed or not summary.is_complete:
        return summary
    return replace(summary, stopped=f"{out}: the end of the run could not be recorded")


class Run:
    """One invocation on a folder: what is left to do, Ray, and how it ended."""

    def __init__(
        self,
        prepared: RunPlan,
        store: Store,
        hardware: Hardware,
        options: Options,
        signals: StopSignals,
    ) -> None:
        self.prepared = prepared
        self.store = store
        self.hardware = hardware
        self.options = options
        self.signals = signals
        self.connection: RayConnection | None = None
        self.driver: Driver | None = None

    def score(self, num_cpus: int) -> Summary:
        """Fold what has no result; `num_cpus` are those that a local Ray shall offer."""
        tasks = self.prepared.work.tasks
        invalid = self.prepared.work.invalid
        num_done = 0
        stopped = ""
        ray_lost = False
        try:
            self.store.mark_stale(
                self.prepared.present, keep=self.prepared.config.run.stale == "keep"
            )
            sync_invalid(self.store, invalid, self.prepared.made)
            outcomes = self.store.outcomes()
            left = [task for task in tasks if outcomes.get(task.key) != "done"]
            num_done = len(tasks) - len(left)
            if num_done:
                place = printable(str(self.store.root))
                print(
                    f"{place}: {num_done} of {len(tasks)} complexes are done already",
                    file=sys.stderr,
                )
            if left and not self.signals.number:
                stopped = self._fold(left, num_cpus)
        except RayLostError as error:
            stopped = str(error)
            ray_lost = self.connection is not None and self.connection.is_local
        except SystemExit:  # how `ray.init` ends a process that gets SIGTERM meanwhile
            if not self.signals.number:
                raise
        except OSError as error:  # of the disk, or of a folder that somebody has taken away
            where = error.filename or self.store.root
            stopped = (
                f"{where}: {describe_error(error)}; the run resumes with the same command "
                "once that is mended"
            )
        ended = list(self.driver.scheduler.outcomes.values()) if self.driver else []
        failed = tuple(outcome for outcome in ended if isinstance(outcome, Failed))
        num_done += len(ended) - len(failed)
        return Summary(num_done, failed, invalid, self.signals.number, stopped, ray_lost)

    def _fold(self, tasks: Sequence[Task], num_cpus: int) -> str:
        """Fold tasks; why that could not be finished, empty when it was."""
        self.connection = RayConnection(self.options.address, num_cpus, self.options.verbose)
        self.signals.install()
        self.driver = Driver(
            self.prepared,
            tasks,
            self.store,
            self.hardware,
            self.options,
            self.connection,
            self.signals,
        )
        self.driver.run()
        return self.driver.stopped

    def kill_groups(self) -> None:
        """End all groups without waiting for them."""
        if self.driver:
            for group in self.driver.groups.values():
                group.kill()

    def settle(self) -> None:
        """Store the attempts that ended, if that is still possible."""
        if self.driver:
            try:
                self.driver.settle()
            except OSError as error:
                print(
                    printable(f"foldcp: {self.store.root}: {describe_error(error)}"),
                    file=sys.stderr,
                )

    def disconnect(self) -> None:
        """Leave Ray, or end the one that was started for this process."""
        if self.connection:
            self.connection.close()


def choose_hardware(config: RunConfig, options: Options) -> tuple[Hardware, int]:
    """The hardware to reckon with, and the CPUs that a local Ray shall offer."""
    num_ranks = cpu_ranks(config)
    num_cpus = max(os.cpu_count() or 1, num_ranks)
    if options.hardware:
        return load_hardware(options.hardware), num_cpus
    if torch.cuda.is_available():
        return gpu_hardware(), num_cpus
    if options.address:
        raise ValueError(
            "--hardware is missing: this machine has no GPU to tell what those of the cluster are"
        )
    return local_hardware(num_ranks), num_cpus


def slots(
    nodes: Sequence[Node], hardware: Hardware, config: RunConfig, limit: int
) -> dict[str, int]:
    """Ranks that each node takes, as `free_slots`. Raises ValueError when there are none."""
    found = free_slots(nodes, hardware, config, limit)
    if not found:
        raise ValueError(
            f"no node of the cluster has a {hardware.device} device free for {hardware.name}"
        )
    return found


def free_slots(
    nodes: Sequence[Node], hardware: Hardware, config: RunConfig, limit: int
) -> dict[str, int]:
    """Ranks that each node takes: its GPUs, or CPUs where the hardware is one; at most `limit`
    in all, 0 for all.
    """
    found: dict[str, int] = {}
    for node in nodes:
        count = node.gpus if hardware.device == "cuda" else min(node.cpus, cpu_ranks(config))
        count = min(count, limit - sum(found.values())) if limit else count
        if count:
            found[node.id] = count
    return found


def lost_before(store: Store) -> set[str]:
    """Keys of complexes that lost a group in an earlier run on the folder."""
    attempts = read_table(store.root, "attempts").select(["key", "outcome"]).to_pylist()
    return {row["key"] for row in attempts if row["outcome"] in ("worker_died", "timeout", "error")}


class Driver:
    """Carries out what the scheduler decides and tells it what happened."""

    def __init__(
        self,
        prepared: RunPlan,
        tasks: Sequence[Task],
        store: Store,
        hardware: Hardware,
        options: Options,
        connection: RayConnection,
        signals: StopSignals,
    ) -> None:
        self.prepared = prepared
        self.store = store
        self.options = options
        self.connection = connection
        self.signals = signals
        self.nodes = {node.id: node for node in alive_nodes()}
        places = slots(list(self.nodes.values()), hardware, prepared.config, options.gpus)
        self.costs = Costs(hardware, prepared.config, prepared.architecture)
        self.scheduler = Scheduler(
            tasks, self.costs, places, prepared.config.run, lost_before(store)
        )
        most = max(places.values())
        threads = max(1, (os.cpu_count() or 1) // most)
        precision = self.costs.precisions()[0]
        self.recipe = WorkerConfig(
            prepared.sources.checkpoint,
            prepared.made.checkpoint,
            precision,
            prepared.config,
            threads,
        )
        self.groups: dict[int, WorkerGroupHandle] = {}
        self.stopping: dict[int, WorkerGroupHandle] = {}
        self.pending: dict[Any, int] = {}
        self.ahead: dict[tuple[str, int], Any] = {}  # by task and depth of its alignment
        self.measured: dict[tuple[str, int], Answer] = {}
        self.gpus: dict[int, list[tuple[str, str]]] = {}  # (node, GPU) of each rank of a group
        self.told: set[str] = set()  # why groups did not start
        self.num_attempts = self.num_outcomes = self.num_failed = 0
        self.began = datetime.now(UTC)
        self.looked = 0.0
        self.zero = time.monotonic()
        self.num_tasks = len(tasks)
        self.total = self.scheduler.work_left(0.0)

    def run(self) -> None:
        """Work until every task has an outcome, a signal comes, or the run cannot go on."""
        bar = tqdm(
            total=self.total,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=self.total == 0,
        )
        with bar:
            while not self.scheduler.is_over and not self.signals.number:
                self.connection.check()
                self._step()
                self._show(bar)
            bar.refresh()

    @property
    def stopped(self) -> str:
        """Why the run cannot go on, empty as long as it can; nodes by the names of their
        machines.
        """
        reason = self.scheduler.stopped
        for node in self.nodes.values():
            reason = reason.replace(node.id, node.host)
        return reason

    def _now(self) -> float:
        return time.monotonic() - self.zero

    def _step(self) -> None:
        self._hear_ready()  # what came while a result was stored has not hung
        self._do(self.scheduler.decide(self._now()))
        self._look_ahead()
        wait = min(TICK, max(0.0, self.scheduler.next_deadline(self._now()) - self._now()))
        if self.pending:
            self._hear_ready(TICK / 5 if self.stopping else wait)
        else:
            time.sleep(TICK / 5)
        for number, group in list(self.stopping.items()):
            if group.is_gone():
                del self.stopping[number]
                self.scheduler.freed(number)
        if self._now() - self.looked > NODE_TICK:
            self._look_at_nodes()
        self.settle()

    def _hear_ready(self, timeout: float = 0.0) -> None:
        """Hear all groups that have answered; when none has, wait for one for so many seconds."""
        ready, _ = (
            ray.wait(list(self.pending), num_returns=len(self.pending), timeout=0)
            if self.pending
            else ([], [])
        )
        if not ready and timeout:
            ready, _ = ray.wait(list(self.pending), timeout=timeout)
        for ref in ready:
            self._hear(self.pending.pop(ref), ref)

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._start(action)
            elif isinstance(action, Fold):
                ahead = self.ahead.pop((action.task.key, action.setup.max_rows), None)
                ref = self.groups[action.group].fold(action.task.complex, action.setup, ahead)
                self.pending[ref] = action.group
            elif isinstance(action, Stop):
                group = self.groups.pop(action.group)
                group.stop()
                self.stopping[action.group] = group

    def _look_ahead(self) -> None:
        """Have the features of what comes next made while the groups fold; forget those of what
        does not come.
        """
        ahead = {}
        for task, setup in self.scheduler.next_jobs():
            if task.num_tokens <= AHEAD_TOKENS and self.costs.seconds(task, setup) >= AHEAD_SECONDS:
                key = task.key, setup.max_rows
                ahead[key] = self.ahead.get(key) or prefetch_features(
                    task.complex, self.prepared.config, setup
                )
        self.ahead = ahead

    def _start(self, action: Start) -> None:
        node = self.nodes[action.placement[0][0]]
        hardware = self.costs.hardware
        # Some nodes have fewer CPUs than GPUs; on a CPU a rank is a CPU.
        per_rank = (
            1.0 if hardware.device == "cpu" else min(1.0, 0.5 * node.cpus / max(1, node.gpus))
        )
        name = f"foldcp-{self.store.run_id}-{action.group}"
        group = WorkerGroupHandle(name, action.placement, self.recipe, hardware.device, per_rank)
        self.groups[action.group] = group
        self.pending[group.start(self.prepared.config.run.start_deadline)] = action.group

    def _hear(self, number: int, ref: Any) -> None:
        """What a group says, unless it was given up meanwhile."""
        answer = hear(ref, f"group {number}")
        if number not in self.groups:
            return
        if answer["outcome"] == "done":
            # Ray ends a process that asks a dead daemon for an object, and a signal may have been
            # for the daemons, too.
            self.connection.check()
            if self.signals.number:
                return
            answer = fetch_prediction(answer, f"group {number}")
        if answer.get("trace") and self.options.verbose:
            print(answer["trace"], file=sys.stderr)
        outcome = answer["outcome"]
        if outcome == "ready":
            self.gpus[number] = [place for place in answer["places"] if place[1]]
            self.scheduler.ready(number, self._now())
        elif outcome == "done":
            self._keep(number, answer)
        else:
            if (
                outcome != "invalid"
            ):  # whose fault it is depends on whether its nodes are still there
                self._look_at_nodes()
            if self.scheduler.groups[number].state == "starting":
                if outcome == "invalid":  # the weights, which all groups load
                    return self.scheduler.stop(answer["reason"])
                self._tell_start(number, answer["reason"])
            failure = Failure(
                outcome,
                answer["reason"],
                answer.get("node", ""),
                answer.get("killed", False),
            )
            self._do(self.scheduler.failed(number, failure, self._now()))

    def _tell_start(self, number: int, reason: str) -> None:
        """Print why a group did not start, each reason once: until one starts there is nothing
        else to see.
        """
        node = self.nodes[self.scheduler.groups[number].placement[0][0]]
        if reason not in self.told:
            self.told.add(reason)
            tqdm.write(
                printable(f"a group did not start on {node.host}: {reason}"),
                file=sys.stderr,
            )

    def _keep(self, number: int, answer: Answer) -> None:
        """Store a result; one that cannot be made into rows and files is a failed complex, and
        the run goes on.
        """
        job = self.scheduler.groups[number].job
        assert job is not None
        setup = job.setup
        config = self.prepared.config
        started = time.perf_counter()
        task = replace(job.task, msa_depth=answer["msa_depth"])
        made = replace(
            self.prepared.made,
            seed=config.model.seed,
            num_ranks=setup.num_ranks,
            precision=setup.precision,
            max_rows=setup.max_rows,
        )
        prediction = answer.pop("prediction")
        layout = answer.pop("layout")
        try:
            rows = result_rows(task, layout, prediction, made)
            self.store.put(
                task.key, rows, result_files(task, layout, prediction, made, config.write)
            )
        except Exception as error:
            if isinstance(error, OSError) and is_disk_failure(error):
                raise  # it would fail every complex; the run ends, and can go on later
            reason = f"its result cannot be stored: {type(error).__name__}: {error}"
            self._do(
                self.scheduler.failed(
                    number, Failure("invalid", " ".join(reason.split())), self._now()
                )
            )
            return
        answer["seconds"]["write"] = time.perf_counter() - started
        self.measured[job.task.key, job.attempts] = answer
        self.scheduler.finished(number, self._now())
        self.settle()

    def settle(self) -> None:
        """Store the attempts that ended and the tasks that failed since the last time."""
        for attempt in self.scheduler.attempts[self.num_attempts :]:
            self.num_attempts += 1
            answer = self.measured.pop((attempt.task.key, attempt.number), {})
            row = attempt_row(
                attempt,
                self.began + timedelta(seconds=attempt.started),
                self._where(attempt),
                self.prepared.config.model.samples,
                self.costs.bytes(attempt.task, attempt.setup),
                answer.get("seconds"),
                answer.get("peak_bytes"),
            )
            self.store.put_attempt(row)
        for outcome in itertools.islice(
            list(self.scheduler.outcomes.values()), self.num_outcomes, None
        ):
            self.num_outcomes += 1
            if isinstance(outcome, Failed):
                self.num_failed += 1
                self.store.put(
                    outcome.task.key,
                    failed_rows(outcome.task, outcome.reason, self.prepared.made),
                )
                tqdm.write(printable(f"{outcome.task.name}: {outcome.reason}"), file=sys.stderr)

    def _where(self, attempt: Attempt) -> str:
        """The GPUs of an attempt as node:index; node:count for CPU ranks and for a group that
        never came up.
        """
        named = self.gpus.get(attempt.group) or [
            (node, str(count)) for node, count in attempt.placement
        ]
        return ",".join(f"{self.nodes[node].host}:{what}" for node, what in named)

    def _look_at_nodes(self) -> None:
        """Tell the scheduler which nodes have gone and which have come."""
        self.looked = self._now()
        self.connection.check()
        alive = {node.id: node for node in alive_nodes()}
        for node in set(self.scheduler.cluster.nodes) - set(alive):
            self._do(
                self.scheduler.lose_node(node, f"node {self.nodes[node].host} is gone", self._now())
            )
        new = [node for node in alive.values() if node.id not in self.nodes]
        if not new:
            return
        self.nodes |= {node.id: node for node in new}
        room = self.options.gpus - self.scheduler.cluster.num_gpus if self.options.gpus else 0
        if self.options.gpus and room <= 0:
            return
        for node, count in free_slots(new, self.costs.hardware, self.prepared.config, room).items():
            self.scheduler.add_node(node, count)

    def _show(self, bar: tqdm) -> None:
        left = self.scheduler.work_left(self._now())
        seconds = left * self.scheduler.pace / max(1, self.scheduler.cluster.num_gpus)
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        starting = sum(group.state == "starting" for group in self.scheduler.groups.values())
        groups = f", {starting} groups starting" if starting else ""
        bar.set_description_str(
            f"{self.num_outcomes} of {self.num_tasks} complexes{failed}, "
            f"{tqdm.format_interval(seconds)} left{groups}",
            refresh=False,
        )
        bar.update(max(0.0, self.total - left) - bar.n)
