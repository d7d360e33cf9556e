"""What a resumed run folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.planning.resume import (
    both,
    missing_files,
    suspect_keys,
    unfinished_tasks,
)
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
