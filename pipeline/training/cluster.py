"""A training run on the ranks of a Ray cluster, begun again when some of them are lost."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from foldcp.checkpoint.identity import is_untrained
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.ranks.rank_job import RankJob
from foldcp.pipeline.execution.ranks.shared_paths import check_shared
from foldcp.pipeline.execution.ray_cluster import (
    Node,
    RayConnection,
    RayLostError,
    alive_nodes,
    check_address,
    cpus_per_rank,
    ranks_per_node,
)
from foldcp.pipeline.execution.signals import TRY_AGAIN, end_process
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.planning.detect_hardware import cpu_ranks
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.types import Failure
from foldcp.pipeline.training.settings_file import TrainFile
from foldcp.pipeline.training.train import (
    MINUTE,
    StopRequest,
    read_run_settings,
    train_on_rank,
)
from foldcp.printable import printable
from foldcp.training.loop.checkpoints import newest_step
from foldcp.training.loop.settings import TrainSettings, checkpoint_folder

FAILED = 1  # exit code of a run whose ranks fail again and again
MAX_RESTARTS = 3  # in a row, without a new checkpoint in between
MAX_NO_ROOM = 10  # tries in a row, of a minute each, for which Ray has no GPUs


def train_on_cluster(
    file: Path | None,
    overrides: Sequence[str],
    out: Path,
    max_steps: int | None,
    minutes: float,
    address: str,
    gpus: int,
) -> int:
    """Train on `gpus` GPUs (0: all) of a Ray cluster, or CPUs where it has none; the exit code.

    Where ranks die the run is begun again from its newest checkpoint, on as many ranks as are left
    and divide the examples. Arguments and end as those of `train`. Raises ValueError for what
    `train` does, when no cluster answers, and for nodes that do not see the run's files.
    """
    if "RANK" in os.environ:
        raise ValueError("--address: starts the ranks itself, without torchrun")
    settings = _with_absolute_paths(read_run_settings(file, overrides, max_steps))
    out = out.absolute()
    check_folder_writable(out)
    connection = RayConnection(check_address(address), num_cpus=0, verbose=False)
    try:
        connection.wait()
        with StopRequest() as request, connection.watched():
            run = ClusterRun(settings, out, gpus, request.asked)
            return run.train(minutes * MINUTE or float("inf"))
    except RayLostError as error:
        _tell(f"{error}; the same command goes on from the newest checkpoint")
        end_process(TRY_AGAIN)  # Ray's exit handlers may wait for its dead daemons
        raise
    finally:
        connection.close()


def _with_absolute_paths(settings: TrainFile) -> TrainFile:
    """The settings for processes in other working directories."""
    data = dataclasses.replace(settings.data, folder=str(Path(settings.data.folder).absolute()))
    model = settings.model
    if model.init and not is_untrained(model.init):
        model = dataclasses.replace(model, init=str(Path(model.init).absolute()))
    return dataclasses.replace(settings, data=data, model=model)


class ClusterRun:
    """A run of `settings` in the folder `out`, on up to `gpus` ranks (0: all)."""

    def __init__(
        self, settings: TrainFile, out: Path, gpus: int, stop_requested: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.out = out
        self.gpus = gpus
        self.stop_requested = stop_requested
        self.name = f"foldcp-train-{uuid.uuid4().hex[:8]}"
        self.nodes: dict[str, Node] = {}
        self.checked: set[str] = set()  # nodes that see the run's files
        self.device = "cpu"

    def train(self, max_seconds: float) -> int:
        """Train to the end, on fewer and fewer ranks if need be; the exit code."""
        deadline = time.monotonic() + max_seconds
        placement = self._first_placement()
        num_failures = 0
        num_no_room = 0
        for number in count():
            before = self._newest_step()
            found = self._attempt(number, placement, max(0.0, deadline - time.monotonic()))
            if not isinstance(found, Failure):
                return found[0]
            num_no_room = num_no_room + 1 if found.kind == "no_room" else 0
            if self._newest_step() > before:
                num_failures = 0
            num_failures += found.kind != "no_room"
            if num_no_room == MAX_NO_ROOM:
                _tell(f"{found.reason}; stopped, {self._beginning()} is the last")
                return TRY_AGAIN
            if exit_code := self._exit_code(found, num_failures):
                return exit_code
            placement = self._placement(fitting_ranks(self._num_available(), self.settings))
            if not placement:
                _tell(f"stopped: {too_few(self._num_available(), self.settings)}")
                return TRY_AGAIN
        raise AssertionError("an endless loop has ended")

    def _first_placement(self) -> Placement:
        """Where the ranks begin. Raises ValueError when they do not fit the settings."""
        available = self._num_available()
        if self.gpus > available:
            raise ValueError(f"--gpus {self.gpus}: the cluster has {available}")
        fitting = fitting_ranks(available, self.settings)
        if self.gpus and 0 < fitting < self.gpus:
            misfit = why_not(self.gpus, self.settings)
            raise ValueError(f"--gpus {self.gpus}: {misfit}; {fitting} would fit")
        if not fitting:
            raise ValueError(too_few(available, self.settings))
        if fitting < available:
            _tell(f"{available - fitting} ranks stay idle: {why_not(available, self.settings)}")
        return self._placement(fitting)

    def _num_available(self) -> int:
        """The ranks that the cluster has for this run now."""
        self.nodes = {node.id: node for node in alive_nodes()}
        self.device = "cuda" if any(node.gpus for node in self.nodes.values()) else "cpu"
        return sum(self._ranks_per_node().values())

    def _ranks_per_node(self) -> dict[str, int]:
        most = self.gpus or cpu_ranks(RunConfig())
        return ranks_per_node(list(self.nodes.values()), self.device, most, self.gpus)

    def _placement(self, num_ranks: int) -> Placement:
        """The fewest nodes that hold so many ranks, all of which see the run's files."""
        placement = Cluster(self._ranks_per_node()).find(num_ranks) if num_ranks else ()
        assert placement is not None
        self._check_files([node for node, _ in placement if node not in self.checked])
        return placement

    def _check_files(self, nodes: Sequence[str]) -> None:
        """Raise ValueError naming nodes that do not see the run's folder, data and weights."""
        paths = [Path(self.settings.data.folder)]
        init = self.settings.model.init
        if init and not is_untrained(init):
            paths.append(Path(init))
        self.out.mkdir(parents=True, exist_ok=True)
        check_shared([self.nodes[node] for node in nodes], self.out, paths)
        self.checked.update(nodes)

    def _attempt(
        self, number: int, placement: Placement, max_seconds: float
    ) -> list[int] | Failure:
        """The exit codes of all ranks, or their failure."""
        places = [f"{self.nodes[node].host} ({count})" for node, count in placement]
        _tell(f"training on {', '.join(places)}, from {self._beginning()}")
        cpus = min(cpus_per_rank(self.nodes[node], self.device) for node, _ in placement)
        job = RankJob(f"{self.name}-{number}", placement, self.device, cpus)
        try:
            function = partial(train_on_rank, self.settings, self.out, max_seconds)
            return job.run(function, self.stop_requested)
        finally:
            job.end()

    def _exit_code(self, failure: Failure, num_failures: int) -> int:
        """The exit code after a failure, 0 if the run is to be begun again.

        Raises ValueError for mistakes of the user.
        """
        if failure.kind == "invalid":
            raise ValueError(failure.reason)
        reason = failure.reason
        if failure.node in self.nodes:
            reason = f"{self.nodes[failure.node].host}: {reason}"
        if self.stop_requested():
            _tell(f"{reason}; stopped without a new checkpoint, {self._beginning()} is the last")
            return TRY_AGAIN
        if failure.kind == "oom" and not failure.killed:
            _tell(f"{reason}; a larger context_parallel needs less memory")
            return FAILED
        if num_failures > MAX_RESTARTS:
            print(failure.traceback, file=sys.stderr)
            _tell(f"{reason}; {num_failures} failures in a row without a new checkpoint")
            return FAILED
        _tell(reason)
        return 0

    def _newest_step(self) -> int:
        return newest_step(checkpoint_folder(self.out))

    def _beginning(self) -> str:
        """The step from which the run goes on."""
        return f"step {max(0, self._newest_step()):,}"


def fitting_ranks(available: int, settings: TrainSettings) -> int:
    """The most ranks, of those that are there, that form whole context groups among which the
    examples of a step divide; 0 if there are too few.
    """
    size = settings.context_parallel
    groups = range(1, available // size + 1)
    fitting = [number for number in groups if settings.examples_per_step % number == 0]
    return max(fitting, default=0) * size


def why_not(num_ranks: int, settings: TrainSettings) -> str:
    """Why a run cannot have so many ranks."""
    size = settings.context_parallel
    if num_ranks % size:
        return f"{num_ranks} ranks do not divide into groups of context_parallel={size}"
    return (
        f"examples_per_step={settings.examples_per_step} does not divide among {num_ranks // size} "
        f"groups of context_parallel={size}"
    )


def too_few(available: int, settings: TrainSettings) -> str:
    """That a cluster has too few ranks."""
    size = settings.context_parallel
    return f"context_parallel={size} needs {size} ranks, and the cluster has {available}"


def _tell(message: str) -> None:
    print(printable(f"foldcp: {message}"), file=sys.stderr, flush=True)
