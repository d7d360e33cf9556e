"""The order of ranks in a worker group, and the GPUs that they see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from foldcp.pipeline.execution.results import DeviceLocation, FoldStats, RankResult, Ready
from foldcp.pipeline.execution.worker_group import WorkerGroupActor, task_name
from foldcp.pipeline.scheduling.types import Failure

TASK: Any = SimpleNamespace(complex=SimpleNamespace(name="dimer"))


class RemoteMethod:
    """Stands for a method of an actor, whose tasks may have names."""

    def __init__(self, method: Callable[..., object]) -> None:
        self.remote = method

    def options(self, name: str) -> RemoteMethod:
        return self


class FakeWorker:
    """Stands for the handle of an actor; remembers how it was asked to join."""

    def __init__(
        self, location: DeviceLocation, joined: dict[DeviceLocation, tuple[object, ...]]
    ) -> None:
        self.result: Ready | Failure = Ready()

        def join(*args: object) -> Ready | Failure:
            joined[location] = args
            return self.result

        self.join = SimpleNamespace(remote=join)
        self.rendezvous_address = SimpleNamespace(remote=lambda: "tcp://here:1")


def make_group(placement: tuple[tuple[str, int], ...]) -> Any:
    """A group whose calls do not go through Ray."""
    group = WorkerGroupActor.__ray_actor_class__("name", placement, None, None, "cuda", 1.0, None)
    group._gather = list
    return group


def test_join_numbers_the_ranks_by_node_and_gpu() -> None:
    in_no_order = [
        DeviceLocation("n1", "10"),
        DeviceLocation("n2", "7"),
        DeviceLocation("n2", "0"),
        DeviceLocation("n1", "9"),
        DeviceLocation("n2", "2"),
    ]
    group = make_group((("n2", 3), ("n1", 2)))
    joined: dict[DeviceLocation, tuple[object, ...]] = {}
    group.workers = [FakeWorker(location, joined) for location in in_no_order]
    in_order = [
        DeviceLocation("n2", "0"),
        DeviceLocation("n2", "2"),
        DeviceLocation("n2", "7"),
        DeviceLocation("n1", "9"),
        DeviceLocation("n1", "10"),
    ]
    assert group._join(in_no_order) == Ready(tuple(in_order))
    assert joined == {
        in_order[0]: (0, 5, "tcp://here:1", "cuda:0", "0,2,7"),
        in_order[1]: (1, 5, "tcp://here:1", "cuda:1", "0,2,7"),
        in_order[2]: (2, 5, "tcp://here:1", "cuda:2", "0,2,7"),
        in_order[3]: (3, 5, "tcp://here:1", "cuda:0", "9,10"),
        in_order[4]: (4, 5, "tcp://here:1", "cuda:1", "9,10"),
    }
    changed = Failure("invalid", "the weights have changed")
    for worker in group.workers:
        worker.result = changed
    assert group._join(in_no_order) == changed


def test_fold_lets_rank_0_deliver_once_all_ranks_have_finished() -> None:
    group = make_group((("n1", 2),))
    folds: list[RankResult | Failure] = [
        RankResult(FoldStats({"trunk": 1.0}, 10, 3), {0: "a"}),  # type: ignore[dict-item]
        RankResult(FoldStats({"trunk": 2.0}, 20, 3), {0: "b"}),  # type: ignore[dict-item]
    ]
    delivered: list[tuple[object, ...]] = []

    def deliver(*arguments: object) -> str:
        delivered.append(arguments)
        return "delivered"

    group.workers = [
        SimpleNamespace(
            fold=RemoteMethod(lambda *_, rank=rank: folds[rank]),
            deliver=SimpleNamespace(remote=deliver),
        )
        for rank in range(2)
    ]
    assert group.fold(TASK, "shape", ("fewer",), None, "") == "delivered"
    stats = FoldStats({"trunk": 1.0}, 20, 3)  # of rank 0, with the largest peak
    assert delivered == [(TASK, "shape", ("fewer",), stats, {0: ["a", "b"]})]
    folds[1] = Failure("invalid", "no atoms")
    assert group.fold(TASK, "shape", ("fewer",), None, "") == folds[1]
    assert len(delivered) == 1


def test_a_batch_goes_to_the_only_rank() -> None:
    group = make_group((("n1", 1),))
    asked: list[tuple[object, ...]] = []

    def fold(*arguments: object) -> str:
        asked.append(arguments)
        return "results"

    group.workers = [SimpleNamespace(fold_batch=RemoteMethod(fold))]
    assert group.fold_batch([TASK, TASK], "shape", [None, None]) == "results"
    assert asked == [([TASK, TASK], "shape", [None, None])]
    assert task_name("WorkerActor", TASK.complex, 3) == "WorkerActor.fold dimer and 2 more"
    group._gather = lambda refs: Failure("oom", "full")
    assert group.fold_batch([TASK], "shape", [None]) == Failure("oom", "full")


def test_actor_of_a_group_imports_no_torch() -> None:
    program = "import sys, foldcp.pipeline.execution.worker_group; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
