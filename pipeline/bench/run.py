"""`foldcp bench`: measure this machine, alone and with all its GPUs, and write its hardware file.

On ranks of torchrun: torchrun --nproc_per_node P -m foldcp bench, with the same options.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import get_args

import torch
from torch.multiprocessing.spawn import ProcessException, start_processes

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.pipeline.bench.measure import Plan, measure
from foldcp.pipeline.bench.report import Report, to_dict, to_text, to_yaml
from foldcp.pipeline.bench.roofline import (
    BlockTime,
    FoldPlan,
    FoldTime,
    Machine,
    Measurement,
    NotMeasured,
    RooflineLimits,
)
from foldcp.pipeline.config import nearest
from foldcp.pipeline.planning.run_plan import gpu_hardware, local_hardware
from foldcp.pipeline.scheduling.cost_model import Arithmetic

# (device, quick) -> sizes, arithmetic and prediction. A CPU is for trying things out, with the tiny
# network.
SIZES = {("cuda", False): (512, 1024, 2048), ("cuda", True): (256, 512),
         ("cpu", False): (64, 128, 256), ("cpu", True): (24, 40)}  # fmt: skip
ARITHMETIC: dict[str, tuple[Arithmetic, ...]] = {
    "cuda": ("mixed", "bf16"),
    "cpu": ("fp32",),
}
FOLDS = {
    ("cuda", False): FoldPlan("untrained:boltz2", recycling=3, steps=200, samples=5, msa_rows=4096),
    ("cuda", True): FoldPlan("untrained:boltz2", recycling=0, steps=20, samples=1, msa_rows=512),
    ("cpu", False): FoldPlan("untrained:tiny", recycling=1, steps=20, samples=1, msa_rows=64),
    ("cpu", True): FoldPlan("untrained:tiny", recycling=0, steps=2, samples=1, msa_rows=8),
}
JOIN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asks for; empty texts mean the defaults of the machine."""

    sizes: str = ""  # tokens, such as 512,1024
    folds: str = ""  # tokens of whole predictions; the sizes if empty, none if 0
    precision: str = ""  # such as mixed,bf16
    ranks: str = ""  # sizes of groups, such as 1,4
    quick: bool = False
    write: Path | None = None
    overwrite: bool = False


def bench(options: Options) -> tuple[Report, Path] | None:
    """Measure and write the hardware file; None on all ranks of torchrun but the first.

    Raises ValueError for options that make no sense here and for a file that exists, before
    anything is measured.
    """
    kind, gpu, num_devices = devices()
    launched = "WORLD_SIZE" in os.environ
    groups = _launched(options) if launched else _groups(options, kind, num_devices)
    sizes = _numbers(options.sizes, "--sizes") or SIZES[kind, options.quick]
    plan = Plan(
        device=kind,
        sizes=sizes,
        fold_sizes=() if options.folds == "0" else _numbers(options.folds, "--folds") or sizes,
        precisions=_precisions(options.precision) or ARITHMETIC[kind],
        fold=FOLDS[kind, options.quick],
        quick=options.quick,
    )
    machine = _machine(gpu, kind, num_devices)
    file = options.write or Path(f"{machine.hardware.name}.yaml")
    _refuse(file, options.overwrite)
    found = (
        _on_launched_ranks(plan)
        if launched
        else [f for size in groups for f in _on_ranks(size, plan)]
    )
    if launched and int(os.environ["RANK"]) > 0:
        return None
    program = (
        [f"torchrun --nproc_per_node {groups[0]} -m foldcp bench"]
        if launched
        else ["foldcp", "bench"]
    )
    command = " ".join([*program, *sys.argv[2:]])
    report = Report(machine, plan.fold, found, time.strftime("%Y-%m-%d"), command)
    if report.ceilings:
        try:
            file.write_text(to_yaml(report))
        except OSError as error:
            raise ValueError(f"{file}: cannot be written: {error.strerror}") from None
    return report, file


def show(options: Options, as_json: bool) -> None:
    """What the command prints."""
    if found := bench(options):
        report, file = found
        print(json.dumps(to_dict(report), indent=1) if as_json else to_text(report))
        if not report.ceilings:
            raise ValueError("not even the ceilings could be measured; no hardware file is written")
        print(f"hardware file: {file}; use it with --hardware {file}", file=sys.stderr)


def devices() -> tuple[str, str, int]:
    """(kind, name, number) of this machine's devices."""
    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name(0), torch.cuda.device_count()
    return "cpu", f"CPU with {os.cpu_count()} cores", 1


def _refuse(file: Path, overwrite: bool) -> None:
    if file.suffix not in {".yaml", ".yml"}:
        raise ValueError(f"--write {file}: a hardware file ends in .yaml")
    if not file.parent.is_dir():
        raise ValueError(f"--write {file}: there is no folder {file.parent}")
    if file.exists() and not overwrite:
        raise ValueError(f"{file}: exists; --overwrite replaces it, --write names another file")


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """512,1024 -> (512, 1024)"""
    parts = [part.strip() for part in text.split(",")] if text else []
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise ValueError(f"{option} {text}: {part!r} is no positive number")
    return tuple(map(int, parts))


