"""Makespans of simulated runs with faults, over the least possible ones of calm runs.

`python docs/scripts/simulate_faults.py corum.tsv.gz uniprot.fasta.gz`, human complexes on H200s.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from statistics import median

from foldcp.pipeline.config import RunConfig, load
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.tasks import Task, make_task_list
from foldcp.pipeline.planning.nodes import make_nodes, parse_node_sizes
from foldcp.pipeline.planning.simulated_run import figures
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation

CLUSTERS = [(8, "8"), (64, "8"), (512, "8"), (16, "3+8+5"), (30, "8+8+7+7"), (64, "3+8+5")]
JOINS_AFTER = 600.0  # seconds from the loss of a node to another one


def main() -> None:
    """Print a line for each cluster and kind of fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    settings = load()
    spec = InputSpec(options.input, InputOptions(sequences=(options.sequences,), organism="Human"))
    tasks = make_task_list(records(spec), settings, "plan", alignments_follow=True).tasks
    for num_gpus, sizes in CLUSTERS:
        nodes = make_nodes(num_gpus, parse_node_sizes(sizes))
        name = f"{num_gpus} GPUs, nodes of {sizes}"
        calm = simulated(tasks, settings, nodes, Faults())
        bound = figures(calm, nodes, 0.0).bound_hours * 3600
        print(f"{name}: calm {calm.now / bound:.4f} of {bound / 3600:.3f} h", flush=True)
        kinds = {
            "1% of workers die": Faults(worker_died=0.01),
            "1% of folds hang": Faults(timeout=0.01),
            "speeds spread by 0.3": Faults(speed_spread=0.3),
        }
        for kind, faults in kinds.items():
            runs = [
                simulated(tasks, settings, nodes, replace(faults, seed=seed))
                for seed in range(options.seeds)
            ]
            show(kind, runs, bound)
        if len(nodes) > 1:
            runs = [
                simulated(tasks, settings, nodes, losses(nodes, calm.now, seed))
                for seed in range(options.seeds)
            ]
            show("a node lost an hour", runs, bound)


def simulated(
    tasks: tuple[Task, ...], settings: RunConfig, nodes: dict[str, int], faults: Faults
) -> Simulation:
    """A run on H200s."""
    costs = CostModel(load_hardware("h200"), settings)
    return Simulation(tasks, costs, nodes, settings.run, faults).run()


def losses(nodes: dict[str, int], seconds: float, seed: int) -> Faults:
    """A node lost at a random moment of each hour, and another one of its size soon after."""
    draw = random.Random(seed)
    alive = dict(nodes)
    since = dict.fromkeys(nodes, 0.0)  # when each joined
    lost: list[tuple[float, str]] = []
    joined: list[tuple[float, str, int]] = []
    for hour in range(int(seconds // 3600) + 1):
        time = draw.uniform(0.0, min(3600.0, seconds - 3600 * hour)) + 3600 * hour
        node = draw.choice([node for node in sorted(alive) if since[node] <= time])
        lost.append((time, node))
        size = alive.pop(node)
        joined.append((time + JOINS_AFTER, f"new{hour}", size))
        alive[f"new{hour}"] = size
        since[f"new{hour}"] = time + JOINS_AFTER
    return Faults(seed, lost_nodes=tuple(lost), new_nodes=tuple(joined))


def show(kind: str, runs: list[Simulation], bound: float) -> None:
    """The median and the worst makespan."""
    ratios = [run.now / bound for run in runs]
    print(f"  {kind}: median {median(ratios):.3f}, worst {max(ratios):.3f}", flush=True)


if __name__ == "__main__":
    main()
