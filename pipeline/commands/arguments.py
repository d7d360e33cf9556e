"""Arguments and options that several commands have, and the settings that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foldcp.datasets.reader import KNOWN_FORMATS
from foldcp.pipeline.config import RunConfig, load

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help=f"{KNOWN_FORMATS}.",
    ),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help=(
            "Weights: a Boltz-2 .ckpt or .safetensors file, or boltz2 once fetched; demo is a "
            "small network that comes with foldcp, for trying out; untrained:tiny and "
            "untrained:boltz2 are random weights."
        ),
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file of settings that differ from the defaults.",
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, such as model.samples=5; may be repeated.",
    ),
]
CompatOption = Annotated[
    str,
    typer.Option(
        "--compat",
        metavar="boltz|community|corrected",
        help="Known faults of Boltz 2.2.1 in alignments that are followed: all, those that its "
        "community's fork has, too, or none. Short for --set compat=...",
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Only the N smallest complexes, for a first look; 0: all."
    ),
]
ShardOption = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only part I of N of the complexes, from 1; parts have about the same predicted work, "
        "and a RUN each, which `foldcp merge` puts together.",
    ),
]
HardwareFile = Annotated[
    str,
    typer.Option("--hardware", metavar="NAME|FILE", help="One of configs/hardware, or a file."),
]
Gpus = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Total GPUs (or CPU ranks); 0: all there are, for plan those of one node.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def load_settings(config: Path | None, overrides: list[str], compat: str) -> RunConfig:
    """The settings of a command; `--compat` goes last."""
    return load(config, [*overrides, f"compat={compat}"] if compat else overrides)
