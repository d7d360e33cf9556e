"""The driver's view of the nodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from foldcp.pipeline.config import load
from foldcp.pipeline.execution.driver import Driver
from foldcp.pipeline.execution.ray_cluster import Node, RayConnection
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.types import Failure


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
            history=[],
            verbose=False,
        )


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
