"""Tasks, costs and simulated runs for the tests of the scheduler."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import RunSection, load
from foldcp.pipeline.inputs.tasks import Done, Task
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.placement import Placement
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import FREE_SECONDS, Faults, Simulation
from foldcp.pipeline.scheduling.types import Attempt, Fold, Start, Stop

ANY = Complex("any", (Chain("A", "protein", "MKT"),))
COSTS = CostModel(load_hardware("h200"), load(overrides=["model.samples=5"]))
SETTINGS = RunSection()
NODE = {"a": 8}


def task(num_tokens: int, name: str = "", depth: int = 500) -> Task:
    return Task(ANY, name or f"{num_tokens}", num_tokens, depth)


def tasks(number: int, seed: int, scale: float = 1500.0, spread: float = 0.9) -> list[Task]:
    draw = random.Random(seed)
    sizes = (int(math.exp(draw.gauss(math.log(scale), spread))) for _ in range(number))
    return [
        task(min(30_000, max(50, n)), f"{i}", draw.choice([1, 500, 4000]))
        for i, n in enumerate(sizes)
    ]


def simulate(
    work: list[Task],
    nodes: Mapping[str, int] = NODE,
    faults: Faults | None = None,
    settings: RunSection = SETTINGS,
    costs: CostModel = COSTS,
) -> Simulation:
    return Simulation(work, costs, nodes, settings, faults).run()


def audit(
    simulation: Simulation, work: list[Task], nodes: Mapping[str, int], is_stable: bool = True
) -> None:
    """Check the invariants of every run, from the log of actions alone.

    The nodes are all that there were; `is_stable` says that none came or went.
    """
    scheduler = simulation.scheduler
    if not scheduler.stopped:
        assert set(scheduler.outcomes) == {t.key for t in work}
    placements = audit_gpus(simulation, nodes, is_stable)
    folds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    in_group: dict[int, list[tuple[float, float]]] = defaultdict(list)
    together: dict[tuple[int, float, float], list[Attempt]] = defaultdict(list)
    for attempt in scheduler.attempts:
        folds[attempt.task.key].append((attempt.started, attempt.ended))
        together[attempt.group, attempt.started, attempt.ended].append(attempt)
        assert attempt.shape.num_ranks == sum(count for _, count in placements[attempt.group])
    for (group, started, ended), members in together.items():
        in_group[group].append((started, ended))
        shapes = Counter(attempt.shape for attempt in members)
        assert len(shapes) == 1 or started == ended, "one batch at a time"
        assert all(count % shape.batch == 0 for shape, count in shapes.items())
        assert all(shape.batch == 1 or shape.num_ranks == 1 for shape in shapes)
    for spans in [*folds.values(), *in_group.values()]:
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), "two at once"
    done = Counter(attempt.task.key for attempt in scheduler.attempts if attempt.outcome == "done")
    assert all(count == 1 for count in done.values())
    assert set(done) == {
        key for key, outcome in scheduler.outcomes.items() if isinstance(outcome, Done)
    }
    begun = [action for _, action in simulation.log if isinstance(action, Fold)]
    assert sum(1 + len(fold.others) for fold in begun) == len(scheduler.attempts)
    assert all(outcome.attempt == len(folds[key]) for key, outcome in scheduler.outcomes.items())


def audit_gpus(
    simulation: Simulation, nodes: Mapping[str, int], is_stable: bool = True
) -> dict[int, Placement]:
    """The placements of all groups, which never held more GPUs than there were."""
    changes: list[tuple[float, int, str, int]] = []  # (time, order, node, GPUs)
    placements: dict[int, Placement] = {}
    for time, action in simulation.log:
        if isinstance(action, Start):
            placements[action.group] = action.placement
            size = sum(count for _, count in action.placement)
            assert not is_stable or len(action.placement) == 1 or size > max(nodes.values()), (
                "spread though a node could hold it"
            )
            changes += [(time, 1, node, count) for node, count in action.placement]
        elif isinstance(action, Stop):
            changes += [
                (time + FREE_SECONDS, 0, node, -count) for node, count in placements[action.group]
            ]
    used_gpus: Counter[str] = Counter()
    for _, _, node, count in sorted(changes):
        used_gpus[node] += count
        assert 0 <= used_gpus[node] <= nodes[node], (
            f"{used_gpus[node]} GPUs of {node} are held, it has {nodes[node]}"
        )
    return placements


def driven(
    work: list[Task], nodes: Mapping[str, int], settings: RunSection = SETTINGS
) -> tuple[Scheduler, Fold]:
    """A scheduler whose first group is folding."""
    scheduler = Scheduler(work, COSTS, nodes, settings)
    for action in scheduler.decide(0.0):
        assert isinstance(action, Start)
        scheduler.ready(action.group, 10.0)
    fold = scheduler.decide(10.0)[0]
    assert isinstance(fold, Fold)
    return scheduler, fold
