"""Batches: small complexes that one GPU folds together, as one of them does not fill it."""

from __future__ import annotations

from dataclasses import replace

from foldcp.pipeline.scheduling.group_size import CostCache
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import QueuedTask

# Complexes of a batch are padded to the largest, and have at least this share of its tokens.
SIMILAR = 0.85
LOOKED_AT = 4  # waiting tasks for each place in a batch


def can_share(queued: QueuedTask) -> bool:
    """Whether a task may be folded together with others: nothing is forced, and nothing has
    happened to it.
    """
    complex = queued.task.complex
    hints = (*complex.pockets, *complex.contacts, *complex.templates)
    is_marked = queued.is_alone or queued.is_suspect or queued.fallbacks or queued.kept_passes
    return not is_marked and not any(hint.force for hint in hints)


def most_together(queue: Queue, costs: CostCache, queued: QueuedTask, num_gpus: int) -> int:
    """How many tasks a GPU may fold together with `queued` among them, which does not wait.

    As many as pay off, and no more than the GPU's share of all that wait for one GPU, so that no
    other GPU is idle for it.
    """
    if queued.size > 1 or not can_share(queued):
        return 1
    num_waiting = len(queue.by_size.get(1, [])) + 1
    share = num_waiting // max(1, num_gpus)
    return min(costs.batch(queued.task, queued.shape), max(1, share))


def companions(
    queue: Queue,
    costs: CostCache,
    queued: QueuedTask,
    num_gpus: int,
    max_seconds: float,
    max_batch: int,
) -> list[QueuedTask]:
    """The waiting tasks to fold together with one that a GPU folds now, none larger.

    All together are at most `max_batch` and take at most `max_seconds`, as predicted.
    """
    most = min(max_batch, most_together(queue, costs, queued, num_gpus))
    while most > 1 and _seconds(costs, queued, most) > max_seconds:
        most -= 1
    if most == 1:
        return []
    size = queued.task.num_tokens
    found = [
        other
        for other in queue.shorter(queued, LOOKED_AT * most)
        if other.shape == queued.shape
        and other.task.write == queued.task.write
        and SIMILAR * size <= other.task.num_tokens <= size
        and can_share(other)
    ]
    return found[: most - 1]


def _seconds(costs: CostCache, queued: QueuedTask, batch: int) -> float:
    return costs.seconds(queued.task, replace(queued.shape, batch=batch))
