"""Files and folders that every node of a cluster must see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from foldcp.pipeline.execution.ray_cluster import Node
from foldcp.pipeline.execution.ray_results import result_or_failure
from foldcp.pipeline.scheduling.types import Failure

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_SECONDS = 60.0  # in which a node must answer, starting a process


@ray.remote(num_cpus=0, max_retries=0)
def unseen(paths: Sequence[str], folder: str) -> list[str]:
    """The paths that the machine of this task does not have, and a folder it cannot write to."""
    missing = [path for path in paths if not Path(path).exists()]
    return missing if os.access(folder, os.W_OK) else [*missing, folder]


def check_shared(nodes: Sequence[Node], folder: Path, others: Sequence[Path]) -> None:
    """Raise ValueError naming the nodes that do not see `folder`, which is there, as this machine
    does, cannot write to it, or lack some of the other paths.

    A file in the folder for the time of the question tells it from another one at its path.
    """
    with NamedTemporaryFile(dir=folder, prefix=".seen-by-all-nodes-") as mark:
        paths = [mark.name, *map(str, others)]
        refs = [
            unseen.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(paths, str(folder))
            for node in nodes
        ]
        hosts: dict[str, list[str]] = {}
        for node, ref in zip(nodes, refs, strict=True):
            found = result_or_failure(ref, node.host, ANSWER_SECONDS)
            if isinstance(found, Failure):
                raise ValueError(f"--address: {found.reason}")
            for path in found:
                of_path = hosts.setdefault(str(folder) if path == mark.name else path, [])
                if node.host not in of_path:
                    of_path.append(node.host)
    reasons = [f"{path}: not there on {', '.join(names)}" for path, names in hosts.items()]
    if reasons:
        raise ValueError(
            f"{'; '.join(reasons)}: every node needs the run's folder, its data and weights at the "
            "same paths"
        )
