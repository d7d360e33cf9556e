"""Results that cannot be stored."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.execution import recorder as module
from foldcp.pipeline.execution.recorder import Recorder
from foldcp.pipeline.execution.results import FoldStats, ResultLostError
from foldcp.pipeline.inputs.tasks import Failed
from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.types import Failure, QueuedTask
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import no_blocks
from tests.support.scheduling import COSTS, task

QUEUED = QueuedTask(task(500), initial_shape(COSTS, 1, "mixed"), num_attempts=1)
STATS = FoldStats({"trunk": 1.0}, 10, 3)


@pytest.fixture
def store_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], Failure | None]:
    """Store a result in a store that raises an error."""

    def run(error: Exception | None) -> Failure | None:
        def put(*arguments: Any) -> None:
            if error is not None:
                raise error

        plan: Any = SimpleNamespace(config=COSTS.config, provenance=Provenance("w", False))
        store: Any = SimpleNamespace(put=put)
        recorder = Recorder(store, plan, COSTS, {}, datetime.now(UTC))
        prediction: Any = SimpleNamespace(layout=None)
        return recorder.store_result(QUEUED, STATS, prediction, no_blocks)

    monkeypatch.setattr(module, "result_rows", lambda *arguments: {})
    monkeypatch.setattr(module, "result_files", lambda *arguments: {})
    return run


def test_store_result_returns_a_failure_for_a_result_without_rows(
    store_with: Callable[[Exception | None], Failure | None],
) -> None:
    assert store_with(None) is None
    failure = store_with(ValueError("two\nlines"))
    reason = "its result cannot be stored: ValueError: two lines"
    assert failure == Failure("invalid", reason)
    lost = Failure("worker_died", "rank 1 died")
    assert store_with(ResultLostError(lost)) == lost


def test_store_result_raises_when_the_disk_fails(
    store_with: Callable[[Exception | None], Failure | None],
) -> None:
    with pytest.raises(OSError, match="full"):
        store_with(OSError(errno.ENOSPC, "the disk is full"))


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
