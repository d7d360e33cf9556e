"""Metrics of a run for Prometheus, which every node of a Ray cluster exports."""

from __future__ import annotations

from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.execution.monitoring.run_status import RunStatus
from foldcp.pipeline.scheduling.types import Attempt

import ray  # noqa: F401  isort: skip  after ray_cluster.py, which sets its environment
from ray.util.metrics import Counter, Gauge, Histogram

# Upper ends of the classes of histograms.
SECONDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4]
TOKENS = [2.0**power for power in range(8, 17)]


class Metrics:
    """foldcp_* metrics, with the run as their label; configs/cluster/grafana.json shows them."""

    def __init__(self, run_id: str) -> None:
        label = {"run": run_id}
        self._complexes = Gauge("foldcp_complexes", "complexes by state", ("run", "state"))
        self._gpus = Gauge("foldcp_gpus", "GPUs by state: busy or all", ("run", "state"))
        self._gpu_hours_left = Gauge("foldcp_gpu_hours_left", "predicted GPU-hours left", ("run",))
        self._seconds_left = Gauge("foldcp_seconds_left", "predicted seconds left", ("run",))
        self._attempts = Counter("foldcp_attempts", "attempts by outcome", ("run", "outcome"))
        self._gpu_seconds = Counter("foldcp_gpu_seconds", "GPU-seconds of attempts", ("run",))
        self._seconds = Histogram(
            "foldcp_fold_seconds", "seconds of an attempt that was done", SECONDS, ("run",)
        )
        self._tokens = Histogram(
            "foldcp_fold_tokens", "tokens of an attempt that was done", TOKENS, ("run",)
        )
        self._label = label

    def set_status(self, status: RunStatus) -> None:
        """Set all that changes in both directions."""
        counts = {
            "done": status.num_done,
            "failed": status.num_failed,
            "invalid": status.num_invalid,
            "waiting": status.num_waiting,
            "folding": sum(group.batch for group in status.groups if group.state == "folding"),
        }
        for state, count in counts.items():
            self._complexes.set(count, self._label | {"state": state})
        self._gpus.set(status.num_busy_gpus, self._label | {"state": "busy"})
        self._gpus.set(status.num_gpus, self._label | {"state": "all"})
        self._gpu_hours_left.set(status.gpu_hours_left, self._label)
        self._seconds_left.set(status.seconds_left, self._label)

    def count_attempt(self, attempt: Attempt) -> None:
        """Count an attempt that has ended."""
        seconds = (attempt.ended - attempt.started) / attempt.shape.batch
        self._attempts.inc(1, self._label | {"outcome": attempt.outcome})
        self._gpu_seconds.inc(max(attempt.gpu_seconds, 1e-6), self._label)
        if attempt.outcome == "done":
            self._seconds.observe(seconds, self._label)
            self._tokens.observe(attempt.task.num_tokens, self._label)
