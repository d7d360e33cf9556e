"""Prefetching of the features of the next tasks, and dropping of others."""

from __future__ import annotations

from typing import Any

import pytest

from foldcp.pipeline.execution import prefetch as module
from foldcp.pipeline.execution.prefetch import MAX_TOKENS, FeaturePrefetcher
from foldcp.pipeline.scheduling.group_size import initial_shape
from tests.support.scheduling import COSTS, task


class FakeTask:
    """Stands for the Ray task that makes inputs; counts its calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    def remote(self, *arguments: Any) -> str:
        self.num_calls += 1
        return f"ref {self.num_calls}"


@pytest.fixture
def ray_task(monkeypatch: pytest.MonkeyPatch) -> FakeTask:
    fake = FakeTask()
    monkeypatch.setattr(module, "_make_inputs", fake)
    return fake


SHAPE = initial_shape(COSTS, 1, "mixed")


def test_update_makes_the_inputs_of_each_next_task_once(ray_task: FakeTask) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    prefetcher.update([(task(900), SHAPE), (task(800), SHAPE)])
    prefetcher.update([(task(900), SHAPE)])
    assert ray_task.num_calls == 2
    assert prefetcher.take(task(900), SHAPE) == ["ref 1"]
    assert prefetcher.take(task(900), SHAPE) == []  # taken
    assert prefetcher.take(task(800), SHAPE) == []  # no longer among the next ones


def test_update_leaves_out_large_complexes(ray_task: FakeTask) -> None:
    prefetcher = FeaturePrefetcher(COSTS.config, COSTS)
    prefetcher.update([(task(MAX_TOKENS + 1), SHAPE)])
    assert ray_task.num_calls == 0
    assert prefetcher.take(task(MAX_TOKENS + 1), SHAPE) == []
