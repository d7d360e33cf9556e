"""Results that cannot be stored."""

from __future__ import annotations

import errno
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
STATS = FoldStats({"trunk": 1.0}, 10, 3)


def store_result(error: Exception | None) -> Failure | None:
    """Store a result in a store that raises an error."""

    def put_staged(commit: Any) -> None:
        if error is not None:
            raise error

    plan: Any = SimpleNamespace(config=COSTS.config, provenance=Provenance("w", False))
    store: Any = SimpleNamespace(put_staged=put_staged)
    commit: Any = None
    recorder = Recorder(store, plan, COSTS, {}, datetime.now(UTC))
    return recorder.store_result(QUEUED, StagedResult(STATS, commit))


def test_store_result_returns_a_failure_for_files_of_another_complex() -> None:
    assert store_result(None) is None
    failure = store_result(ValueError("two\nlines"))
    reason = "its result cannot be stored: ValueError: two lines"
    assert failure == Failure("invalid", reason)


def test_store_result_raises_when_the_disk_fails() -> None:
    with pytest.raises(OSError, match="full"):
        store_result(OSError(errno.ENOSPC, "the disk is full"))
    gone = store_result(OSError(errno.ENOENT, "no such file"))
    assert gone is not None and gone.kind == "invalid"


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
