"""Timing on the ranks of a group, which measure together.

Seconds and peak memory are those of the slowest rank and of the largest peak.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.pipeline.execution import memory

NUM_WARMUPS = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and repeats for a kind of device."""

    copy_bytes: int
    matrix_size: int  # edge of the square matrices
    attention_tokens: int
    link_bytes: int  # of one rank's block
    launches: int
    max_repeats: int
    max_seconds: float  # after which a measurement is not repeated again


SCALES = {
    "cuda": Scale(1 << 30, 4096, 2048, 256 << 20, 1000, 15, 20.0),
    "cpu": Scale(64 << 20, 512, 192, 16 << 20, 1000, 9, 6.0),
}
# On a GPU only the repeats are fewer, as what is small fits into its caches; on a CPU the sizes are
# smaller, too.
QUICK_SCALES = {
    "cuda": replace(SCALES["cuda"], max_repeats=5, max_seconds=3.0),
    "cpu": Scale(8 << 20, 128, 48, 1 << 20, 200, 3, 0.5),
}


@dataclass(frozen=True, slots=True)
class BenchContext:
    """This rank of the group that measures."""

    cp: ContextParallel
    device: torch.device
    scale: Scale

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random numbers: zeros need less power, and would be faster than real data."""
        return torch.randn(shape, device=self.device, dtype=dtype)

    def seconds(self, run: Callable[[], object], times: int = 1) -> float:
        """Seconds of one of `times` runs in a row on the slowest rank. Collective.

        The median of repeats, after two to warm up.
        """

        def run_all() -> None:
            for _ in range(times):
                run()

        for _ in range(NUM_WARMUPS):
            self.once(run)
        repeats: list[float] = []
        while (
            len(repeats) < self.scale.max_repeats and times * sum(repeats) < self.scale.max_seconds
        ):
            repeats.append(self.once(run_all) / times)
        return median(repeats)

    def once(self, run: Callable[[], object]) -> float:
        """Seconds of a run on the slowest rank, equal on all ranks. Collective.

        All ranks start together.
        """
        self.barrier()
        return self.max_over_ranks(timed(run, self.device))

    def barrier(self) -> None:
        """Wait for the other ranks. Collective."""
        self.max_over_ranks(0.0)

    def max_over_ranks(self, value: float) -> float:
        """The largest of the ranks' values. Collective."""
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        return float(self.cp.all_gather(tensor).max())


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from the first to the last operation of a run on the device."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def reset_peak_bytes(device: torch.device) -> int:
    """Reset the peak memory of a device, or of this process on a CPU; the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    memory.reset_peak_bytes()
    return memory.peak_bytes()


def peak_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak_bytes`, of a device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return memory.peak_bytes()
