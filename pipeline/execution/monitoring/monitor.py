"""Monitor of a run: its status, its log and its metrics, from what the scheduler knows."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from foldcp.pipeline.execution.monitoring.event_log import EventLog
from foldcp.pipeline.execution.monitoring.progress_actor import (
    FoldProgress,
    group_name,
)
from foldcp.pipeline.execution.monitoring.prometheus import Metrics
from foldcp.pipeline.execution.monitoring.run_status import GroupStatus, RunStatus, write_status
from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.execution.recording.recorder import outcomes_after
from foldcp.pipeline.inputs.tasks import Failed
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.types import (
    Action,
    Attempt,
    BatchMember,
    Failure,
    Fold,
    FoldStep,
    GroupState,
    Start,
)

STATUS_SECONDS = 2.0  # between two updates of the status
MAX_REASONS = 20  # of failures in the status


class Monitor:
    """What others see of a run in progress.

    Times are seconds on the driver's clock. Every method raises OSError when the disk fails.
    """

    def __init__(
        self,
        root: Path,
        run_id: str,
        scheduler: Scheduler,
        nodes: Mapping[str, Node],
        num_tasks: int,
        num_done_before: int,
        num_invalid: int,
    ) -> None:
        """`nodes` are all nodes so far by id, `num_tasks` complexes are to be folded,
        `num_done_before` had a result already.
        """
        self.progress = FoldProgress()
        self._root = root
        self._run_id = run_id
        self._scheduler = scheduler
        self._nodes = nodes
        self._num_tasks = num_tasks
        self._num_done_before = num_done_before
        self._num_invalid = num_invalid
        self._log = EventLog(root, run_id)
        self._metrics = Metrics(run_id)
        self._started = datetime.now(UTC)
        self._written = -STATUS_SECONDS
        self._num_attempts = 0
        self._num_outcomes = 0
        self._num_failed = 0
        self._reasons: Counter[str] = Counter()
        self._fold_gpu_seconds = 0.0  # of attempts that have ended
        self._gpu_seconds = 0.0  # of the GPUs of the cluster
        self._last_update = 0.0
        gpus = {node.host: scheduler.cluster.nodes.get(node.id, 0) for node in nodes.values()}
        self._log.write("run_started", complexes=num_tasks, done=num_done_before, gpus=gpus)

    def acted(self, action: Action) -> None:
        """Log an action of the scheduler."""
        if isinstance(action, Start):
            self._log.write("group_started", group=action.group, gpus=self._gpus(action.placement))
        elif isinstance(action, Fold):
            for member in (BatchMember(action.task, action.number), *action.others):
                self._log.write(
                    "fold_started",
                    group=action.group,
                    complex=member.task.name,
                    key=member.task.key,
                    tokens=member.task.num_tokens,
                    ranks=action.shape.num_ranks,
                    precision=action.shape.precision,
                    attempt=member.number,
                    batch=action.shape.batch,
                )
        else:
            self._log.write("group_stopped", group=action.group, reason=action.reason)

    def failed(self, group: int, failure: Failure) -> None:
        """Log the failure of a group's start or fold."""
        self._log.write("failure", group=group, kind=failure.kind, reason=failure.reason)

    def nodes_changed(self, event: str, node: str) -> None:
        """Log that a node has joined or is gone."""
        self._log.write(event, node=self._nodes[node].host)

    def new_steps(self) -> list[tuple[int, FoldStep]]:
        """The last step of each group that folds, if that has just become known."""
        if not self.progress.update():
            return []
        busy = [group.id for group in self._scheduler.groups.values() if group.state == "busy"]
        steps = ((group, self.progress.step(group_name(self._run_id, group))) for group in busy)
        return [(group, step) for group, step in steps if step is not None]

    def update(self, now: float, force: bool = False) -> None:
        """Log and count what has ended, and write the status every few seconds."""
        num_gpus = self._scheduler.cluster.num_gpus
        self._gpu_seconds += num_gpus * (now - self._last_update)
        self._last_update = now
        for attempt in self._scheduler.attempts[self._num_attempts :]:
            self._num_attempts += 1
            self._count(attempt)
        if now - self._written < STATUS_SECONDS and not force:
            return
        self._written = now
        for outcome in outcomes_after(self._num_outcomes, self._scheduler.outcomes):
            self._num_outcomes += 1
            if isinstance(outcome, Failed):
                self._num_failed += 1
                self._reasons[outcome.reason] += 1
        status = self.status(now)
        write_status(self._root, status)
        self._metrics.set_status(status)

    def close(self, now: float) -> None:
        """Write the last status and end the log."""
        self.update(now, force=True)
        self._log.write("run_ended", stopped=self._scheduler.stopped)

    def status(self, now: float) -> RunStatus:
        """The status of the run."""
        scheduler = self._scheduler
        groups = tuple(self._group(group, now) for group in scheduler.groups.values())
        num_outcomes = len(scheduler.outcomes)
        num_gpus = scheduler.cluster.num_gpus
        work_left = scheduler.work_left(now) * scheduler.slowdown
        folding = [group for group in groups if group.state == "folding"]
        gpu_seconds = self._fold_gpu_seconds
        gpu_seconds += sum(group.num_gpus * group.seconds for group in folding)
        return RunStatus(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=scheduler.costs.hardware.device,
            started=self._started.isoformat(timespec="seconds"),
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
            num_complexes=self._num_done_before + self._num_tasks,
            num_done=self._num_done_before + num_outcomes - self._num_failed,
            num_failed=self._num_failed,
            num_invalid=self._num_invalid,
            failures=dict(self._reasons.most_common(MAX_REASONS)),
            num_gpus=num_gpus,
            num_busy_gpus=sum(group.num_gpus for group in folding),
            gpu_hours=gpu_seconds / 3600,
            gpu_hours_left=work_left / 3600,
            use=gpu_seconds / self._gpu_seconds if self._gpu_seconds else 0.0,
            seconds_left=work_left / max(1, num_gpus),
            groups=groups,
        )

    def _group(self, group: GroupState, now: float) -> GroupStatus:
        """The status of a group; a step counts if it is one of the present fold."""
        seconds = now - group.since
        queued = group.queued
        step = (
            self.progress.step(group_name(self._run_id, group.id))
            if group.state == "busy"
            else None
        )
        if step is None or step.seconds > seconds:
            step = FoldStep("", 0, 0, seconds)
        return GroupStatus(
            group=group.id,
            gpus=self._gpus(group.placement),
            num_gpus=group.size,
            state="folding" if group.state == "busy" else group.state,
            complex=queued.task.name if queued else "",
            num_tokens=queued.task.num_tokens if queued else 0,
            batch=len(group.members) if group.state == "busy" else 1,
            seconds=seconds,
            predicted_seconds=group.expected_end - group.since if group.state == "busy" else 0.0,
            stage=step.stage,
            step=step.done,
            num_steps=step.total,
            seconds_since_step=step.seconds,
        )

    def _count(self, attempt: Attempt) -> None:
        batch = attempt.shape.batch  # of whose time each has its share
        seconds = (attempt.ended - attempt.started) / batch
        self._fold_gpu_seconds += attempt.gpu_seconds
        self._metrics.count_attempt(attempt)
        self._log.write(
            "attempt_ended",
            group=attempt.group,
            complex=attempt.task.name,
            key=attempt.task.key,
            attempt=attempt.number,
            outcome=attempt.outcome,
            reason=attempt.reason,
            seconds=round(seconds, 3),
            predicted_seconds=round(attempt.predicted / batch, 3),
            batch=batch,
        )

    def _gpus(self, placement: Placement) -> str:
        """host:count of every node."""
        return ", ".join(f"{self._nodes[node].host}:{count}" for node, count in placement)
