"""Results of Ray calls.

The root cause of a group's failure, the node that it names, and whose memory it was.
"""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from foldcp.pipeline.execution import ray_results as module
from foldcp.pipeline.execution.ray_results import (
    GatheredResults,
    fetch_prediction,
    result_or_failure,
)
from foldcp.pipeline.execution.results import FoldStats, RankResult, RemoteFoldResult
from foldcp.pipeline.scheduling.types import Failure

STATS = FoldStats({"trunk": 1.0}, 10, 1)
DONE = RankResult(STATS, {})
NO_FILE = Failure("invalid", "a.a3m: no such file")


class FakeRay:
    """Stands for Ray: the result of each reference; None is one that never comes."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results

    def get(self, ref: str, timeout: float | None = None) -> Any:
        result = self.results[ref]
        if isinstance(result, Exception):
            raise result
        return result

    def wait(
        self, refs: list[str], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[str], list[str]]:
        ready = [ref for ref in refs if self.results[ref] is not None][:num_returns]
        assert ready or timeout is not None, "waits for ever"
        return ready, [ref for ref in refs if ref not in ready]


def gather(
    monkeypatch: pytest.MonkeyPatch,
    *results: Any,
    kills: tuple[int, int] = (0, 0),
    invalid_is_fatal: bool = False,
) -> Any:
    """The result of a group whose ranks return `results`.

    `kills` counts the kernel's kills before and after.
    """
    counts = iter([kills[0], *[kills[1]] * 10])
    ray = FakeRay({f"ref {rank}": result for rank, result in enumerate(results)})
    monkeypatch.setattr(module.ray, "get", ray.get)
    monkeypatch.setattr(module.ray, "wait", ray.wait)
    monkeypatch.setattr(module, "num_oom_kills", lambda: next(counts))
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    nodes = [f"node {rank}" for rank in range(len(results))]
    return GatheredResults(list(ray.results), nodes, invalid_is_fatal).poll(0.05)


def test_gathered_results_come_in_the_order_of_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = RankResult(FoldStats({}, 20, 1), {})
    assert gather(monkeypatch, DONE, other) == [DONE, other]


def test_input_that_all_ranks_refuse_is_not_a_failure_of_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gather(monkeypatch, NO_FILE, NO_FILE, NO_FILE) == [NO_FILE] * 3


@pytest.mark.parametrize("position", [0, 1, 2])
def test_rank_that_refuses_its_input_alone_is_a_failure_of_the_group(
    monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    results: list[Any] = [None, None, None]
    results[position] = NO_FILE
    failure = gather(monkeypatch, *results)
    assert failure == Failure("error", NO_FILE.reason, f"node {position}")


def test_poll_returns_none_while_a_rank_has_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather(monkeypatch, DONE, None) is None


def test_refusal_of_one_rank_may_be_that_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather(monkeypatch, None, NO_FILE, None, invalid_is_fatal=True) == NO_FILE


def test_root_cause_is_the_rank_that_died_and_names_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = RayTaskError("fold", "trace", RuntimeError("Connection closed by peer"))
    failure = gather(monkeypatch, broken, ActorDiedError())
    assert (failure.kind, failure.node, failure.reason) == ("worker_died", "node 1", "rank 1 died")
    failure = gather(monkeypatch, broken, broken)
    assert (failure.kind, failure.node) == ("error", "node 0")


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Task was killed due to the node running low on memory."),
        OutOfMemoryError("killed"),
    ],
)
def test_rank_that_ray_killed_for_its_memory_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failure = gather(monkeypatch, None, error)
    assert (failure.kind, failure.killed, failure.node) == ("oom", True, "node 1")
    assert "low on memory" in failure.reason


def test_rank_that_the_kernel_killed_for_memory_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = gather(monkeypatch, None, ActorDiedError(), kills=(4, 5))
    assert (failure.kind, failure.killed, failure.node) == ("oom", True, "node 1")
    failure = gather(monkeypatch, None, ActorDiedError(), kills=(5, 5))
    assert (failure.kind, failure.killed) == ("worker_died", False)


def test_result_or_failure_makes_failures_of_deaths_and_exceptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = {
        "worker_died": [ActorDiedError(), WorkerCrashedError()],
        "oom": [OutOfMemoryError("the node ran low on memory")],
        "error": [RayTaskError("fold", "trace", ValueError("a bug"))],
    }
    ray = FakeRay(
        {f"{kind} {i}": error for kind, these in errors.items() for i, error in enumerate(these)}
    )
    monkeypatch.setattr(module.ray, "get", ray.get)
    for ref in ray.results:
        failure = result_or_failure(ref, "rank 0")
        assert failure.kind == ref.split()[0]
        assert failure.traceback


def test_fetch_prediction_fails_when_the_worker_that_keeps_it_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.ray, "get", FakeRay({"kept": 5, "lost": ActorDiedError()}).get)
    kept: Any = "kept"
    lost: Any = "lost"
    assert fetch_prediction(RemoteFoldResult(STATS, kept, {}), "group 1") == 5
    failure = fetch_prediction(RemoteFoldResult(STATS, lost, {}), "group 1")
    assert isinstance(failure, Failure)
    assert failure.kind == "worker_died"
