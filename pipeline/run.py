"""The run: tasks without a result -> scheduler -> groups -> store, until nothing is left or somebody stops it."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.costs import Costs, Hardware, load_hardware
from foldcp.pipeline.disk import is_disk_failure
from foldcp.pipeline.group import Answer, Group, Node, alive_nodes, hear, make_ahead, start_ray, with_heavy
from foldcp.pipeline.jobs import Action, Attempt, Fold, Recipe, Start, Stop
from foldcp.pipeline.prepare import Prepared, cpu_ranks, gpu_hardware, local_hardware
from foldcp.pipeline.records import attempt_row, failed_rows, files_of, rows_of, sync_unbuildable
from foldcp.pipeline.scheduler import Scheduler
from foldcp.pipeline.store import Store
from foldcp.pipeline.tasks import Failed, Task

import ray  # isort: skip  after group.py, which sets its environment

TICK = 0.5  # seconds at most between two looks at deadlines and signals
AHEAD_TOKENS = 2048  # of larger complexes the features take little of the time, and much memory
NODE_TICK = 5.0  # seconds between two looks at the nodes


@dataclass(frozen=True, slots=True)
class Options:
    """Where to run: a cluster's address ("" starts one), how many GPUs (0: all), the hardware file ("" looks)."""

    address: str = ""
    gpus: int = 0
    hardware: str = ""
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    num_done: int
    failed: tuple[Failed, ...]
    num_unbuildable: int
    signal: int = 0

    @property
    def exit_code(self) -> int:
        """0 when every task has a result, 1 when some failed, 128 + signal when somebody stopped the run."""
        return 128 + self.signal if self.signal else int(bool(self.failed))


def score(prepared: Prepared, out: Path, options: Options) -> Summary:
    """Fold and store everything that has no result in `out` yet."""
    hardware, num_slots = choose_hardware(prepared.config, options)
    store, status = Store.open(out, prepared.info(hardware.name)), "interrupted"
    try:
        summary = _score(prepared, store, hardware, num_slots, options)
        status = "interrupted" if summary.signal else "finished"
    finally:
        store.close(status)
    return summary


def _score(prepared: Prepared, store: Store, hardware: Hardware, num_slots: int, options: Options) -> Summary:
    tasks, unbuildable = prepared.work.tasks, prepared.work.unbuildable
    store.mark_stale(prepared.present, keep=prepared.config.run.stale == "keep")
    sync_unbuildable(store, unbuildable, prepared.made)
    outcomes = store.outcomes()
    left = [task for task in tasks if outcomes.get(task.key) != "done"]
    num_done = len(tasks) - len(left)
    if num_done:
        print(f"{store.root}: {num_done} of {len(tasks)} complexes are done already", file=sys.stderr)
    if not left:
        return Summary(num_done, (), len(unbuildable))
    start_ray(options.address, num_slots, options.verbose)
    try:
        driver = Driver(prepared, left, store, hardware, options)
        number = driver.run()
    finally:
        ray.shutdown()
    failed = tuple(outcome for outcome in driver.scheduler.outcomes.values() if isinstance(outcome, Failed))
    return Summary(num_done + len(driver.scheduler.outcomes) - len(failed), failed, len(unbuildable), number)


def choose_hardware(config: RunConfig, options: Options) -> tuple[Hardware, int]:
    """The hardware to reckon with, and the CPUs that a local Ray shall offer."""
    num_ranks = cpu_ranks(config)
    num_cpus = max(os.cpu_count() or 1, num_ranks)
    if options.hardware:
        return load_hardware(options.hardware), num_cpus
    if torch.cuda.is_available():
        return gpu_hardware(), num_cpus
    if options.address:
        raise ValueError("--hardware is missing: this machine has no GPU to tell what those of the cluster are")
    return local_hardware(num_ranks), num_cpus


