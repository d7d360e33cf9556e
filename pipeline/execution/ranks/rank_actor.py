"""A rank that runs a function, as torchrun starts it, in a Ray actor."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from threading import Event
from typing import Literal

from foldcp.pipeline.execution.ranks.rank_process import RankProcess
from foldcp.pipeline.execution.results import Ready
from foldcp.pipeline.execution.signals import end_with_raylet
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure

import ray  # isort: skip  after ray_cluster.py, which sets its environment

StreamName = Literal["stdout", "stderr"]
Written = tuple[StreamName, str]  # a piece of text, and where it was written
# Of every rank; it gets what says whether the run is asked to stop.
RankFunction = Callable[[Callable[[], bool]], object]


class KeptStream(io.TextIOBase):
    """A stream whose text is kept in a list that several have in common."""

    def __init__(self, name: StreamName, written: deque[Written]) -> None:
        self._name: StreamName = name
        self._written = written

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Keep a text; returns its length."""
        self._written.append((self._name, text))
        return len(text)


# `stop` and `output` have a thread of their own, as `run` takes as long as the run.
@ray.remote(max_restarts=0, concurrency_groups={"control": 1})  # type: ignore[call-overload]
class RankActor(RankProcess):
    """A rank that runs a function."""

    def __init__(self, placement: Placement) -> None:
        end_with_raylet()
        self.placement = placement
        self.stopping = Event()
        self.written: deque[Written] = deque()
        self.rank = 0
        self.device = "cpu"

    def join(
        self,
        rank: int,
        size: int,
        rendezvous_address: str,
        device: str,
        visible_gpus: str,
    ) -> Ready:
        """Give this process the variables that torchrun gives to a rank.

        `visible_gpus` lists the GPUs of this node that the group has: all its ranks here see the
        same list, as NCCL fails if ranks see only their own.
        """
        host, _, port = rendezvous_address.removeprefix("tcp://").rpartition(":")
        node = ray.get_runtime_context().get_node_id()
        self.rank = rank
        self.device = device
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": device.partition(":")[2] or "0",
            "LOCAL_WORLD_SIZE": str(dict(self.placement)[node]),
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            "CUDA_VISIBLE_DEVICES": "" if device == "cpu" else visible_gpus,
        }
        return Ready()

    def run(self, function: RankFunction) -> object:
        """The result of a function, or an `invalid` Failure if it raises ValueError, or `oom`.

        Rank 0 keeps what it prints for `output`.
        """
        # Imported now, as torch may look at the GPUs.
        import torch

        from foldcp.pipeline.execution.memory import wait_for_free_memory

        if self.device != "cpu":
            wait_for_free_memory(torch.device(self.device))
        try:
            if self.rank:
                return function(self.stopping.is_set)
            stdout = KeptStream("stdout", self.written)
            stderr = KeptStream("stderr", self.written)
            with redirect_stdout(stdout), redirect_stderr(stderr):
                return function(self.stopping.is_set)
        except ValueError as error:
            return Failure("invalid", str(error))
        except torch.OutOfMemoryError as error:
            return Failure("oom", f"rank {self.rank}: {str(error).splitlines()[0]}")

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Ask the function to stop."""
        self.stopping.set()

    @ray.method(concurrency_group="control")
    def output(self) -> list[Written]:
        """What has been printed since the last call."""
        return [self.written.popleft() for _ in range(len(self.written))]
