"""The rate at which one driver dispatches folds and stores results: `bench_driver.py OUT`.

The driver, its scheduler, Ray's messages and the run's folder are real. The GPUs are not: one
process stands for all worker groups, waits for as long as a fold takes, and stages a result of two
chains as rank 0 of a group does, with a structure of 60 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foldcp.complex import Chain, Complex
from foldcp.config import BOLTZ2
from foldcp.pipeline.config import RunConfig, load
from foldcp.pipeline.execution import driver as driver_module
from foldcp.pipeline.execution import prefetch as prefetch_module
from foldcp.pipeline.execution.driver import Driver
from foldcp.pipeline.execution.ray_cluster import Node, RayConnection
from foldcp.pipeline.execution.recording.result_writer import ResultWriter
from foldcp.pipeline.execution.results import DeviceLocation, FoldStats, Ready, StagedResult
from foldcp.pipeline.execution.signals import StopSignals
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.storage.commits.staged_commit import stage_commit
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.run_folder import RunInfo
from foldcp.pipeline.storage.schemas import TABLES
from foldcp.pipeline.storage.store import Store

import ray  # isort: skip  after ray_cluster.py, which sets its environment

GPUS_PER_NODE = 8
STRUCTURE = random.Random(0).randbytes(60_000)
VALUES = {"string": "a", "list<string>": [], "list<int32>": [1], "int64": 1, "bool": False}
ROWS = {"complexes": 1, "chains": 2, "interfaces": 2, "pairs": 1}


@ray.remote(num_cpus=0)
class Groups:
    """All worker groups."""

    def __init__(self, writer: ResultWriter, seconds: float) -> None:
        self._staging = writer.staging_area("groups")
        self._seconds = seconds
        self._draw = random.Random(0)

    async def start(self, placement: Any) -> Ready:
        """A group that is ready at once."""
        return Ready(tuple(DeviceLocation(node, "0") for node, _ in placement), "none")

    async def fold(self, task: Task) -> StagedResult:
        """A result, after the time of a fold."""
        await asyncio.sleep(self._seconds * self._draw.uniform(0.7, 1.3))
        # As groups are processes of their own, none waits for another's disk.
        return await asyncio.to_thread(self._stage, task)

    def _stage(self, task: Task) -> StagedResult:
        """The rows and the structure of a complex, on the disk under temporary names."""
        rows = {name: [row(name, task)] * count for name, count in ROWS.items()}
        files = {f"structures/{task.key[:2]}/{task.key}/0.cif.gz": STRUCTURE}
        commit = stage_commit(self._staging, task.key, "complex", rows, files, task.write)
        return StagedResult(FoldStats({"trunk": self._seconds}, 10**9, 100), commit)

    async def make(self, *_: Any) -> None:
        """No features."""

    async def cancel(self, number: int) -> bool:
        """No features are being made."""
        return True


def row(table: str, task: Task) -> dict[str, Any]:
    """A row with a value in each column."""
    values = {column.name: VALUES.get(column.type, 0.5) for column in TABLES[table].columns}
    known = {"key": task.key, "name": task.name, "outcome": "done"}
    return values | {name: value for name, value in known.items() if name in values}


def virtual_groups(actor: Any) -> type:
    """The class of handles of groups that `actor` stands for."""

    class VirtualGroup:
        def __init__(self, name: str, placement: Any, *_: Any) -> None:
            self.name = name
            self.placement = placement

        def start(self, timeout: float) -> Any:
            return actor.start.remote(self.placement)

        def fold(self, task: Task, *_: Any) -> Any:
            return actor.fold.remote(task)

        def kill(self) -> None: ...

        def stop(self) -> None: ...

        def is_gone(self) -> bool:
            return True

    return VirtualGroup


def pairs(number: int) -> list[Task]:
    """Pairs of proteins of a screen."""
    chains = tuple(Chain(name, "protein", "MKTAYIAKQR" * 32) for name in "AB")
    key = random.Random(0)
    return [
        Task(Complex(f"pair{index}", chains), f"{key.getrandbits(128):032x}", 640, 100)
        for index in range(number)
    ]


def run(tasks: Sequence[Task], config: RunConfig, out: Path, gpus: int, seconds: float) -> None:
    """Store all of them, and print the rate."""
    provenance = Provenance("none", untrained=True)
    info = RunInfo({"weights": "none"}, "bench", "none", "none", True, {}, {})
    store = Store.open(out, info)
    connection = RayConnection("", 2, verbose=False)
    connection.wait()
    writer = ResultWriter(str(out.resolve()), store.run_id, config, provenance)
    actor = Groups.remote(writer, seconds)  # type: ignore[attr-defined]
    nodes = [
        Node(f"{index:056x}", f"node{index}", 16, GPUS_PER_NODE)
        for index in range(gpus // GPUS_PER_NODE)
    ]
    driver_module.alive_nodes = lambda: nodes
    driver_module.WorkerGroupHandle = virtual_groups(actor)  # type: ignore[misc]
    prefetch_module.FeatureMakerActor = SimpleNamespace(
        options=lambda **_: SimpleNamespace(remote=lambda _: actor)
    )
    plan: Any = SimpleNamespace(
        config=config,
        architecture=BOLTZ2,
        provenance=provenance,
        input_spec=SimpleNamespace(checkpoint="none"),
        task_list=SimpleNamespace(tasks=tasks, invalid=()),
    )
    hardware = load_hardware("h200")
    with StopSignals() as signals:
        arguments = (plan, tasks, store, hardware, connection, signals)
        driver = Driver(
            *arguments, max_ranks=0, suspects=set(), alone=set(), history=(), verbose=False
        )
        began = (time.perf_counter(), time.process_time())
        driver.run()
    wall = time.perf_counter() - began[0]
    cpu = time.process_time() - began[1]
    entries = Counter(path.parent for path in out.rglob("*"))
    folder, most = entries.most_common(1)[0]
    store.close()
    connection.close()
    num_done = list(store.outcomes().values()).count("done")
    assert num_done == len(tasks), f"{num_done} of {len(tasks)} are stored"
    print(f"{num_done} complexes on {gpus} virtual GPUs, {seconds:.2f} s each: {wall:.1f} s")
    print(f"{num_done / wall:.0f} a second; the driver's CPU time {1000 * cpu / num_done:.2f} ms")
    print(f"at most {most} entries in a folder, {folder.relative_to(out)}")


def main() -> None:
    """Print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--complexes", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a fold")
    options = parser.parse_args()
    config = load(overrides=["msa.missing=single-sequence"])
    config = replace(config, run=replace(config.run, max_group=1, batch=1))
    tasks = pairs(options.complexes)
    os.environ["TQDM_DISABLE"] = "1"
    run(tasks, config, options.out, options.gpus, options.seconds)


if __name__ == "__main__":
    main()
