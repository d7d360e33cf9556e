"""What a group makes of its ranks' answers: the cause of a failure, the node that it names, and
whose memory it was.
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

from foldcp.pipeline.execution import worker_group as module
from foldcp.pipeline.execution.worker_group import WorkerGroupActor, hear

DONE = {"outcome": "done"}
NO_FILE = {"outcome": "invalid", "reason": "a.a3m: no such file"}


class Answers:
    """Stands for Ray: what each reference comes to; None is an answer that never comes."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def get(self, ref: str, timeout: float | None = None) -> Any:
        answer = self.answers[ref]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(
        self, refs: list[str], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[str], list[str]]:
        ready = [ref for ref in refs if self.answers[ref] is not None][:num_returns]
        assert ready or timeout is not None, "waits for ever"
        return ready, [ref for ref in refs if ref not in ready]


def asked(monkeypatch: pytest.MonkeyPatch, *answers: Any, kills: tuple[int, int] = (0, 0)) -> Any:
    """What a group of as many ranks answers; `kills` counts the kernel's kills before and after."""
    counts = iter([kills[0], *[kills[1]] * 10])
    ray = Answers({f"ref {rank}": answer for rank, answer in enumerate(answers)})
    monkeypatch.setattr(module.ray, "get", ray.get)
    monkeypatch.setattr(module.ray, "wait", ray.wait)
    monkeypatch.setattr(module, "num_oom_kills", lambda: next(counts))
    monkeypatch.setattr(module, "GRACE", 0.05)
    group = WorkerGroupActor.__ray_actor_class__("name", (), None, "cpu", 1.0)
    group.rank_nodes = [f"node {rank}" for rank in range(len(answers))]
    return group._ask(list(ray.answers))


def test_answers_of_all_ranks_come_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(monkeypatch, DONE, {**DONE, "peak_bytes": 1}) == [
        DONE,
        {**DONE, "peak_bytes": 1},
    ]


def test_input_that_all_ranks_refuse_ends_no_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asked(monkeypatch, NO_FILE, NO_FILE, NO_FILE) == [NO_FILE] * 3


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_rank_that_refuses_alone_ends_its_group_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    answers: list[Any] = [None, None, None]
    answers[position] = NO_FILE
    answer = asked(monkeypatch, *answers)
    assert answer == {
        "outcome": "error",
        "reason": NO_FILE["reason"],
        "node": f"node {position}",
    }


def test_the_rank_that_died_is_the_cause_and_its_node_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = RayTaskError("fold", "trace", RuntimeError("Connection closed by peer"))
    answer = asked(monkeypatch, broken, ActorDiedError())
    assert (answer["outcome"], answer["node"], answer["reason"]) == (
        "worker_died",
        "node 1",
        "rank 1 died",
    )
    answer = asked(monkeypatch, broken, broken)
    assert (answer["outcome"], answer["node"]) == ("error", "node 0")


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Task was killed due to the node running low on memory."),
        OutOfMemoryError("killed"),
    ],
)
def test_a_rank_that_ray_killed_for_its_memory_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    answer = asked(monkeypatch, None, error)
    assert (answer["outcome"], answer["killed"], answer["node"]) == (
        "oom",
        True,
        "node 1",
    )
    assert "low on memory" in answer["reason"]


def test_a_rank_that_the_kernel_killed_for_memory_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = asked(monkeypatch, None, ActorDiedError(), kills=(4, 5))
    assert (answer["outcome"], answer["killed"], answer["node"]) == (
        "oom",
        True,
        "node 1",
    )
    answer = asked(monkeypatch, None, ActorDiedError(), kills=(5, 5))
    assert (answer["outcome"], answer.get("killed", False)) == ("worker_died", False)


def test_deaths_and_exceptions_become_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {
        "worker_died": [ActorDiedError(), WorkerCrashedError()],
        "oom": [OutOfMemoryError("the node ran low on memory")],
        "error": [RayTaskError("fold", "trace", ValueError("a bug"))],
    }
    ray = Answers(
        {f"{kind} {i}": error for kind, these in errors.items() for i, error in enumerate(these)}
    )
    monkeypatch.setattr(module.ray, "get", ray.get)
    for ref in ray.answers:
        assert hear(ref, "rank 0")["outcome"] == ref.split()[0]
