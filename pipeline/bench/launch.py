"""Ranks that measure: this process, processes that it starts, or those of torchrun."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessException, start_processes

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.pipeline.bench.measure import BenchPlan, measure
from foldcp.pipeline.bench.measurements import (
    BlockTime,
    FoldTime,
    Measurement,
    NotMeasured,
    PeerTime,
    RooflineLimits,
    Throughput,
)

JOIN_SECONDS = 600.0
RESULTS_FILE = "measurements"  # of rank 0, one pickle after the other


def measure_on_torchrun_ranks(plan: BenchPlan) -> list[Measurement]:
    """Measure on the ranks of torchrun, of which this process is one."""
    rank = int(os.environ["RANK"])
    size = int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    cp, device = _join(rank, size, local_rank, "env://", plan)
    measurements: list[Measurement] = []
    for measurement in measure(cp, device, plan):
        measurements.append(measurement)
        if rank == 0:
            print_progress(measurement)
    cp.destroy()
    return measurements


def measure_on_ranks(size: int, plan: BenchPlan) -> Iterator[Measurement]:
    """Measure on `size` ranks.

    A single rank is this process; several are processes of their own, whose measurements so far are
    kept if they fail.
    """
    if size == 1:
        cp, device = _join(0, 1, 0, "", plan)
        for measurement in measure(cp, device, plan):
            print_progress(measurement)
            yield measurement
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return
    with tempfile.TemporaryDirectory() as folder:
        failed: list[NotMeasured] = []
        try:
            start_processes(_run_rank, (size, folder, plan), nprocs=size, start_method="spawn")
        except ProcessException as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
            failed.append(NotMeasured(f"the rest on {size} ranks", reason))
        yield from _read(Path(folder) / RESULTS_FILE)
        yield from failed


def _run_rank(rank: int, size: int, folder: str, plan: BenchPlan) -> None:
    """Measure in the process of one rank."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    cp, device = _join(rank, size, rank, f"file://{folder}/rendezvous", plan)
    for measurement in measure(cp, device, plan):
        if rank == 0:
            print_progress(measurement)
            with open(Path(folder) / RESULTS_FILE, "ab") as file:
                pickle.dump(measurement, file)
    cp.destroy()


def _join(
    rank: int, size: int, local_rank: int, rendezvous_address: str, plan: BenchPlan
) -> tuple[ContextParallel, torch.device]:
    """Join the other ranks; the group and this rank's device."""
    device = torch.device("cpu")
    if plan.device == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    cp = ContextParallel.init(rank, size, rendezvous_address, device, timeout=JOIN_SECONDS)
    return cp, device


def _read(path: Path) -> Iterator[Measurement]:
    if path.exists():
        with open(path, "rb") as file:
            while file.peek(1):
                yield pickle.load(file)


def print_progress(measurement: Measurement) -> None:
    """One line on stderr."""
    print(_progress_line(measurement), file=sys.stderr, flush=True)


def _progress_line(measurement: Measurement) -> str:
    match measurement:
        case RooflineLimits(num_ranks=ranks):
            return f"limits of {ranks} ranks measured"
        case BlockTime(num_tokens=N, num_ranks=ranks, precision=precision, seconds=seconds):
            return f"block, {N} tokens, {ranks} ranks, {precision}: {1e3 * seconds:.3g} ms"
        case FoldTime(num_tokens=N, num_ranks=ranks, precision=precision, seconds=stages):
            seconds = sum(stages.values())
            return f"prediction, {N} tokens, {ranks} ranks, {precision}: {seconds:.3g} s"
        case Throughput(num_tokens=N, precision=precision, group_seconds=seconds):
            return f"complexes an hour, {N} tokens, {precision}: {3600 / seconds:,.0f}"
        case PeerTime(engine=engine, num_tokens=N, seconds=seconds):
            return f"{engine}, {N} tokens: {seconds:.3g} s"
        case NotMeasured(what=what, reason=reason):
            return f"{what}: {reason}"
