"""Folds that turn out slow and would end after all others: begun again on more GPUs.

How slow a fold is can be seen after a hundredth of it, when little is lost by beginning it again.
The GPUs that it needs beside its own are free, or those of small folds that began not long ago.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.group_size import CostCache
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.policy.fold_progress import FoldTrack
from foldcp.pipeline.scheduling.types import GroupState, QueuedTask

SLOW = 1.15  # times as slow as the others, and so much longer than the rest of the run
GAIN = 0.1  # share of its time left that a larger group must save
KNOWN = 0.01  # share of a fold after which its speed is known
LEAST_SECONDS = 300.0  # of a fold left: below it nothing is worth the trouble
SHORT = 0.5  # of the rest of the run, of folds that may be begun again later for others
MAX_MOVES = 2  # of a task


@dataclass(frozen=True, slots=True)
class SlowFold:
    """A fold that is slower than the others and outlasts them. Times are in seconds."""

    group: GroupState
    queued: QueuedTask
    track: FoldTrack
    seconds_left: float  # of this fold
    run_seconds: float  # until the rest of the run is over
    slowdown: float  # measured over predicted seconds of this fold
    typical_slowdown: float  # of the others

    def sizes(self, costs: CostCache, start_seconds: float) -> list[tuple[FoldShape, float]]:
        """Larger groups that save enough, the best first, and the seconds until each is done.

        The best is the smallest one that ends with the run, or else the fastest.
        """
        task = self.queued.task
        smallest = replace(self.queued.shape, num_ranks=self.queued.min_ranks)
        times = self.track.times
        kept = max(self.queued.kept_passes, self._kept_passes())
        factor = times.share_left(kept) * self.slowdown
        options = [
            (option, start_seconds + factor * costs.seconds(task, option))
            for option in costs.options(task, smallest)
            if option.num_ranks > self.group.size
        ]
        limit = (1 - GAIN) * self.seconds_left
        useful = [(option, seconds) for option, seconds in options if seconds <= limit]
        return sorted(useful, key=lambda found: max(found[1], self.run_seconds))

    def _kept_passes(self) -> int:
        times = self.track.times
        if not self.track.keeps_passes:
            return 0
        return min(times.num_passes_done(self.track.last), times.num_passes - 1)


def groups_to_stop(
    slow: SlowFold, size: int, saved: float, cluster: Cluster, groups: Groups, now: float
) -> tuple[GroupState, ...] | None:
    """The groups, beside the fold's own, whose GPUs a group of `size` needs; None if it costs more.

    The work lost may be what the new group could do in the `saved` seconds.
    """
    own = slow.group.placement
    unused = [group.placement for group in [*groups.idle(), *groups.stopping()]]
    free = cluster.free.with_placements([own, *unused])
    placement = free.find(size, cluster.shapes)
    smaller = _by_node(slow, cluster, groups, now)
    if placement is None:

        def found(num_nodes: int) -> Placement | None:
            placements = [group.placement for _, on in smaller[:num_nodes] for group in on]
            return free.with_placements(placements).find(size, cluster.shapes)

        enough = 1 + bisect.bisect_left(
            range(1, len(smaller) + 1), True, key=lambda num_nodes: found(num_nodes) is not None
        )
        placement = found(enough) if enough <= len(smaller) else None
    if placement is None:
        return None
    missing = {node: count - cluster.free.counts[node] for node, count in placement}
    for used in [own, *unused]:
        for node, count in used:
            if node in missing:
                missing[node] -= count
    stop: list[GroupState] = []
    lost = 0.0
    for node, on_node in smaller:
        for group in on_node:
            if missing.get(node, 0) > 0:
                stop.append(group)
                lost += group.size * (now - group.since)
                missing[node] -= group.size
    return tuple(stop) if lost <= saved * size else None


def _is_short(group: GroupState, slow: SlowFold) -> bool:
    """Whether a group's fold is smaller, and would end with the run if it was begun again."""
    if group.state != "busy" or group.queued is None or len(group.placement) > 1:
        return False
    seconds = group.queued.seconds * slow.typical_slowdown
    return group.size < slow.group.size and seconds <= SHORT * slow.run_seconds


def _by_node(
    slow: SlowFold, cluster: Cluster, groups: Groups, now: float
) -> Sequence[tuple[str, list[GroupState]]]:
    """Smaller folds by their node, each node's shortest so far first, as are the nodes."""
    found: list[tuple[float, str, list[GroupState]]] = []
    for node in cluster.nodes:
        on_node = [group for group in groups.on_node(node) if _is_short(group, slow)]
        if on_node:
            on_node.sort(key=lambda group: now - group.since)
            lost = sum(group.size * (now - group.since) for group in on_node)
            found.append((lost, node, on_node))
    return [(node, on_node) for _, node, on_node in sorted(found, key=lambda entry: entry[:2])]
