"""Reservations: when the first blocked task will start, and what others may use until then."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster, FreeGpus, Placement
from foldcp.pipeline.scheduling.types import GroupState


@dataclass(frozen=True, slots=True)
class Reservation:
    """The start time of the first blocked task, and the GPUs that it leaves.

    `left` are those that are free at that time beside its own, `spare` those of them that are free
    now. `stop` are idle groups to stop, if the start is at once.
    """

    time: float
    left: FreeGpus
    spare: FreeGpus
    stop: tuple[GroupState, ...] = ()

    def leaves(self, placement: Placement) -> bool:
        """Whether the GPUs of a placement are left."""
        return all(self.left.counts.get(node, 0) >= count for node, count in placement)


def reserve(size: int, cluster: Cluster, groups: Groups, now: float) -> Reservation | None:
    """The earliest start of a group of `size` GPUs, which fits nowhere now.

    None if it does not fit even when all groups have ended.
    """
    idle = groups.idle()
    soon_free = [group.placement for group in [*idle, *groups.stopping()]]
    free = cluster.free.with_placements(soon_free)
    if placement := free.find(size, cluster.shapes):
        stop = groups_to_stop(placement, cluster, groups, idle)
        return _reservation(now, free, placement, cluster, stop)
    for time, group in groups.in_order_of_end(now):
        free.add(group.placement)
        if placement := free.find(size, cluster.shapes):
            return _reservation(time, free, placement, cluster)
    return None


def reserve_nothing(cluster: Cluster) -> Reservation:
    """The reservation of a task that waits for nodes on which nothing may start now."""
    nothing = FreeGpus(dict.fromkeys(cluster.nodes, 0))
    return Reservation(math.inf, nothing, nothing)


def groups_to_stop(
    placement: Placement, cluster: Cluster, groups: Groups, idle: Iterable[GroupState]
) -> tuple[GroupState, ...]:
    """The fewest idle groups, in the order given, that a placement needs to be stopped.

    Beside their GPUs it has those that are free or of stopping groups.
    """
    missing = {node: count - cluster.free.counts[node] for node, count in placement}
    for group in groups.stopping():
        _subtract(missing, group.placement)
    stop: list[GroupState] = []
    for group in idle:
        if any(missing.get(node, 0) > 0 for node, _ in group.placement):
            stop.append(group)
            _subtract(missing, group.placement)
    return tuple(stop)


def _subtract(missing: dict[str, int], placement: Placement) -> None:
    for node, count in placement:
        if node in missing:
            missing[node] -= count


def _reservation(
    time: float,
    free: FreeGpus,
    placement: Placement,
    cluster: Cluster,
    stop: tuple[GroupState, ...] = (),
) -> Reservation:
    """What is left of the GPUs that are free at a time, when a group is placed there."""
    free.subtract(placement)
    return Reservation(time, free, cluster.free.at_most(free), stop)
