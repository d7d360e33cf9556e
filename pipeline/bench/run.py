"""`foldcp bench`: measure this machine, alone and with all its GPUs, and write its hardware file.

On ranks of torchrun: torchrun --nproc_per_node P -m foldcp bench, with the same options.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import get_args

import torch

from foldcp.config import Precision
from foldcp.pipeline.bench.launch import (
    measure_on_ranks,
    measure_on_torchrun_ranks,
    print_progress,
)
from foldcp.pipeline.bench.measure import BenchPlan
from foldcp.pipeline.bench.measurements import FoldPlan, Machine, Measurement
from foldcp.pipeline.bench.peers.beside import measure_peer, parse_peers
from foldcp.pipeline.bench.report import BenchReport, to_dict, to_text, to_yaml
from foldcp.pipeline.config import nearest
from foldcp.pipeline.output_paths import check_file_writable
from foldcp.pipeline.planning.detect_hardware import detect_cpu, first_gpu, gpu_hardware

# (device, quick) -> numbers of tokens to measure. A CPU is for trying things out, with the tiny
# network.
SIZES = {
    ("cuda", False): (512, 1024, 2048),
    ("cuda", True): (256, 512),
    ("cpu", False): (64, 128, 256),
    ("cpu", True): (24, 40),
}
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cuda": ("mixed", "bf16"),
    "cpu": ("fp32",),
}
FOLDS = {
    ("cuda", False): FoldPlan("untrained:boltz2", recycling=3, steps=200, samples=5, msa_rows=4096),
    ("cuda", True): FoldPlan("untrained:boltz2", recycling=0, steps=20, samples=1, msa_rows=512),
    ("cpu", False): FoldPlan("untrained:tiny", recycling=1, steps=20, samples=1, msa_rows=64),
    ("cpu", True): FoldPlan("untrained:tiny", recycling=0, steps=2, samples=1, msa_rows=8),
}


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of the user; an empty text selects the default of the machine."""

    sizes: str = ""  # tokens, such as 512,1024
    folds: str = ""  # tokens of whole predictions; the sizes if empty, none if 0
    throughput: str = ""  # tokens of complexes that are folded together; none if empty
    beside: str = ""  # other engines, such as boltz,bioir
    precision: str = ""  # such as mixed,bf16
    ranks: str = ""  # sizes of groups, such as 1,4
    quick: bool = False
    write: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of this machine."""

    kind: str  # cuda or cpu
    name: str
    number: int


def bench(options: BenchOptions) -> tuple[BenchReport, Path] | None:
    """Measure this machine and write its hardware file.

    Returns the report and the file, or None on all ranks of torchrun but the first. Raises
    ValueError for options that make no sense here and for a file that exists, before anything is
    measured.
    """
    devices = find_devices()
    is_torchrun = "WORLD_SIZE" in os.environ
    group_sizes = _torchrun_group(options) if is_torchrun else _group_sizes(options, devices)
    plan = _bench_plan(options, devices)
    peers = parse_peers(options.beside)
    if peers and (devices.kind == "cpu" or is_torchrun):
        raise ValueError(
            f"--beside {options.beside}: other engines are measured on one GPU, without torchrun"
        )
    machine = _machine(devices)
    file = options.write or Path(f"{machine.hardware.name}.yaml")
    _check_writable(file, options.overwrite)
    measurements: list[Measurement] = []
    if is_torchrun:
        measurements += measure_on_torchrun_ranks(plan)
        if int(os.environ["RANK"]) > 0:
            return None
        program = f"torchrun --nproc_per_node {group_sizes[0]} -m foldcp bench"
    else:
        for size in group_sizes:
            measurements += measure_on_ranks(size, plan)
        for engine in peers:
            for measurement in measure_peer(engine, plan.fold_sizes, plan.fold):
                print_progress(measurement)
                measurements.append(measurement)
        program = "foldcp bench"
    command = " ".join([program, *sys.argv[2:]])
    report = BenchReport(machine, plan.fold, measurements, time.strftime("%Y-%m-%d"), command)
    if report.limits:
        try:
            file.write_text(to_yaml(report))
        except OSError as error:
            raise ValueError(f"{file}: cannot be written: {error.strerror}") from None
    return report, file


def print_bench(options: BenchOptions, as_json: bool) -> None:
    """Run the benchmark and print its report.

    Raises ValueError as `bench`, and if not even the limits could be measured.
    """
    result = bench(options)
    if result is None:
        return
    report, file = result
    print(json.dumps(to_dict(report), indent=1) if as_json else to_text(report))
    if not report.limits:
        raise ValueError("not even the limits could be measured; no hardware file is written")
    print(f"hardware file: {file}; use it with --hardware {file}", file=sys.stderr)


def find_devices() -> Devices:
    """The GPUs of this machine, or else its CPU."""
    if torch.cuda.is_available():
        return Devices("cuda", torch.cuda.get_device_name(0), torch.cuda.device_count())
    return Devices("cpu", f"CPU with {os.cpu_count()} cores", 1)


def _bench_plan(options: BenchOptions, devices: Devices) -> BenchPlan:
    defaults = (devices.kind, options.quick)
    sizes = _parse_numbers(options.sizes, "--sizes") or SIZES[defaults]
    return BenchPlan(
        device=devices.kind,
        sizes=sizes,
        fold_sizes=_fold_sizes(options, sizes),
        group_sizes=_parse_numbers(options.throughput, "--throughput"),
        precisions=_parse_precisions(options.precision) or PRECISIONS[devices.kind],
        fold=FOLDS[defaults],
        quick=options.quick,
    )


def _fold_sizes(options: BenchOptions, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of predictions: those of the blocks by default, none for 0."""
    if options.folds == "0":
        return ()
    return _parse_numbers(options.folds, "--folds") or sizes


