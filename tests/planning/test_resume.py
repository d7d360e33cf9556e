"""What a resumed run folds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.planning.resume import (
    alone_keys,
    both,
    measured_folds,
    missing_files,
    suspect_keys,
    unfinished_tasks,
)
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.costs.factors import MEASURED_STAGES
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


@pytest.mark.parametrize(
    ("written", "wanted", "missing"),
    [
        ({}, {}, []),
        ({}, {"pae": "best:1"}, ["write.pae=best:1"]),
        ({"pae": "best:1"}, {"pae": "best:2"}, ["write.pae=best:2"]),
        ({"pae": "best:2"}, {"pae": "best:1"}, []),
        ({"pae": "best:9"}, {"pae": "all"}, ["write.pae=all"]),
        ({"pae": "all"}, {"pae": "best:9"}, []),
        ({"pae": "all"}, {}, []),
        ({"files": ("pde",)}, {"files": ("boltz", "pde")}, ["write.files=boltz"]),
        ({"structures": "none"}, {"structures": "bcif"}, ["write.structures=bcif"]),
        ({"structures": "cif"}, {"structures": "bcif"}, []),
        ({}, {"structures": "none"}, []),
        ({"structure_samples": "best"}, {}, ["write.structure_samples=all"]),
        ({"structure_samples": "best"}, {"structures": "none"}, []),
        ({}, {"structure_samples": "best"}, []),
    ],
)
def test_missing_files_are_those_that_a_result_lacks(
    written: dict[str, Any], wanted: dict[str, Any], missing: list[str]
) -> None:
    earlier = WriteConfig(**written)
    now = WriteConfig(**wanted)
    assert missing_files(earlier, now, num_samples=2, num_chains=9) == missing
    union = both(earlier, now)
    assert not missing_files(union, earlier, 2, 9) and not missing_files(union, now, 2, 9)


@pytest.mark.parametrize(
    ("num_chains", "written", "wanted", "is_missing"),
    [
        (1, "best:1", "all", False),
        (1, "none", "best:1", True),
        (2, "best:1", "best:3", False),
        (2, "best:1", "all", False),
        (3, "best:2", "all", True),
        (3, "best:3", "all", False),
    ],
)
def test_pae_of_all_pairs_lacks_nothing(
    num_chains: int, written: str, wanted: str, is_missing: bool
) -> None:
    earlier = WriteConfig(pae=written)
    now = WriteConfig(pae=wanted)
    missing = [f"write.pae={wanted}"] if is_missing else []
    assert missing_files(earlier, now, 2, num_chains) == missing


@pytest.mark.parametrize(("structures", "samples"), [("none", "best"), ("cif.gz", "all")])
def test_files_of_all_samples_are_kept_only_where_there_were_any(
    structures: Any, samples: str
) -> None:
    earlier = WriteConfig(structures=structures)
    now = WriteConfig(structures="none", structure_samples="best", pae="all")
    assert both(earlier, now).structure_samples == samples


def test_one_sample_is_all_samples() -> None:
    best = WriteConfig(structure_samples="best")
    assert not missing_files(best, WriteConfig(), num_samples=1, num_chains=2)


def test_measured_folds_are_those_of_the_same_hardware_and_input(tmp_path: Path) -> None:
    out = tmp_path / "run"
    known = replace(task(300), key="k1")
    stages = {f"seconds_{stage}": 2.0 for stage in MEASURED_STAGES}
    shape = {"group_size": 2, "precision": "bf16", "parallel_samples": 5, "msa_depth": 70}
    store = Store.open(out, replace(INFO, hardware="h200"))
    for outcome in ("done", "oom", "error"):
        store.put_attempt(ATTEMPT | shape | stages | {"outcome": outcome, "seconds": 9.0})
    store.put_attempt(ATTEMPT | shape | {"key": "k2", "name": "k2"})
    store.close()
    folds = measured_folds(out, [known], "h200")
    assert [fold.ran_out for fold in folds] == [False, True]
    assert folds[0].shape == FoldShape(2, "bf16", 5, 70)
    assert folds[0].task == replace(known, msa_depth=70)
    assert folds[0].stages == dict.fromkeys(MEASURED_STAGES, 2.0)
    assert folds[0].seconds == 9.0
    assert measured_folds(out, [known], "another") == []
    assert measured_folds(out, [], "h200") == []


def test_a_batch_is_one_measured_fold(tmp_path: Path) -> None:
    """That of its largest complex; of one in which a complex failed, the time means nothing."""
    out = tmp_path / "run"
    known = [replace(task(100 + index), key=f"k{index}") for index in range(4)]
    shape = {"group_size": 1, "precision": "bf16", "parallel_samples": 5, "msa_depth": 70}
    store = Store.open(out, replace(INFO, hardware="h200"))
    for second, outcomes in enumerate((["done"] * 4, ["oom"] * 4, ["done"] * 3 + ["error"])):
        for index, outcome in enumerate(outcomes):
            of_batch = {
                "key": f"k{index}",
                "num_tokens": 100 + index,
                "outcome": outcome,
                "started": datetime(2026, 1, 1, second=second, tzinfo=UTC),
                "gpus": "host:0",
                "seconds": 2.5,
                "batch": 4,
                **{f"seconds_{stage}": 2.0 + index for stage in MEASURED_STAGES},
            }
            store.put_attempt(ATTEMPT | shape | of_batch)
    store.close()
    done, ran_out = measured_folds(out, known, "h200")
    assert done.shape == FoldShape(1, "bf16", 5, 70, batch=4)
    assert (done.task.key, done.seconds, done.stages["trunk"]) == ("k3", 10.0, 14.0)
    assert (ran_out.task.key, ran_out.ran_out) == ("k3", True)
    assert measured_folds(out, known[:3], "h200") == []


@pytest.mark.parametrize(
    ("outcome", "batch", "is_alone"),
    [
        ("oom", 4, True),
        ("error", 4, True),
        ("invalid", 4, True),
        ("done", 4, False),
        ("stopped", 4, False),
        ("error", 1, False),
    ],
)
def test_alone_keys_are_of_batches_that_failed(
    tmp_path: Path, outcome: str, batch: int, is_alone: bool
) -> None:
    out = tmp_path / "run"
    store = Store.open(out, INFO)
    store.put_attempt(ATTEMPT | {"outcome": outcome, "batch": batch})
    store.close()
    assert alone_keys(out) == ({"k1"} if is_alone else set())
