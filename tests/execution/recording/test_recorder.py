"""Results that cannot be stored."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.execution.recording.recorder import Recorder
from foldcp.pipeline.execution.results import FoldStats, StagedResult
from foldcp.pipeline.inputs.tasks import Failed
from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.types import Failure, QueuedTask
from foldcp.pipeline.storage.results.provenance import Provenance
from tests.support.scheduling import COSTS, task

QUEUED = QueuedTask(task(500), initial_shape(COSTS, 1, "mixed"), num_attempts=1)
OTHER = QueuedTask(task(600), initial_shape(COSTS, 1, "mixed"), num_attempts=1)
STATS = FoldStats({"trunk": 1.0}, 10, 3)


def test_store_results_returns_failures_of_those_that_cannot_be_stored() -> None:
    stored = []

    def put_staged(commits: list[Any]) -> dict[str, Exception]:
        stored.extend(commits)
        return {QUEUED.task.key: ValueError("two\nlines")}

    plan: Any = SimpleNamespace(config=COSTS.config, provenance=Provenance("w", False))
    store: Any = SimpleNamespace(put_staged=put_staged)
    commits: list[Any] = ["first", "second"]
    recorder = Recorder(store, plan, COSTS, {}, datetime.now(UTC))
    results = [
        (queued, StagedResult(STATS, commit))
        for queued, commit in zip((QUEUED, OTHER), commits, strict=True)
    ]
    failure = Failure("invalid", "its result cannot be stored: ValueError: two lines")
    assert recorder.store_results(results) == {QUEUED.task.key: failure}
    assert stored == commits


@pytest.mark.parametrize("earlier", ["done", "failed", ""])
def test_record_keeps_the_result_of_a_complex_that_fails_when_it_is_folded_again(
    earlier: str,
) -> None:
    put = []
    plan: Any = SimpleNamespace(config=COSTS.config, provenance=Provenance("w", False))
    lost = WriteConfig(pae="all")
    store: Any = SimpleNamespace(
        outcome=lambda key: earlier,
        written_before=lambda key: lost,
        put=lambda key, rows, write: put.append(write),
    )
    recorder = Recorder(store, plan, COSTS, {}, datetime.now(UTC))
    recorder.record([], {"k": Failed(QUEUED.task, 1, "no memory")})
    assert recorder.num_failed == 1
    assert put == ([] if earlier == "done" else [lost])
