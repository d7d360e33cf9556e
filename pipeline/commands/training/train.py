"""The command `foldcp train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foldcp.pipeline.commands.arguments import ConfigFile


def train(
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder of the run; goes on from the newest checkpoint in it."
        ),
    ],
    config: ConfigFile = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, such as precision=bf16; may be repeated.",
        ),
    ] = [],  # noqa: B006
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Steps in all, instead of the setting max_steps."),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            metavar="M", min=0.0, help="Write a checkpoint and end after so long; 0: no limit."
        ),
    ] = 0.0,
    address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Train on a running Ray cluster; `auto` finds this machine's."
        ),
    ] = "",
    gpus: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Ranks of that cluster: GPUs, or CPUs without any; 0: all."
        ),
    ] = 0,
) -> None:
    """Train a network, or go on training it, on structures that `foldcp train-data` has prepared.

    Checkpoints have Boltz-2's layout: DIR/checkpoints/step-00010000.ckpt is what `foldcp score
    --checkpoint` takes. The same command goes on from the newest one, on any number of GPUs, and
    gives the same losses. docs/training/training.md has every setting.

    On a Ray cluster, every node of which sees DIR and the data, the number of ranks is a multiple
    of context_parallel, and examples_per_step a multiple of the groups. When a rank dies, the run
    is begun again from its newest checkpoint on what is left, three times in a row at most without
    a new checkpoint.

    Exit code 0 when it has reached the last step or the time limit, 1 when it failed, 2 for a
    mistake in the command, its files or the data, 75 when SIGTERM or SIGINT stopped it, with a
    checkpoint, or the cluster is lost or has too few GPUs left; then the same command resumes.

    \b
    foldcp train --config configs/train/demo.yaml --set data.folder=prepared --out run
    foldcp train --config configs/train/demo.yaml --set data.folder=prepared --out run --minutes 20
    torchrun --nproc_per_node 4 -m foldcp train --config tune.yaml --out run \\
        --set context_parallel=2
    foldcp train --config tune.yaml --out run --address auto --gpus 8 --set context_parallel=2
    foldcp train --out tuned --set data.folder=prepared --set model.init=boltz2_conf.ckpt \\
        --set "model.train=confidence_module.*" --set step.weights.diffusion=0
    """
    if address:
        from foldcp.pipeline.training.cluster import train_on_cluster

        code = train_on_cluster(config, set_, out, max_steps, minutes, address, gpus)
        raise typer.Exit(code)
    if gpus:
        raise ValueError(
            f"--gpus {gpus}: needs --address; without a Ray cluster, torchrun --nproc_per_node "
            f"{gpus} -m foldcp train"
        )
    from foldcp.pipeline.training.train import train as run

    raise typer.Exit(run(config, set_, out, max_steps, minutes))