def _check_writable(file: Path, overwrite: bool) -> None:
    if file.suffix not in {".yaml", ".yml"}:
        raise ValueError(f"--write {file}: a hardware file ends in .yaml")
    check_file_writable(file)
    if file.exists() and not overwrite:
        raise ValueError(f"{file}: exists; --overwrite replaces it, --write names another file")


def _parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """512,1024 -> (512, 1024)"""
    items = [part.strip() for part in text.split(",")] if text else []
    for part in items:
        if not part.isdecimal() or int(part) < 1:
            raise ValueError(f"{option} {text}: {part!r} is not a positive integer")
    return tuple(map(int, items))


def _parse_precisions(text: str) -> tuple[Precision, ...]:
    """mixed,bf16 -> ("mixed", "bf16")"""
    items = [part.strip() for part in text.split(",")] if text else []
    known: dict[str, Precision] = {name: name for name in get_args(Precision)}
    for part in items:
        if part not in known:
            similar = nearest(part, list(known))
            raise ValueError(f"--precision {text}: unknown precision {part!r}{similar}")
    return tuple(known[part] for part in items)


def _group_sizes(options: BenchOptions, devices: Devices) -> tuple[int, ...]:
    """Sizes of the groups to measure: one rank and all GPUs by default."""
    group_sizes = _parse_numbers(options.ranks, "--ranks")
    if devices.kind == "cuda" and group_sizes and max(group_sizes) > devices.number:
        raise ValueError(f"--ranks {options.ranks}: this machine has {devices.number} GPUs")
    return group_sizes or tuple(sorted({1, devices.number}))


def _torchrun_group(options: BenchOptions) -> tuple[int]:
    """Size of torchrun's group; it must be on one machine, as the link within it is measured."""
    size = os.environ["WORLD_SIZE"]
    local_size = os.environ.get("LOCAL_WORLD_SIZE", size)
    if options.ranks:
        raise ValueError(f"--ranks {options.ranks}: torchrun has started {size} already")
    if size != local_size:
        raise ValueError(
            f"torchrun has started {size} ranks, {local_size} of them here; measure one "
            "machine at a time"
        )
    return (int(size),)


def _machine(devices: Devices) -> Machine:
    """This machine with the hardware file it would be given now.

    The file has the number of its GPUs and a name fit for a file.
    """
    if devices.kind == "cuda":
        gpu = first_gpu()
        assert gpu is not None
        hardware = replace(gpu_hardware(gpu), gpus_per_node=devices.number)
    else:
        hardware = detect_cpu(os.cpu_count() or 1)
    name = re.sub(r"[^a-z0-9]+", "-", hardware.name.lower().removeprefix("nvidia ")).strip("-")
    installed = {
        distribution.metadata["Name"].lower()
        for distribution in metadata.distributions()
        if distribution.metadata["Name"]
    }
    versions = {
        library: metadata.version(library)
        for library in ("foldcp", "triton")
        if library in installed
    }
    versions["torch"] = torch.__version__
    return Machine(devices.name, devices.number, versions, replace(hardware, name=name))
