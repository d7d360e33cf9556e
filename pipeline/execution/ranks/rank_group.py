"""Ranks as Ray actors: a placement group, an actor for each rank in it, and how they join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foldcp.pipeline.execution.ray_cluster import call_gcs
from foldcp.pipeline.execution.ray_results import GatheredResults
from foldcp.pipeline.execution.results import DeviceLocation, Ready
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.types import Failure

import ray  # isort: skip  after ray_cluster.py, which sets its environment
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NODE_LABEL = "ray.io/node-id"
FREE_SECONDS = 0.1  # from the end of a placement group to its GPUs being free, as measured


class RankGroup:
    """A placement group and its ranks, which end when the process that has this object ends.

    Their actors have the methods of `RankProcess`, and `join`.
    """

    def __init__(
        self, name: str, placement: Placement, device: str, cpus_per_worker: float
    ) -> None:
        """`name` is that of the placement group; `device` is cuda or cpu."""
        self.name = name
        self.placement = placement
        self.device = device
        self.cpus_per_worker = cpus_per_worker
        self.workers: list[Any] = []  # the actors, by rank once they have joined
        self.rank_nodes: list[str] = []  # known once the workers have started

    def start_workers(
        self, actor: Any, arguments: Sequence[object], timeout: float
    ) -> Ready | Failure:
        """Take the GPUs, start an actor for each rank, number them, and let them join.

        `timeout` is in seconds, for the GPUs.
        """
        group = self._make_placement_group()
        if not group.wait(timeout):
            state = placement_group_table(group)["stats"]["scheduling_state"]
            kind = "GPUs" if self.device == "cuda" else "CPUs"
            return Failure(
                "no_room",
                f"Ray gave no {kind} within {timeout:.0f} s ({state}): another job may have them, "
                "or Ray waits for a node that does not answer",
            )
        for bundle, (_, count) in enumerate(self.placement):
            placed = actor.options(
                num_cpus=self.cpus_per_worker,
                num_gpus=int(self.device == "cuda"),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=bundle
                ),
            )
            self.workers += [placed.remote(*arguments) for _ in range(count)]
        locations = self._gather([worker.device_location.remote() for worker in self.workers])
        return locations if isinstance(locations, Failure) else self._join(locations)

    def _make_placement_group(self) -> PlacementGroup:
        """A bundle of the resources of all workers on each node."""
        per_worker = {"CPU": self.cpus_per_worker}
        if self.device == "cuda":
            per_worker["GPU"] = 1
        bundles = [
            {resource: amount * count for resource, amount in per_worker.items()}
            for _, count in self.placement
        ]
        strategy = "STRICT_PACK" if len(bundles) == 1 else "STRICT_SPREAD"
        return placement_group(
            bundles,
            strategy=strategy,
            name=self.name,
            bundle_label_selector=[{NODE_LABEL: node} for node, _ in self.placement],
        )

    def _join(self, locations: Sequence[DeviceLocation]) -> Ready | Failure:
        """Number the ranks by node and GPU, as Ray's order means nothing, and let them join."""
        node_order = [node for node, _ in self.placement]

        def position(index: int) -> tuple[int, tuple[int, str]]:
            location = locations[index]
            return node_order.index(location.node), _numeric_order(location.gpu)

        order = sorted(range(len(locations)), key=position)
        self.workers = [self.workers[index] for index in order]
        locations = [locations[index] for index in order]
        self.rank_nodes = [location.node for location in locations]
        addresses = self._gather([self.workers[0].rendezvous_address.remote()])
        if isinstance(addresses, Failure):
            return addresses
        refs = []
        for rank, (worker, location) in enumerate(zip(self.workers, locations, strict=True)):
            gpus = [other.gpu for other in locations if other.node == location.node]
            device = f"cuda:{gpus.index(location.gpu)}" if self.device == "cuda" else "cpu"
            size = len(self.workers)
            refs.append(worker.join.remote(rank, size, addresses[0], device, ",".join(gpus)))
        results = self._gather(refs)
        if isinstance(results, Failure):
            return results
        if failure := first_failure(results):
            return failure
        return Ready(tuple(locations), results[0].kernels)

    def _gather(self, refs: Sequence[Any]) -> list[Any] | Failure:
        """The results of a call to the ranks, or the root cause of its failure."""
        return GatheredResults(refs, self.rank_nodes).wait()


def remove_group(name: str) -> bool:
    """Ask for the removal of a placement group; whether there still was one of this name."""
    tables = call_gcs(lambda: placement_group_table()).values()
    if not any(table["name"] == name and table["state"] != "REMOVED" for table in tables):
        return False
    call_gcs(lambda: remove_placement_group(ray.util.get_placement_group(name)))
    return True


def first_failure(results: Sequence[Any] | Failure) -> Failure | None:
    """A failure of the group, or of the first rank that has one."""
    if isinstance(results, Failure):
        return results
    return next((result for result in results if isinstance(result, Failure)), None)


def _numeric_order(gpu: str) -> tuple[int, str]:
    """A key that sorts "9" before "10"."""
    return (int(gpu), "") if gpu.isdigit() else (0, gpu)
