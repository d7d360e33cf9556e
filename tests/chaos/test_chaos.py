"""Schedules of faults: how they are drawn, thousands in virtual time, a few on real Ray."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from tests.chaos.checks import (
    Evidence,
    InvocationEnd,
    check_attempts,
    check_reasons,
    complaints_of_end,
    end_of_second_driver,
)
from tests.chaos.injection import Hit
from tests.chaos.schedule import FoldFaultKind, ProcessFaultKind, draw_schedule
from tests.chaos.virtual import simulate_schedule

ROOT = Path(__file__).parents[2]
SOME = "8,23,28"  # seeds of schedules for the ordinary tests


def test_draw_schedule_repeats_a_seed_and_draws_every_kind() -> None:
    schedules = [draw_schedule(seed) for seed in range(100)]
    assert schedules == [draw_schedule(seed) for seed in range(100)]
    kinds = Counter(kind for schedule in schedules for kind in schedule.kinds)
    expected = {*get_args(FoldFaultKind), *get_args(ProcessFaultKind), "truncate"}
    assert set(kinds) == expected
    assert all(schedule.kinds for schedule in schedules)
    assert sum(len(schedule.kinds) > 1 for schedule in schedules) > 50
    assert 25 < sum(schedule.batch > 1 for schedule in schedules) < 60


@pytest.mark.parametrize(("size", "number"), [(1, 2000), (10, 300)])
def test_simulated_schedules_give_every_task_one_outcome(size: int, number: int) -> None:
    num_folds = sum(simulate_schedule(draw_schedule(seed, size)) for seed in range(number))
    assert num_folds > 5 * size * number


@pytest.mark.parametrize(
    ("kind", "code", "is_right"),
    [
        ("SIGTERM", 143, True),
        ("SIGTERM", 130, False),
        ("SIGKILL", -9, True),
        ("kill_rank", 0, True),
        ("kill_rank", -9, False),
        ("disk_full", 75, True),
        ("freeze_node", 75, True),
        ("kill_group", 75, False),
    ],
)
def test_complaints_of_end(kind: str, code: int, is_right: bool) -> None:
    end = InvocationEnd(code, (Hit(kind, ()),), ())
    assert (complaints_of_end(end) == []) == is_right


@pytest.mark.parametrize(
    ("hits", "fold_hits", "is_true"),
    [
        (["kill_rank", "kill_group"], [], True),
        (["kill_rank"], [], False),  # one is not enough
        ([], [("die", "c1"), ("die", "c1")], True),
        ([], [("die", "c2"), ("die", "c2")], False),
        (["freeze_rank", "freeze_group"], [], False),
        (["SIGINT", "disk_full"], [], False),
    ],
)
def test_check_reasons_wants_faults_that_explain_a_failure(
    hits: list[str], fold_hits: list[tuple[str, str]], is_true: bool
) -> None:
    rows = [{"name": "c1", "outcome": "failed", "reason": "rank 0 died"}]
    end = InvocationEnd(1, tuple(Hit(kind, ()) for kind in hits), tuple(fold_hits))
    evidence = Evidence(draw_schedule(0), (end,), tuple(fold_hits))
    assert (list(check_reasons(pd.DataFrame(rows), evidence)) == []) == is_true


@pytest.mark.parametrize(
    ("batches", "outcomes", "is_right"),
    [
        ([2, 2, 1], ["error", "error", "done"], True),
        ([2, 2, 1], ["error", "error", "error"], False),  # two folds failed for one fault
        ([1, 1, 1], ["error", "error", "done"], False),
        ([2, 2, 2], ["error", "error", "done"], True),
    ],
)
def test_check_attempts_counts_a_batch_once(
    batches: list[int], outcomes: list[str], is_right: bool
) -> None:
    attempts = pd.DataFrame(
        {
            "run_id": "r1",
            "name": ["c1", "c2", "c2"],
            "attempt": [1, 1, 2],
            "batch": batches,
            "outcome": outcomes,
            "reason": "rank 0: RuntimeError: chaos: this rank raises",
        }
    )
    complexes = pd.DataFrame({"name": ["c1"], "outcome": ["done"]})
    hits = (("raise", "c2"),) if max(batches) > 1 else (("raise", "c1"),)
    evidence = Evidence(draw_schedule(0), (InvocationEnd(0, (), hits),), hits)
    assert (list(check_attempts(attempts, complexes, evidence)) == []) == is_right


def test_check_attempts_wants_a_complex_to_fail_alone() -> None:
    attempts = pd.DataFrame(
        {
            "run_id": "r1",
            "name": ["c1", "c2"],
            "attempt": 1,
            "batch": 2,
            "outcome": "error",
            "reason": "rank 0: RuntimeError: chaos: this rank raises",
        }
    )
    complexes = pd.DataFrame({"name": ["c1"], "outcome": ["failed"]})
    hits = (("raise", "c1"),)
    evidence = Evidence(draw_schedule(0), (InvocationEnd(0, (), hits),), hits)
    (complaint,) = check_attempts(attempts, complexes, evidence)
    assert complaint == "c1 failed, though it was last folded with others"


@pytest.mark.parametrize(
    ("code", "kinds"), [(2, None), (1, set[str]()), (75, {"disk_full"}), (0, {"kill_node"})]
)
def test_second_driver_is_an_invocation_unless_it_refuses(
    code: int, kinds: set[str] | None
) -> None:
    hits = tuple(Hit(kind, ()) for kind in ("kill_rank", "SIGTERM", *(kinds or ())))
    first = InvocationEnd(143, hits, (("oom", "c1"),))
    end = end_of_second_driver(code, first, (("oom", "c2"),))
    if kinds is None:
        assert end is None
        return
    assert end is not None
    assert end.kinds == {*kinds, "oom"}
    assert end.fold_hits == (("oom", "c2"),)
    assert complaints_of_end(end) == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as on Linux")
@pytest.mark.timeout(1500)  # a minute on a quiet machine
def test_runs_survive_schedules_of_faults() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seeds", SOME, "--lanes", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert f"{len(SOME.split(','))} schedules" in result.stdout