def _precisions(text: str) -> tuple[Arithmetic, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    known: dict[str, Arithmetic] = {name: name for name in get_args(Arithmetic)}
    for part in parts:
        if part not in known:
            raise ValueError(
                f"--precision {text}: {part!r} is no precision{nearest(part, list(known))}"
            )
    return tuple(known[part] for part in parts)


def _groups(options: Options, kind: str, num_devices: int) -> tuple[int, ...]:
    """Sizes of the groups to measure: one rank and all GPUs, unless the user says."""
    asked = _numbers(options.ranks, "--ranks")
    if kind == "cuda" and asked and max(asked) > num_devices:
        raise ValueError(f"--ranks {options.ranks}: this machine has {num_devices} GPUs")
    return asked or tuple(sorted({1, num_devices}))


def _launched(options: Options) -> tuple[int]:
    """The group that torchrun made; on one machine, as the link within it is measured."""
    size = os.environ["WORLD_SIZE"]
    on_host = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    if options.ranks:
        raise ValueError(f"--ranks {options.ranks}: torchrun has started {size} already")
    if size != on_host:
        raise ValueError(
            f"torchrun has started {size} ranks, {on_host} of them here; measure one "
            "machine at a time"
        )
    return (int(size),)


def _machine(gpu: str, kind: str, num_devices: int) -> Machine:
    """This machine with the hardware file it would be given now, the number of its GPUs and a
    name fit for a file.
    """
    hardware = gpu_hardware() if kind == "cuda" else local_hardware(os.cpu_count() or 1)
    if kind == "cuda":
        hardware = replace(hardware, gpus_per_node=num_devices)
    name = re.sub(r"[^a-z0-9]+", "-", hardware.name.lower().removeprefix("nvidia ")).strip("-")
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    versions = {name: metadata.version(name) for name in ("foldcp", "triton") if name in installed}
    return Machine(
        gpu,
        num_devices,
        {**versions, "torch": torch.__version__},
        replace(hardware, name=name),
    )


def _on_launched_ranks(plan: Plan) -> list[Measurement]:
    """This process is one of torchrun's ranks."""
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    rows, device = _join(rank, size, local, "env://", plan)
    found = [_told(finding, rank) for finding in measure(rows, device, plan)]
    rows.destroy()
    return found


def _on_ranks(size: int, plan: Plan) -> Iterator[Measurement]:
    """One rank is this process; more are processes of their own, which leave what they found so
    far if they fail.
    """
    if size == 1:
        rows, device = _join(0, 1, 0, "", plan)
        yield from (_told(finding, 0) for finding in measure(rows, device, plan))
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return
    with tempfile.TemporaryDirectory() as folder:
        failed: list[NotMeasured] = []
        try:
            start_processes(_rank, (size, folder, plan), nprocs=size, start_method="spawn")
        except ProcessException as error:
            last = next(
                (line for line in reversed(str(error).splitlines()) if line.strip()),
                type(error).__name__,
            )
            failed.append(NotMeasured(f"the rest on {size} ranks", last))
        yield from _read(Path(folder) / "findings")
        yield from failed


def _rank(rank: int, size: int, folder: str, plan: Plan) -> None:
    """The life of a rank's process."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    rows, device = _join(rank, size, rank, f"file://{folder}/meeting", plan)
    for finding in measure(rows, device, plan):
        if rank == 0:
            with open(Path(folder) / "findings", "ab") as file:
                pickle.dump(_told(finding, rank), file)
    rows.destroy()


def _join(
    rank: int, size: int, local: int, meeting: str, plan: Plan
) -> tuple[ContextParallel, torch.device]:
    device = torch.device("cuda", local) if plan.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return ContextParallel.init(rank, size, meeting, device, timeout=JOIN_SECONDS), device


def _read(path: Path) -> Iterator[Measurement]:
    if path.exists():
        with open(path, "rb") as file:
            while file.peek(1):
                yield pickle.load(file)


def _told(finding: Measurement, rank: int) -> Measurement:
    """A line of progress for whoever waits."""
    if rank == 0:
        print(_line(finding), file=sys.stderr, flush=True)
    return finding


def _line(finding: Measurement) -> str:
    match finding:
        case RooflineLimits(num_ranks=ranks):
            return f"ceilings on {ranks} ranks measured"
        case BlockTime(num_tokens=N, num_ranks=ranks, precision=precision, seconds=seconds):
            return f"block, {N} tokens, {ranks} ranks, {precision}: {1e3 * seconds:.3g} ms"
        case FoldTime(num_tokens=N, num_ranks=ranks, precision=precision, seconds=stages):
            return (
                f"prediction, {N} tokens, {ranks} ranks, {precision}: {sum(stages.values()):.3g} s"
            )
        case NotMeasured(what=what, reason=reason):
            return f"{what}: {reason}"
