"""The driver: an event loop between the scheduler and the worker groups."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from foldcp.pipeline.execution.monitoring.monitor import Monitor
from foldcp.pipeline.execution.monitoring.progress_actor import group_name
from foldcp.pipeline.execution.prefetch import FeaturePrefetcher
from foldcp.pipeline.execution.ray_cluster import (
    RayConnection,
    alive_nodes,
    cpus_per_rank,
    ranks_per_node,
)
from foldcp.pipeline.execution.ray_results import (
    fetch_pae_blocks,
    fetch_prediction,
    result_or_failure,
)
from foldcp.pipeline.execution.recording.recorder import Recorder, outcomes_after
from foldcp.pipeline.execution.recording.result_writer import ResultWriter, unstorable
from foldcp.pipeline.execution.results import (
    BatchResult,
    ComplexResult,
    Ready,
    RemoteFoldResult,
    StagedResult,
)
from foldcp.pipeline.execution.signals import StopSignals
from foldcp.pipeline.execution.trunk_state.files import KeptStates
from foldcp.pipeline.execution.worker_group import WorkerGroupHandle
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.planning.detect_hardware import cpu_ranks
from foldcp.pipeline.planning.run_plan import RunPlan
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.costs.learning import MeasuredFold
from foldcp.pipeline.scheduling.hardware import Hardware
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.types import (
    Action,
    Failure,
    Fold,
    QueuedTask,
    Start,
    Stop,
    WorkerConfig,
)
from foldcp.pipeline.storage.filesystem import is_disk_failure
from foldcp.pipeline.storage.store import Store
from foldcp.printable import printable

import ray  # isort: skip  after ray_cluster.py, which sets its environment

TICK_SECONDS = 0.5  # at most between two checks of deadlines and signals
STOPPING_TICK_SECONDS = 0.1  # while groups are stopping, whose GPUs are soon free
ROOM_SHARE = 0.5  # of `run.start_deadline`, in which Ray must give a group its GPUs
NODE_TICK_SECONDS = 5.0  # between two checks of the nodes
BAR_SECONDS = 0.5  # between two updates of the progress bar
BAR_SECONDS_IN_FILE = 30.0  # the same, where stderr is not a terminal


class Driver:
    """Executes what the scheduler decides, and tells it what happened."""

    def __init__(
        self,
        plan: RunPlan,
        tasks: Sequence[Task],
        store: Store,
        hardware: Hardware,
        connection: RayConnection,
        signals: StopSignals,
        max_ranks: int,
        suspects: set[str],
        alone: set[str],
        history: Sequence[MeasuredFold],
        verbose: bool,
    ) -> None:
        """Connect to the nodes and queue the tasks.

        `max_ranks` limits the ranks of the cluster (0: no limit), `suspects`, `alone` and `history`
        are those of `Scheduler`, `verbose` prints tracebacks of workers. Raises ValueError when no
        node has a device free.
        """
        self.plan = plan
        self.connection = connection
        self.signals = signals
        self.max_ranks = max_ranks
        self.verbose = verbose
        self.run_id = store.run_id
        self.store = store
        self.nodes = {node.id: node for node in alive_nodes()}
        ranks = ranks_per_node(
            list(self.nodes.values()), hardware.device, cpu_ranks(plan.config), max_ranks
        )
        if not ranks:
            raise ValueError(
                f"no node of the cluster has a {hardware.device} device free for {hardware.name}"
            )
        self.used_nodes = set(ranks)  # that the scheduler has or had
        hardware = replace(hardware, gpus_per_node=max(ranks.values()))
        self.costs = CostModel(hardware, plan.config, plan.architecture)
        self.states = KeptStates(store.root.resolve())
        self.states.keep_only({task.key for task in tasks})
        kept_passes = self.states.num_passes()
        self.scheduler = Scheduler(
            tasks, self.costs, ranks, plan.config.run, suspects, history, kept_passes, alone
        )
        self.worker_config = WorkerConfig(
            checkpoint=plan.input_spec.checkpoint,
            identity=plan.provenance.checkpoint,
            precision=self.costs.precisions()[0],
            config=plan.config,
            num_threads=threads_of_a_rank(max(ranks.values())),
        )
        self.writer = ResultWriter(
            str(store.root.resolve()), store.run_id, plan.config, plan.provenance
        )
        self.staging = self.writer.staging_area("driver")
        self.groups: dict[int, WorkerGroupHandle] = {}
        self.stopping: dict[int, WorkerGroupHandle] = {}
        self.pending: dict[Any, int] = {}  # reference to a result -> its group
        self.prefetcher = FeaturePrefetcher(plan.config, self.costs)
        self.start_failures: set[str] = set()  # reasons that were printed
        self.disk_error: OSError | None = None  # which kept a result from being staged
        self.kernels = ""  # of the first group that started
        self.nodes_checked_at = 0.0
        self.recorder = Recorder(store, plan, self.costs, self.nodes, datetime.now(UTC))
        self.clock_zero = time.monotonic()
        self.num_tasks = len(tasks)
        self.monitor = Monitor(
            store.root,
            store.run_id,
            self.scheduler,
            self.nodes,
            num_tasks=len(tasks),
            num_done_before=len(plan.task_list.tasks) - len(tasks),
            num_invalid=len(plan.task_list.invalid),
        )
        self.total_work = self.scheduler.work_left(0.0)

    def run(self) -> None:
        """Run until every task has an outcome, a signal comes, or the run cannot continue."""
        interval = BAR_SECONDS if sys.stderr.isatty() else BAR_SECONDS_IN_FILE
        bar = tqdm(
            total=self.total_work,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",
            mininterval=interval,
            disable=self.total_work == 0,
        )
        with bar:
            self.record()  # what no group can hold is told before anything starts
            while not self.scheduler.is_over and not self.signals.number:
                self.connection.check()
                self._step()
                self._update_progress(bar)
            bar.refresh()
        self.monitor.close(self._now())

    @property
    def stopped(self) -> str:
        """The reason why the run cannot continue, with host names of nodes; empty while it can."""
        reason = self.scheduler.stopped
        for node in self.nodes.values():
            reason = reason.replace(node.id, node.host)
        return reason

    def record(self) -> None:
        """Store the attempts that have ended and the tasks that have failed."""
        for outcome in outcomes_after(self.recorder.num_outcomes, self.scheduler.outcomes):
            self.states.remove(outcome.task.key)
        self.recorder.record(self.scheduler.attempts, self.scheduler.outcomes)

    def _now(self) -> float:
        return time.monotonic() - self.clock_zero

    def _step(self) -> None:
        """One round of the event loop."""
        # First, as what came while a result was stored is not overdue.
        self._handle_results()
        self._execute(self.scheduler.decide(self._now()))
        nodes = self.scheduler.cluster.nodes
        store_bytes = sum(self.nodes[node].store_bytes for node in nodes)
        self.prefetcher.update(self.scheduler.next_tasks(), nodes, store_bytes)
        if self.pending:
            seconds_left = max(0.0, self.scheduler.next_deadline(self._now()) - self._now())
            timeout = min(TICK_SECONDS, seconds_left)
            self._handle_results(STOPPING_TICK_SECONDS if self.stopping else timeout)
        else:
            time.sleep(STOPPING_TICK_SECONDS)
        for number, group in list(self.stopping.items()):
            if group.is_gone():
                del self.stopping[number]
                self.store.clear_staged(group.name)
                self.scheduler.freed(number)
        if self._now() - self.nodes_checked_at > NODE_TICK_SECONDS:
            self._update_nodes()
        for number, step in self.monitor.new_steps():
            self._execute(self.scheduler.progressed(number, step, self._now()))
        self.record()
        self.monitor.update(self._now())
        self.store.merge_when_due()

    def _handle_results(self, timeout: float = 0.0) -> None:
        """Handle all results that are there; when there is none, wait `timeout` seconds for one."""
        if not self.pending:
            return
        refs = list(self.pending)
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready and timeout:
            ready, _ = ray.wait(refs, timeout=timeout)
        numbers = {self.pending.pop(ref): ref for ref in ready}
        results = {
            number: self._fetch(number, ref)
            for number, ref in numbers.items()
            if number in self.groups  # others were stopped meanwhile
        }
        folded = {
            number: _parts(result)
            for number, result in results.items()
            if isinstance(result, StagedResult | RemoteFoldResult | BatchResult)
        }
        self._store_results(folded)
        for number, result in results.items():
            if number not in self.groups:  # stopped now, with another group of its node
                continue
            if isinstance(result, Failure):
                self._on_failure(number, result)
            elif isinstance(result, Ready):
                self.recorder.set_locations(number, result.locations)
                self._print_kernels(result.kernels)
                self.scheduler.ready(number, self._now())

    def _execute(self, actions: Sequence[Action]) -> None:
        """Begin an action of the scheduler."""
        for action in actions:
            self.monitor.acted(action)
            if isinstance(action, Start):
                self._start(action)
            elif isinstance(action, Fold):
                self.pending[self._fold(action)] = action.group
            elif isinstance(action, Stop):
                group = self.groups.pop(action.group)
                group.stop()
                self.stopping[action.group] = group

    def _fold(self, action: Fold) -> Any:
        """Let a group fold; returns a reference to the result."""
        group = self.groups[action.group]
        tasks = [action.task, *(other.task for other in action.others)]
        prefetched = [self.prefetcher.take(task, action.shape) for task in tasks]
        if action.others:
            return group.fold_batch(tasks, action.shape, prefetched)
        folder = str(self.states.folder(action.task.key)) if action.keeps_passes else ""
        return group.fold(action.task, action.shape, action.fallbacks, prefetched[0], folder)

    def _start(self, action: Start) -> None:
        """Start a worker group."""
        first_node, _ = action.placement[0]
        node = self.nodes[first_node]
        device = self.costs.hardware.device
        group = WorkerGroupHandle(
            group_name(self.run_id, action.group),
            action.placement,
            self.worker_config,
            self.writer,
            device,
            cpus_per_rank(node, device),
            self.monitor.progress.actor,
        )
        self.groups[action.group] = group
        room_seconds = ROOM_SHARE * self.plan.config.run.start_deadline
        self.pending[group.start(room_seconds)] = action.group

    def _fetch(self, number: int, ref: Any) -> Ready | ComplexResult | BatchResult | None:
        """The result of a group's start or fold; None if a signal has come.

        What cannot be staged as the disk fails stays as it is.
        """
        name = f"group {number}"
        result = result_or_failure(ref, name)
        parts = _parts(result)
        if not any(isinstance(part, RemoteFoldResult) for part in parts):
            return result
        # Ray ends a process that asks a dead daemon for an object, and a signal may have been sent
        # to the daemons, too.
        self.connection.check()
        if self.signals.number:
            return None
        members = self.scheduler.groups[number].members
        staged: list[ComplexResult] = []
        lost: Failure | None = None  # each of what is lost with it would be waited for
        for queued, part in zip(members, parts, strict=True):
            if isinstance(part, RemoteFoldResult):
                part = lost or self._stage(queued, part, name)
                if isinstance(part, Failure) and part.kind == "worker_died":
                    lost = part
            staged.append(part)
        return BatchResult(tuple(staged)) if isinstance(result, BatchResult) else staged[0]

    def _on_failure(self, number: int, failure: Failure) -> None:
        """Tell the scheduler that a start or a fold failed."""
        failure = _explained(failure)
        self.monitor.failed(number, failure)
        if failure.traceback and self.verbose:
            print(failure.traceback, file=sys.stderr)
        if failure.kind != "invalid":  # the cause depends on whether its nodes are alive
            self._update_nodes()
        if self.scheduler.groups[number].state == "starting":
            if failure.kind == "invalid":  # the weights, which all groups load
                self.scheduler.stop(failure.reason)
                return
            self._print_start_failure(number, failure.reason)
        self._execute(self.scheduler.failed(number, failure, self._now()))

    def _print_kernels(self, kernels: str) -> None:
        """Print and record what the first group computes with."""
        if not self.kernels:
            self.kernels = kernels
            self.recorder.set_kernels(kernels)
            tqdm.write(f"kernels: {kernels}", file=sys.stderr)

    def _print_start_failure(self, number: int, reason: str) -> None:
        """Print why a group did not start, each reason once.

        Until one starts there is no other progress to see.
        """
        if reason in self.start_failures:
            return
        self.start_failures.add(reason)
        first_node, _ = self.scheduler.groups[number].placement[0]
        message = f"a group did not start on {self.nodes[first_node].host}: {reason}"
        tqdm.write(printable(message), file=sys.stderr)

    def _stage(self, queued: QueuedTask, result: RemoteFoldResult, name: str) -> ComplexResult:
        """Fetch a result, and stage it in the place of a rank that could not."""
        prediction = fetch_prediction(result, name)
        if isinstance(prediction, Failure):
            return prediction
        pae_blocks = partial(fetch_pae_blocks, result.pae_refs, name)
        try:
            return self.writer.stage(
                self.staging,
                queued.task,
                queued.shape,
                queued.fallbacks,
                result.stats,
                prediction,
                pae_blocks,
            )
        except OSError as error:
            if is_disk_failure(error):
                self.disk_error = error
                return result
            return unstorable(error)

    def _store_results(self, results: Mapping[int, Sequence[ComplexResult]]) -> None:
        """Store the results of groups. A complex whose result cannot be stored fails, and the run
        continues.

        Raises OSError when the disk fails, after what is staged has been stored.
        """
        members = {number: self.scheduler.groups[number].members for number in results}
        failures = self.recorder.store_results(
            [
                (queued, result)
                for number, of_group in results.items()
                for queued, result in zip(members[number], of_group, strict=True)
                if isinstance(result, StagedResult)
            ]
        )
        if self.disk_error:
            raise self.disk_error
        for number, of_group in results.items():
            for queued, result in zip(members[number], of_group, strict=True):
                if isinstance(result, Failure):
                    failures[queued.task.key] = result
            self._on_results(number, members[number], of_group, failures)

    def _on_results(
        self,
        number: int,
        members: Sequence[QueuedTask],
        results: Sequence[ComplexResult],
        failures: Mapping[str, Failure],
    ) -> None:
        """Tell the scheduler that a group has folded its tasks; `failures` are by key."""
        failed = {
            queued.task.key: _explained(failures[queued.task.key])
            for queued in members
            if queued.task.key in failures
        }
        if failed and len(members) == 1:
            self._on_failure(number, failed[members[0].task.key])
            return
        for failure in failed.values():
            self.monitor.failed(number, failure)
        stages = {} if failed else _stage_seconds(results)
        self._execute(self.scheduler.finished(number, self._now(), stages, failed))

    def _update_nodes(self) -> None:
        """Tell the scheduler which nodes are gone and which have joined."""
        self.nodes_checked_at = self._now()
        self.connection.check()
        alive = {node.id: node for node in alive_nodes()}
        for node in set(self.scheduler.cluster.nodes) - set(alive):
            reason = f"node {self.nodes[node].host} is gone"
            self.monitor.nodes_changed("node_lost", node)
            self._execute(self.scheduler.lose_node(node, reason, self._now()))
        self.nodes.update(alive)
        ranks_left = 0
        if self.max_ranks:
            ranks_left = self.max_ranks - self.scheduler.cluster.num_gpus
            if ranks_left <= 0:
                return
        unused = [node for node in alive.values() if node.id not in self.used_nodes]
        device = self.costs.hardware.device
        ranks = ranks_per_node(unused, device, cpu_ranks(self.plan.config), ranks_left)
        for node, count in ranks.items():
            self.used_nodes.add(node)
            self.scheduler.add_node(node, count, self._now())
            self.monitor.nodes_changed("node_joined", node)

    def _update_progress(self, bar: tqdm) -> None:
        """Show how many complexes have an outcome, and the time left."""
        work_left = self.scheduler.work_left(self._now())
        num_gpus = max(1, self.scheduler.cluster.num_gpus)
        seconds_left = tqdm.format_interval(work_left * self.scheduler.slowdown / num_gpus)
        num_failed = self.recorder.num_failed
        failed = f", {num_failed} failed" if num_failed else ""
        num_starting = sum(group.state == "starting" for group in self.scheduler.groups.values())
        starting = f", {num_starting} groups starting" if num_starting else ""
        bar.set_description_str(
            f"{self.recorder.num_outcomes} of {self.num_tasks} complexes{failed}, "
            f"{seconds_left} left{starting}",
            refresh=False,
        )
        bar.update(max(0.0, self.total_work - work_left) - bar.n)


def _explained(failure: Failure) -> Failure:
    """A failure; that of the node, where a file is missing that the driver's node has."""
    if not failure.missing_file or not Path(failure.missing_file).exists():
        return failure
    reason = f"{failure.reason}, but on the driver's node: all nodes need the input's files"
    return replace(failure, kind="error", reason=reason)


def _parts(result: Any) -> tuple[ComplexResult, ...]:
    """The results of the complexes of a fold, one or several."""
    return result.results if isinstance(result, BatchResult) else (result,)


def _stage_seconds(results: Sequence[ComplexResult]) -> dict[str, float]:
    """The seconds of each stage of a fold, those of all complexes together."""
    total: dict[str, float] = {}
    for result in results:
        if isinstance(result, StagedResult):
            for stage, seconds in result.stats.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
    return total


def threads_of_a_rank(ranks: int) -> int:
    """Threads of each of `ranks` on a node: OMP_NUM_THREADS, or else the node's cores over them."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen):
        return int(chosen)
    return max(1, (os.cpu_count() or 1) // ranks)
