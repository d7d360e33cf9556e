"""A function that runs on ranks of a Ray cluster, as seen by the driver."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from foldcp.pipeline.execution.ranks.rank_actor import RankActor, RankFunction
from foldcp.pipeline.execution.ranks.rank_group import FREE_SECONDS, RankGroup, remove_group
from foldcp.pipeline.execution.ray_cluster import alive_nodes
from foldcp.pipeline.execution.ray_results import GatheredResults, result_or_failure
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure

import ray  # isort: skip  after ray_cluster.py, which sets its environment

START_SECONDS = 60.0  # for the GPUs, which another job may have
TICK_SECONDS = 0.3  # between two looks at output and signals
NODE_TICK_SECONDS = 5.0  # between two looks at the cluster
OUTPUT_SECONDS = 10.0  # in which a rank that has finished must tell its last output


class RankJob:
    """A function on the ranks of a group of its own, which fail together."""

    def __init__(
        self, name: str, placement: Placement, device: str, cpus_per_worker: float
    ) -> None:
        """Arguments as those of `RankGroup`."""
        self.group = RankGroup(name, placement, device, cpus_per_worker)
        self._output: Any = None  # reference to what rank 0 has printed

    def run(
        self, function: RankFunction, stop_requested: Callable[[], bool]
    ) -> list[Any] | Failure:
        """The results of all ranks, or the root cause of their failure.

        What rank 0 prints is printed here. Once `stop_requested`, the ranks are told. An `invalid`
        failure is the ValueError of any rank. Raises RayLostError when the cluster does not answer.
        """
        failure = self.group.start_workers(RankActor, (self.group.placement,), START_SECONDS)
        if isinstance(failure, Failure):
            return failure
        refs = [worker.run.remote(function) for worker in self.group.workers]
        results = GatheredResults(refs, self.group.rank_nodes, invalid_is_fatal=True)
        told = False
        looked_at = time.monotonic()
        while (found := results.poll(TICK_SECONDS)) is None:
            self._print_output()
            if stop_requested() and not told:
                told = True
                for worker in self.group.workers:
                    worker.stop.remote()
            if time.monotonic() - looked_at > NODE_TICK_SECONDS:
                alive_nodes()
                looked_at = time.monotonic()
        self._print_output(OUTPUT_SECONDS)
        return found

    def _print_output(self, timeout: float = 0.0) -> None:
        """Print what rank 0 has printed; with a `timeout`, wait for all of it."""
        if self._output is not None:
            ready, _ = ray.wait([self._output], timeout=timeout)
            if not ready:
                return
            self._print(self._output)
        self._output = self.group.workers[0].output.remote()
        if timeout:
            self._print(self._output, timeout)

    def _print(self, ref: Any, timeout: float | None = None) -> None:
        written = result_or_failure(ref, "rank 0", timeout)
        if isinstance(written, Failure):  # that of the rank itself is the result of the job
            return
        for name, text in written:
            print(text, end="", file=sys.stderr if name == "stderr" else sys.stdout, flush=True)

    def end(self) -> None:
        """Kill the ranks and wait until their GPUs are free."""
        for worker in self.group.workers:
            ray.kill(worker)
        while remove_group(self.group.name):
            time.sleep(FREE_SECONDS)
        time.sleep(FREE_SECONDS)
