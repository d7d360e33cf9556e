"""Schedules of faults, drawn from a seed: what goes wrong in a run, and when.

The same seed gives the same schedule. Here is neither Ray nor the simulator: `execute.py` lets a
schedule happen to real runs, `virtual.py` to simulated ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

# What a rank does instead of folding a complex.
FoldFaultKind = Literal["raise", "oom", "memory_error", "nan", "wrong_type", "die", "hang"]
# What happens to the processes of a run from outside.
ProcessFaultKind = Literal[
    "kill_rank",
    "freeze_rank",
    "kill_group",
    "freeze_group",
    "kill_raylet",
    "kill_gcs",
    "kill_node",
    "remove_node",
    "freeze_node",
    "add_node",
    "disk_full",
    "second_driver",
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
    "SIGKILL",
]
Event = Literal["group_started", "fold_started"]  # of RUN/log.jsonl

SIGNALS: tuple[ProcessFaultKind, ...] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
GROUP_FAULTS: tuple[ProcessFaultKind, ...] = (
    "kill_rank",
    "freeze_rank",
    "kill_group",
    "freeze_group",
)
NODE_FAULTS: tuple[ProcessFaultKind, ...] = ("kill_node", "remove_node", "freeze_node")
FOLD_FAULTS: tuple[FoldFaultKind, ...] = (
    "raise",
    "oom",
    "memory_error",
    "nan",
    "wrong_type",
    "die",
    "hang",
)
TWO_RANKS = "two"  # the complex that needs two ranks
NUM_NAMES = 6  # of other complexes


@dataclass(frozen=True, slots=True)
class ProcessFault:
    """A fault `delay` seconds after the `count`-th event of an invocation.

    `target` says which rank, group or node, modulo how many there are.
    """

    kind: ProcessFaultKind
    event: Event
    count: int
    delay: float
    target: int


@dataclass(frozen=True, slots=True)
class FoldFault:
    """What rank `rank` does instead of folding a complex: the first time, or each time."""

    kind: FoldFaultKind
    complex: str
    rank: int
    is_always: bool


@dataclass(frozen=True, slots=True)
class Invocation:
    """One `foldcp score`: what hits its processes, and what was truncated before it began.

    `truncations` are of files of the run's folder; each number chooses one, modulo how many there
    are.
    """

    faults: tuple[ProcessFault, ...] = ()
    truncations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that happens to a run until it is over: the same command, as often as it was stopped."""

    seed: int
    is_joined: bool  # on a Ray cluster that was there before, or on a Ray of its own
    num_nodes: int  # of that cluster, with a rank each
    complexes: tuple[str, ...]
    has_invalid: bool  # whether the input has a record that is no complex
    fold_faults: tuple[FoldFault, ...]
    invocations: tuple[Invocation, ...]  # each but the last ends early
    batch: int = 1  # complexes that are folded together at most

    @property
    def kinds(self) -> list[str]:
        """The kinds of all faults, in the order in which they may come."""
        faults: list[str] = [fault.kind for fault in self.fold_faults]
        for invocation in self.invocations:
            faults += ["truncate"] * len(invocation.truncations)
            faults += [fault.kind for fault in invocation.faults]
        return faults


def draw_schedule(seed: int, size: int = 1) -> Schedule:
    """The schedule of a seed; `size` times as many complexes and faults."""
    draw = random.Random(seed)
    is_joined = draw.random() < 0.85
    num_nodes = 2 if is_joined and draw.random() < 0.3 else 1
    names = [f"c{index}" for index in range(NUM_NAMES * size)]
    complexes = draw.sample(names, draw.randint(3 * size, len(names)))
    if num_nodes == 2 and draw.random() < 0.5:
        complexes.append(TWO_RANKS)
    fold_faults = _draw_fold_faults(draw, complexes, size)
    has_invalid = draw.random() < 0.2
    invocations = _draw_invocations(draw, is_joined, num_nodes, 1 - len(fold_faults), size)
    return Schedule(
        seed=seed,
        is_joined=is_joined,
        num_nodes=num_nodes,
        complexes=tuple(complexes),
        has_invalid=has_invalid,
        fold_faults=fold_faults,
        invocations=invocations,
        batch=3 if draw.random() < 0.4 else 1,
    )


def _draw_fold_faults(
    draw: random.Random, complexes: list[str], size: int
) -> tuple[FoldFault, ...]:
    """Faults of ranks, of different complexes."""
    number = draw.choice((0, 0, 1, 1, 2)) * size
    return tuple(
        FoldFault(
            kind=draw.choice(FOLD_FAULTS),
            complex=name,
            rank=draw.randrange(2) if name == TWO_RANKS else 0,
            is_always=draw.random() < 0.3,
        )
        for name in draw.sample(complexes, number)
    )


def _draw_invocations(
    draw: random.Random, is_joined: bool, num_nodes: int, at_least: int, size: int
) -> tuple[Invocation, ...]:
    """The invocations of a run, with `at_least` faults in all."""
    endings: list[ProcessFaultKind] = [*SIGNALS, "disk_full"]
    if is_joined:
        endings += ["kill_gcs", "kill_raylet"]
    others: list[ProcessFaultKind] = [*GROUP_FAULTS, *GROUP_FAULTS, "second_driver"]
    if not is_joined:
        others += ["kill_gcs", "kill_raylet"] * 4
    if num_nodes == 2:
        others += [*NODE_FAULTS, *NODE_FAULTS]
    invocations: list[Invocation] = []
    for number in range(1 + (draw.random() < 0.45)):
        num_faults = max(draw.choice((0, 1, 1, 2)), 0 if number else at_least) * size
        faults = [_draw_fault(draw, draw.choice(others), size) for _ in range(num_faults)]
        truncations = [draw.randrange(1000)] if number and draw.random() < 0.4 else []
        invocations.append(Invocation(tuple(_with_new_nodes(draw, faults)), tuple(truncations)))
    if len(invocations) == 2:
        first = invocations[0]
        ending = _draw_fault(draw, draw.choice(endings), size)
        if first.faults:  # which are to come before
            last = max(fault.count for fault in first.faults)
            ending = replace(ending, event="fold_started", count=max(ending.count, last))
        invocations[0] = Invocation((*first.faults, ending), first.truncations)
    return tuple(invocations)


def _with_new_nodes(draw: random.Random, faults: list[ProcessFault]) -> list[ProcessFault]:
    """The faults, with at most one lost node, and another node for it."""
    lost = [fault for fault in faults if fault.kind in NODE_FAULTS]
    kept = [fault for fault in faults if fault not in lost[1:]]
    if lost and draw.random() < 0.6:
        first = lost[0]
        delay = first.delay + draw.uniform(0.0, 2.0)
        kept.append(ProcessFault("add_node", first.event, first.count, delay, 0))
    return kept


def _draw_fault(draw: random.Random, kind: ProcessFaultKind, size: int) -> ProcessFault:
    """A fault at a drawn moment."""
    event: Event = "group_started" if draw.random() < 0.2 else "fold_started"
    count = draw.randint(1, size if event == "group_started" else 3 * size)
    return ProcessFault(kind, event, count, round(draw.uniform(0.0, 0.4), 3), draw.randrange(4))
