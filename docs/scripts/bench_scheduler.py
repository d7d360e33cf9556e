"""The scheduler's time for a decision: `python docs/scripts/bench_scheduler.py 100000 4096`.

Complexes of log-normal sizes on nodes of 8 GPUs in virtual time, 2,000 decisions of it unless
`--decisions` says otherwise.
"""

from __future__ import annotations

import argparse
import math
import random
from time import perf_counter, process_time

from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import RunSection, load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.simulation.simulator import Simulation
from foldcp.pipeline.scheduling.types import Action

ANY = Complex("any", (Chain("A", "protein", "MKT"),))


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=int)
    parser.add_argument("gpus", type=int)
    parser.add_argument("--median", type=float, default=1_700, help="tokens")
    parser.add_argument("--spread", type=float, default=0.9, help="of the logarithm of the tokens")
    parser.add_argument("--decisions", type=int, default=2_000)
    options = parser.parse_args()
    draw = random.Random(0)
    sizes = (
        int(math.exp(draw.gauss(math.log(options.median), options.spread)))
        for _ in range(options.tasks)
    )
    tasks = [
        Task(ANY, f"{index}", min(30_000, max(50, size)), 4096) for index, size in enumerate(sizes)
    ]
    nodes = {f"node{index}": 8 for index in range(options.gpus // 8)}
    began = perf_counter()
    simulation = Simulation(tasks, CostModel(load_hardware("h200"), load()), nodes, RunSection())
    built = perf_counter() - began
    scheduler = simulation.scheduler
    decide = scheduler.decide
    seconds: list[float] = []

    def timed(now: float) -> list[Action]:
        before = process_time()
        actions = decide(now)
        seconds.append(process_time() - before)
        if len(seconds) == options.decisions:
            scheduler.stop("so many decisions were asked for")
        return actions

    scheduler.decide = timed  # type: ignore[method-assign]
    simulation.run()
    first = seconds.pop(0)
    seconds.sort()
    print(
        f"{options.tasks:,} tasks on {options.gpus:,} GPUs: {built:.1f} s to build; the first "
        f"decision, which fills the cluster, {1e3 * first:.0f} ms; {len(seconds):,} more of "
        f"{1e3 * sum(seconds) / len(seconds):.2f} ms on average, 99% under "
        f"{1e3 * seconds[int(0.99 * (len(seconds) - 1))]:.2f} ms"
    )


if __name__ == "__main__":
    main()