def slots(nodes: Sequence[Node], hardware: Hardware, config: RunConfig, limit: int) -> dict[str, int]:
    """Ranks that each node takes: its GPUs, or CPUs where the hardware is one; at most `limit` in all.

    Raises ValueError when there are none.
    """
    found: dict[str, int] = {}
    for node in nodes:
        count = node.gpus if hardware.device == "cuda" else min(node.cpus, cpu_ranks(config))
        count = min(count, limit - sum(found.values())) if limit else count
        if count:
            found[node.id] = count
    if not found:
        raise ValueError(f"no node of the cluster has a {hardware.device} device free for {hardware.name}")
    return found


class Driver:
    """Carries out what the scheduler decides and tells it what happened."""

    def __init__(
        self, prepared: Prepared, tasks: Sequence[Task], store: Store, hardware: Hardware, options: Options
    ) -> None:
        self.prepared, self.store, self.options = prepared, store, options
        self.nodes = {node.id: node for node in alive_nodes()}
        places = slots(list(self.nodes.values()), hardware, prepared.config, options.gpus)
        self.costs = Costs(hardware, prepared.config, prepared.architecture)
        self.scheduler = Scheduler(tasks, self.costs, places, prepared.config.run)
        most = max(places.values())
        threads = max(1, (os.cpu_count() or 1) // most)
        precision = self.costs.precisions()[0]
        self.recipe = Recipe(prepared.sources.checkpoint, precision, prepared.config, threads)
        self.groups: dict[int, Group] = {}
        self.stopping: dict[int, Group] = {}
        self.pending: dict[Any, int] = {}
        self.ahead: dict[tuple[str, int], Any] = {}  # by task and depth of its alignment
        self.measured: dict[tuple[str, int], Answer] = {}
        self.gpus: dict[int, list[tuple[str, str]]] = {}  # (node, GPU) of each rank of a group
        self.num_attempts = self.num_outcomes = self.num_failed = 0
        self.began, self.looked, self.signal = datetime.now(UTC), 0.0, 0
        self.zero = time.monotonic()
        self.num_tasks, self.total = len(tasks), self.scheduler.work_left(0.0)

    def run(self) -> int:
        """Work until every task has an outcome, or a signal ends it; the signal's number, 0 without."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        bar = tqdm(
            total=self.total,
            bar_format="{percentage:3.0f}%|{bar}| {desc}",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=self.total == 0,
        )
        try:
            while not self.scheduler.is_over and not self.signal:
                self._step()
                self._show(bar)
            bar.refresh()
        finally:
            bar.close()
            for group in self.groups.values():
                group.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.signal

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal:  # asked twice
            raise KeyboardInterrupt
        self.signal = number

    def _now(self) -> float:
        return time.monotonic() - self.zero

    def _step(self) -> None:
        self._do(self.scheduler.decide(self._now()))
        self._look_ahead()
        wait = min(TICK, max(0.0, self.scheduler.next_deadline() - self._now()))
        done: list[Any] = []
        if self.pending:
            done, _ = ray.wait(list(self.pending), num_returns=len(self.pending), timeout=0)
            if not done:
                done, _ = ray.wait(list(self.pending), timeout=TICK / 5 if self.stopping else wait)
        else:
            time.sleep(TICK / 5)
        for ref in done:
            self._hear(self.pending.pop(ref), ref)
        for number, group in list(self.stopping.items()):
            if group.is_gone():
                del self.stopping[number]
                self.scheduler.freed(number)
        if self._now() - self.looked > NODE_TICK:
            self._look_at_nodes()
        self._settle()

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
        """Have the features of what comes next made while the groups fold; forget those of what does not come."""
        ahead = {}
        for task, setup in self.scheduler.upcoming():
            if task.num_tokens <= AHEAD_TOKENS:
                key = task.key, setup.max_rows
                ahead[key] = self.ahead.get(key) or make_ahead(task.complex, self.prepared.config, setup)
        self.ahead = ahead

    def _start(self, action: Start) -> None:
        node = self.nodes[action.placement[0][0]]
        hardware = self.costs.hardware
        # Some nodes have fewer CPUs than GPUs; on a CPU a rank is a CPU.
        per_rank = 1.0 if hardware.device == "cpu" else min(1.0, 0.5 * node.cpus / max(1, node.gpus))
        name = f"foldcp-{self.store.run_id}-{action.group}"
        group = Group(name, action.placement, self.recipe, hardware.device, per_rank)
        self.groups[action.group] = group
        self.pending[group.start(self.prepared.config.run.start_deadline)] = action.group

    def _hear(self, number: int, ref: Any) -> None:
        """What a group says, unless it was given up meanwhile."""
        answer = hear(ref, f"group {number}")
        if number not in self.groups:
            return
        if answer["outcome"] == "done":
            answer = with_heavy(answer, f"group {number}")
        if answer.get("trace") and self.options.verbose:
            print(answer["trace"], file=sys.stderr)
        outcome, now = answer["outcome"], self._now()
        if outcome == "ready":
            self.gpus[number] = [place for place in answer["places"] if place[1]]
            self.scheduler.ready(number)
        elif outcome == "done":
            self._keep(number, answer)
        else:
            self._do(self.scheduler.failed(number, outcome, answer["reason"], now))

    def _keep(self, number: int, answer: Answer) -> None:
        """Store a result; one that cannot be made into rows and files is a failed complex, and the run goes on."""
        job = self.scheduler.groups[number].job
        assert job is not None
        setup, config, started = job.setup, self.prepared.config, time.perf_counter()
        task = replace(job.task, msa_depth=answer["msa_depth"])
        made = replace(
            self.prepared.made,
            seed=config.model.seed,
            num_ranks=setup.num_ranks,
            precision=setup.precision,
            max_rows=setup.max_rows,
        )
        prediction, layout = answer.pop("prediction"), answer.pop("layout")
        try:
            rows = rows_of(task, layout, prediction, made)
            self.store.put(task.key, rows, files_of(task, layout, prediction, made, config.write))
        except Exception as error:
            if isinstance(error, OSError) and is_disk_failure(error):
                raise  # it would fail every complex; the run ends, and can go on later
            reason = f"its result cannot be stored: {type(error).__name__}: {error}"
            self._do(self.scheduler.failed(number, "invalid", " ".join(reason.split()), self._now()))
            return
        answer["seconds"]["write"] = time.perf_counter() - started
        self.measured[job.task.key, job.attempts] = answer
        self.scheduler.finished(number, self._now())

    def _settle(self) -> None:
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
            self.store.attempt(row)
        for outcome in itertools.islice(list(self.scheduler.outcomes.values()), self.num_outcomes, None):
            self.num_outcomes += 1
            if isinstance(outcome, Failed):
                self.num_failed += 1
                self.store.put(outcome.task.key, failed_rows(outcome.task, outcome.reason, self.prepared.made))
                tqdm.write(f"{outcome.task.name}: {outcome.reason}", file=sys.stderr)

    def _where(self, attempt: Attempt) -> str:
        """The GPUs of an attempt as node:index; node:count for CPU ranks and for a group that never came up."""
        named = self.gpus.get(attempt.group) or [(node, str(count)) for node, count in attempt.placement]
        return ",".join(f"{self.nodes[node].host}:{what}" for node, what in named)

    def _look_at_nodes(self) -> None:
        self.looked = self._now()
        alive = {node.id for node in alive_nodes()}
        for node in set(self.scheduler.cluster.nodes) - alive:
            self._do(self.scheduler.lose_node(node, f"node {self.nodes[node].host} is gone", self._now()))

    def _show(self, bar: tqdm) -> None:
        left = self.scheduler.work_left(self._now())
        seconds = left * self.scheduler.pace / max(1, self.scheduler.cluster.num_gpus)
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        starting = sum(group.state == "starting" for group in self.scheduler.groups.values())
        groups = f", {starting} groups starting" if starting else ""
        bar.set_description_str(
            f"{self.num_outcomes} of {self.num_tasks} complexes{failed}, {tqdm.format_interval(seconds)} left{groups}",
            refresh=False,
        )
        bar.update(max(0.0, self.total - left) - bar.n)
