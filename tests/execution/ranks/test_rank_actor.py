"""A rank's actor: the variables of torchrun, what it prints, and how its function ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foldcp.pipeline.execution.ranks import rank_actor as module
from foldcp.pipeline.execution.ranks.rank_actor import RankActor
from foldcp.pipeline.scheduling.types import Failure


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A rank on a node with two others, which does not go through Ray."""
    context = SimpleNamespace(get_node_id=lambda: "b")
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return RankActor.__ray_actor_class__((("a", 1), ("b", 3)))  # type: ignore[attr-defined]


def test_a_rank_has_the_variables_of_torchrun(actor: Any) -> None:
    actor.join(2, 4, "tcp://10.0.0.1:1234", "cuda:1", "0,5,6")
    expected = {
        "RANK": "2",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "1234",
        "CUDA_VISIBLE_DEVICES": "0,5,6",
    }
    assert {name: os.environ[name] for name in expected} == expected
    actor.join(0, 4, "tcp://10.0.0.1:1234", "cpu", ",,")
    assert (os.environ["LOCAL_RANK"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("0", "")


def speaking(stop_requested: Callable[[], bool]) -> bool:
    print("a line")
    print("a warning", file=sys.stderr)
    return stop_requested()


def test_only_the_first_rank_keeps_what_it_prints(
    actor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert actor.run(speaking) is False
    assert "".join(text for name, text in actor.output() if name == "stdout") == "a line\n"
    assert actor.output() == []
    actor.rank = 1
    actor.stop()
    assert actor.run(speaking) is True
    assert actor.output() == []
    assert capsys.readouterr() == ("a line\n", "a warning\n")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ValueError("x: no such file"), Failure("invalid", "x: no such file")),
        (torch.OutOfMemoryError("CUDA out\nof"), Failure("oom", "rank 0: CUDA out")),
    ],
)
def test_errors_that_would_come_again_are_results(
    actor: Any, error: Exception, failure: Failure
) -> None:
    def fail(stop_requested: Callable[[], bool]) -> None:
        raise error

    assert actor.run(fail) == failure
