"""The command `foldcp plan`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from foldcp.pipeline.commands.arguments import (
    CompatOption,
    ConfigFile,
    Gpus,
    HardwareFile,
    Input,
    Json,
    Limit,
    Overrides,
    ShardOption,
    load_settings,
)
from foldcp.pipeline.input_arguments import with_input_options
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.inputs.shard import parse_shard
from foldcp.pipeline.output_paths import check_file_writable


@with_input_options
def plan(
    options: InputOptions,
    input: Input,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Plan for the network of these weights, named as for `score`; for Boltz-2 by "
            "default.",
        ),
    ] = "",
    hardware: HardwareFile = "h200",
    gpus: Gpus = 0,
    gpus_per_node: Annotated[
        str,
        typer.Option(
            metavar="K|K+K",
            help="GPUs of each node, such as 8; 3+8+5 are three nodes of different sizes, which "
            "are repeated up to --gpus. Those of the hardware by default.",
        ),
    ] = "",
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Run the scheduler in virtual time; print its figures."),
    ] = False,
    fail_rate: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Of simulated folds that lose their worker group."
        ),
    ] = 0.0,
    price: Annotated[
        float, typer.Option(metavar="P", min=0, help="Price of a GPU for an hour, to simulate.")
    ] = 0.0,
    gantt: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw the simulated run, a line for each GPU."),
    ] = None,
    limit: Limit = 0,
    shard: ShardOption = "",
    config: ConfigFile = None,
    set_: Overrides = [],  # noqa: B006
    compat: CompatOption = "",
    json: Json = False,
) -> None:
    """Print the GPUs, memory and time that complexes need. Also prints which cannot be folded, and
    why. Folds nothing and needs no GPU. Exit code 2 when none can be built, as with `foldcp score`.

    \b
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --hardware a100-40 --gpus 16 \\
        --set model.samples=5
    foldcp plan datasets/demo/complexes.tsv --sequences datasets/demo/sequences.fasta \\
        --checkpoint demo
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --json | jq '.too_large'
    foldcp plan corum.tsv.gz --sequences uniprot.fasta.gz --simulate --gpus 64 \\
        --gpus-per-node 3+8+5 --fail-rate 0.01 --price 2.5 --gantt run.svg
    """
    from foldcp.checkpoint.architecture import checkpoint_architecture
    from foldcp.config import BOLTZ2
    from foldcp.pipeline.inputs.tasks import make_task_list, require_task, smallest
    from foldcp.pipeline.planning.nodes import make_nodes, parse_node_sizes
    from foldcp.pipeline.planning.partition import chosen_records
    from foldcp.pipeline.planning.plan import make_plan, to_json, to_text
    from foldcp.pipeline.scheduling.cost_model import CostModel
    from foldcp.pipeline.scheduling.hardware import load_hardware

    if not simulate:
        _refuse({"--fail-rate": fail_rate, "--price": price, "--gantt": gantt})
    if gantt:
        check_file_writable(gantt)
    settings = load_settings(config, set_, compat)
    machine = load_hardware(hardware)
    sizes = parse_node_sizes(gpus_per_node or str(machine.gpus_per_node))
    nodes = make_nodes(gpus, sizes)
    part = parse_shard(shard)
    max_bytes = settings.limits.input_bytes
    spec = InputSpec(input, options, checkpoint, limit, max_bytes, part)
    architecture = checkpoint_architecture(spec.checkpoint) if checkpoint else BOLTZ2
    chosen = chosen_records(spec, settings, set())
    everything = make_task_list(chosen, settings, "plan", alignments_follow=True)
    task_list = smallest(everything, limit)
    if part is None and not task_list.tasks and len(task_list.invalid) == 1 and not input.is_dir():
        raise ValueError(f"{input}: {task_list.invalid[0].reason}")
    for line in input_warnings(spec, [task.complex for task in task_list.tasks]):
        print(line, file=sys.stderr)
    costs = CostModel(replace(machine, gpus_per_node=max(sizes)), settings, architecture)
    if not simulate:
        found = make_plan(task_list, costs, nodes, settings.run)
        print(to_json(found) if json else to_text(found))
        if part is None:
            require_task(input, everything)
        return
    from foldcp.pipeline.planning import simulated_run
    from foldcp.pipeline.planning.gantt import write_gantt
    from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation

    faults = Faults(worker_died=fail_rate)
    simulation = Simulation(task_list.tasks, costs, nodes, settings.run, faults).run()
    if gantt:
        write_gantt(gantt, simulation, nodes)
    figures = simulated_run.figures(simulation, nodes, price)
    print(simulated_run.to_json(figures) if json else simulated_run.to_text(figures))
    if part is None:
        require_task(input, everything)


def _refuse(options: dict[str, object]) -> None:
    """ValueError for options that are for a simulation."""
    for name, value in options.items():
        if value:
            raise ValueError(f"{name} is for a simulation; add --simulate")
