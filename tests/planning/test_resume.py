"""What a resumed run folds."""

from __future__ import annotations

from pathlib import Path

import pytest

from foldcp.pipeline.planning.resume import suspect_keys, unfinished_tasks
from foldcp.pipeline.storage.store import Store
from tests.support.scheduling import task
from tests.support.synthetic_results import ATTEMPT, INFO


def test_unfinished_tasks_are_those_without_a_result() -> None:
    done, failed, new = (task(length) for length in (100, 200, 300))
    outcomes = {done.key: "done", failed.key: "failed", "another": "done"}
    assert unfinished_tasks([done, failed, new], outcomes) == [failed, new]


@pytest.mark.parametrize(
    ("outcome", "is_suspect"),
    [
        ("done", False),
        ("oom", False),
        ("invalid", False),
        ("error", True),
        ("timeout", True),
        ("worker_died", True),
    ],
)
def test_suspect_keys_are_of_folds_that_ended_a_worker_group(
    tmp_path: Path, outcome: str, is_suspect: bool
) -> None:
    out = tmp_path / "run"
    store = Store.open(out, INFO)
    store.put_attempt(ATTEMPT | {"outcome": outcome})
    store.close()
    assert suspect_keys(out) == ({"k1"} if is_suspect else set())
