"""A worker as a Ray actor: prefetched features, its reports, and the delivery of results."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foldcp.complex import Complex, Template
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import (
    BatchResult,
    RankResult,
    RemoteFoldResult,
    StagedResult,
)
from foldcp.pipeline.execution.worker import make_inputs
from foldcp.pipeline.execution.worker_actor import WorkerActor
from foldcp.pipeline.inputs.tasks import Task, make_task
from foldcp.pipeline.scheduling.types import Failure
from foldcp.pipeline.storage.filesystem import FileSystem
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.execution.test_worker import DIMER, ONE, make_worker, prediction_of
from tests.support.synthetic_results import INFO, finishing

STEPS = tuple[str, int, int]


class Prefetched:
    """Inputs that a maker has made, or None."""

    def __init__(self, inputs: Any) -> None:
        self.get = lambda: inputs


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[STEPS]:
    monkeypatch.setattr("ray.put", lambda value: value)
    monkeypatch.setattr("ray.get", lambda ref, timeout=None: ref)
    return []


def make_actor(root: Path, run_id: str, reported: list[STEPS]) -> Any:
    """Rank 0 of a group of one, for the run in a folder."""
    worker = make_worker()
    provenance = Provenance("untrained:tiny", untrained=True)
    writer = ResultWriter(str(root), run_id, worker.worker_config.config, provenance)
    actor = WorkerActor.__ray_actor_class__(worker.worker_config, writer, "group", None)
    actor.worker = worker
    actor.progress = lambda *step: reported.append(step)
    return actor


def make_task_of(actor: Any, complex: Complex = DIMER, write: WriteConfig | None = None) -> Task:
    task = make_task(complex, actor.worker_config.config, "w")
    return task if write is None else replace(task, write=write)


def test_fold_takes_prefetched_features_or_makes_its_own(
    tmp_path: Path, reported: list[STEPS], monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor(tmp_path, "", reported)
    task = make_task_of(actor)
    expected = prediction_of(actor.worker, DIMER)
    inputs = make_inputs(DIMER, actor.worker_config.config, ONE)
    for prefetched in (None, Prefetched(None)):
        assert isinstance(actor.fold(task, ONE, prefetched, ""), RankResult)
        np.testing.assert_array_equal(actor.prediction.coords, expected.coords)
    monkeypatch.setattr("foldcp.pipeline.execution.worker.featurize", None)
    reported.clear()
    assert isinstance(actor.fold(task, ONE, Prefetched(inputs), ""), RankResult)
    np.testing.assert_array_equal(actor.prediction.coords, expected.coords)
    assert reported[0] == ("features", 0, 1) and reported[-1] == ("writing", 0, 1)
    assert {stage for stage, _, _ in reported} >= {"trunk", "sampling", "confidence"}


def test_fold_names_a_file_that_its_node_does_not_have(
    tmp_path: Path, reported: list[STEPS]
) -> None:
    actor = make_actor(tmp_path, "", reported)
    missing = tmp_path / "there.cif"
    complex = replace(DIMER, templates=(Template(missing),))
    failure = actor.fold(replace(make_task_of(actor), complex=complex), ONE, None, "")
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.missing_file) == ("invalid", str(missing))
    assert f"{missing} does not exist on " in failure.reason


def delivered(actor: Any, task: Task) -> Any:
    result = actor.fold(task, ONE, None, "")
    assert isinstance(result, RankResult)
    refs = {sample: [ref] for sample, ref in result.pae_refs.items()}
    return actor.deliver(task, ONE, (), result.stats, refs)


def test_deliver_stages_what_the_driver_would_store(tmp_path: Path, reported: list[STEPS]) -> None:
    for root, is_remote in ((tmp_path / "rank", False), (tmp_path / "driver", True)):
        with finishing(Store.open(root, INFO)) as store:
            actor = make_actor(root, "another" if is_remote else store.run_id, reported)
            task = make_task_of(actor, write=WriteConfig(pae="all"))
            result = delivered(actor, task)
            if is_remote:
                assert isinstance(result, RemoteFoldResult)
                prediction: Any = result.prediction_ref
                result = actor.writer.stage(
                    actor.writer.staging_area("driver"),
                    task,
                    ONE,
                    (),
                    result.stats,
                    prediction,
                    lambda sample, refs=result.pae_refs: iter(refs[sample][0]),
                )
            assert isinstance(result, StagedResult)
            assert result.stats.seconds["write"] > 0
            assert not store.outcomes()
            assert not store.put_staged([result.commit])
            assert store.outcomes() == {task.key: "done"}
        assert not list((root / ".tmp").iterdir())
    assert ("writing", 0, 1) in reported
    first, second = (read_table(tmp_path / name, "interfaces") for name in ("rank", "driver"))
    assert first.num_rows == 2
    assert first.equals(second)
    for suffix in ("0.cif.gz", "0_pae.h5"):
        (path,) = (tmp_path / "rank").rglob(suffix)
        other = tmp_path / "driver" / path.relative_to(tmp_path / "rank")
        assert path.stat().st_size == other.stat().st_size > 0


def test_result_of_a_heap_of_atoms_is_stored_without_interface_residues(
    tmp_path: Path, reported: list[STEPS], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldcp.metrics.geometry.geometry.MAX_NEIGHBOURS", 0)
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        actor = make_actor(store.root, store.run_id, reported)
        result = delivered(actor, make_task_of(actor))
        assert isinstance(result, StagedResult), result
        assert not store.put_staged([result.commit])
    rows = read_table(tmp_path / "run", "interfaces").to_pylist()
    assert [row["interface_residues_a"] for row in rows] == [None, None]


def test_deliver_leaves_a_disk_that_fails_to_the_driver(
    tmp_path: Path, reported: list[STEPS], monkeypatch: pytest.MonkeyPatch
) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        actor = make_actor(store.root, store.run_id, reported)

        def fail(*_: object) -> None:
            raise OSError(errno.ESTALE, "stale file handle")

        with monkeypatch.context() as context:
            context.setattr(FileSystem, "fill", fail)
            result = delivered(actor, make_task_of(actor))
        assert isinstance(result, RemoteFoldResult)
        assert not list((store.root / ".tmp").iterdir())


def test_deliver_returns_a_failure_for_a_result_without_rows(
    tmp_path: Path, reported: list[STEPS]
) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        actor = make_actor(store.root, store.run_id, reported)
        task = make_task_of(actor)
        other = replace(task.complex, chains=task.complex.chains[:1])
        fold = actor.fold(task, ONE, None, "")
        result = actor.deliver(replace(task, complex=other), ONE, (), fold.stats, {})
        assert isinstance(result, Failure)
        assert result.kind == "invalid"
        assert result.reason.startswith("its result cannot be stored: AssertionError")


def test_a_batch_delivers_each_result_and_each_failure(
    tmp_path: Path, reported: list[STEPS]
) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        actor = make_actor(store.root, store.run_id, reported)
        first = make_task_of(actor, write=WriteConfig(pae="all"))
        other = replace(DIMER, chains=DIMER.chains[:1])
        second = make_task_of(actor, other, first.write)
        without = replace(DIMER, templates=(Template(tmp_path / "there.cif"),))
        third = replace(second, complex=without, key="third")
        tasks = [first, third, second]
        inputs = make_inputs(DIMER, actor.worker_config.config, ONE)
        prefetched = [Prefetched(inputs), None, Prefetched(None)]
        batch = actor.fold_batch(tasks, replace(ONE, batch=3), prefetched)
        assert isinstance(batch, BatchResult)
        own, failure, last = batch.results
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.missing_file) == ("invalid", str(tmp_path / "there.cif"))
        assert isinstance(own, StagedResult) and isinstance(last, StagedResult)
        assert not store.put_staged([own.commit, last.commit])
        assert store.outcomes() == {first.key: "done", second.key: "done"}
    assert reported[-1] == ("writing", 0, 1)
    for stage in ("trunk", "sampling", "confidence"):
        done = [(done, total) for name, done, total in reported if name == stage]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


def test_sees_folder_knows_the_folder_of_its_run_from_another(tmp_path: Path) -> None:
    provenance = Provenance("w", untrained=True)
    writer = ResultWriter(str(tmp_path), "run-1", make_worker().worker_config.config, provenance)
    assert not writer.sees_folder()
    for content in ("[]", "{", json.dumps({"run_id": "run-2"})):
        (tmp_path / "run.json").write_text(content)
        assert not writer.sees_folder()
    (tmp_path / "run.json").write_text(json.dumps({"run_id": "run-1"}))
    assert writer.sees_folder()
