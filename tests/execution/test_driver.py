"""The driver's view of the nodes."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from foldcp.pipeline.config import load
from foldcp.pipeline.execution import driver as module
from foldcp.pipeline.execution.driver import Driver, threads_of_a_rank
from foldcp.pipeline.execution.ray_cluster import Node, RayConnection
from foldcp.pipeline.execution.results import (
    BatchResult,
    FoldStats,
    RemoteFoldResult,
    StagedResult,
)
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.types import Failure


def test_threads_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of_a_rank(ranks) for ranks in (1, 2, 8)] == [7, 3, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of_a_rank(1) == 2
    for text in ("", "0", "4,2"):  # no number of threads
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads_of_a_rank(1) == 7


def test_update_nodes_loses_those_that_are_gone_and_adds_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[object, ...]] = []
    driver = object.__new__(Driver)
    driver.connection = SimpleNamespace(check=lambda: None)  # type: ignore[assignment]
    driver.nodes = {name: Node(name, f"host {name}", 8, 0) for name in ("a", "b")}
    driver.plan = SimpleNamespace(config=load(overrides=["run.cpu_ranks=3"]))  # type: ignore[assignment]
    driver.costs = SimpleNamespace(hardware=load_hardware("cpu"))  # type: ignore[assignment]
    driver.clock_zero = 0.0
    driver.groups = {}
    driver.used_nodes = {"a", "b"}
    told: list[tuple[str, str]] = []
    driver.monitor = SimpleNamespace(  # type: ignore[assignment]
        nodes_changed=lambda event, node: told.append((event, node))
    )
    driver.scheduler = SimpleNamespace(  # type: ignore[assignment]
        cluster=Cluster({"a": 3, "b": 3}),
        lose_node=lambda node, reason, now: calls.append((node, reason)) or [],
        add_node=lambda node, count, now: calls.append((node, count)),
    )
    monkeypatch.setattr(
        "foldcp.pipeline.execution.driver.alive_nodes",
        lambda: [Node("b", "host b", 8, 0), Node("c", "new", 2, 0)],
    )
    driver.max_ranks = 0
    driver._update_nodes()
    assert calls == [("a", "node host a is gone"), ("c", 2)]
    assert told == [("node_lost", "a"), ("node_joined", "c")]
    calls.clear()
    driver._update_nodes()  # known nodes are not added again
    assert calls == [("a", "node host a is gone")]
    driver.used_nodes.remove("c")
    driver.max_ranks = 6  # as many as there are
    calls.clear()
    driver._update_nodes()
    assert calls == [("a", "node host a is gone")]
    driver.scheduler.cluster.remove_node("a")
    calls.clear()
    driver._update_nodes()  # it was not used, and now there is room for it
    assert calls == [("c", 2)]


def test_driver_refuses_a_cluster_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "foldcp.pipeline.execution.driver.alive_nodes", lambda: [Node("c", "head", 4, 0)]
    )
    plan = SimpleNamespace(config=load())
    store = SimpleNamespace(run_id="run")
    connection = object.__new__(RayConnection)
    signals = SimpleNamespace(number=0)
    with pytest.raises(ValueError, match="no node of the cluster has a cuda device free"):
        Driver(
            plan,  # type: ignore[arg-type]
            [],
            store,  # type: ignore[arg-type]
            load_hardware("h200"),
            connection,
            signals,  # type: ignore[arg-type]
            max_ranks=0,
            suspects=set(),
            alone=set(),
            history=[],
            verbose=False,
        )


def test_full_disk_loses_no_result_that_is_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch, and of other groups whose results have come at the same time."""
    stats = FoldStats({}, 0, 1)
    staged = [StagedResult(stats, name) for name in "ad"]  # type: ignore[arg-type]
    remote = RemoteFoldResult(stats, None, {})  # type: ignore[arg-type]
    results = {"first": BatchResult((staged[0], remote)), "second": staged[1]}
    stored: list[str] = []

    def stage(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def store_results(pairs: Sequence[tuple[object, StagedResult]]) -> dict[str, Failure]:
        stored.extend(str(result.commit) for _, result in pairs)
        return {}

    driver = object.__new__(Driver)
    driver.disk_error = None
    driver.connection = SimpleNamespace(check=lambda: None)  # type: ignore[assignment]
    driver.signals = SimpleNamespace(number=0)  # type: ignore[assignment]
    driver.writer = SimpleNamespace(stage=stage)  # type: ignore[assignment]
    driver.staging = None  # type: ignore[assignment]
    driver.recorder = SimpleNamespace(store_results=store_results)  # type: ignore[assignment]
    tasks = [SimpleNamespace(task=None, shape=None, fallbacks=()) for _ in range(3)]
    driver.scheduler = SimpleNamespace(  # type: ignore[assignment]
        groups={1: SimpleNamespace(members=tasks[:2]), 2: SimpleNamespace(members=tasks[2:])}
    )
    driver.groups = {1: None, 2: None}  # type: ignore[dict-item]
    driver.pending = {"first": 1, "second": 2}
    monkeypatch.setattr(module.ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(module, "result_or_failure", lambda ref, _: results[ref])
    monkeypatch.setattr(module, "fetch_prediction", lambda *_: "prediction")
    with pytest.raises(OSError, match="No space left"):
        driver._handle_results()
    assert stored == ["a", "d"]


def test_file_that_only_the_driver_has_is_the_fault_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Failure] = []
    driver = object.__new__(Driver)
    driver.verbose = False
    driver.clock_zero = 0.0
    driver.monitor = SimpleNamespace(failed=lambda *_: None)  # type: ignore[assignment]
    driver.scheduler = SimpleNamespace(  # type: ignore[assignment]
        groups={1: SimpleNamespace(state="busy")},
        failed=lambda group, failure, now: failures.append(failure) or [],
    )
    monkeypatch.setattr(driver, "_update_nodes", lambda: None)
    here = tmp_path / "a.a3m"
    here.touch()
    gone = str(tmp_path / "b.a3m")
    for path in (str(here), gone):
        failure = Failure("invalid", f"{path} does not exist on n7", missing_file=path)
        driver._on_failure(1, failure)
    assert [failure.kind for failure in failures] == ["error", "invalid"]
    assert failures[0].reason == (
        f"{here} does not exist on n7, but on the driver's node: all nodes need the input's files"
    )
    assert failures[1].reason == f"{gone} does not exist on n7"
