"""Run a function on P ranks of this machine: gloo on its CPUs, NCCL on its GPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from foldcp.rows import Rows


def device_of(rows: Rows, kind: str) -> torch.device:
    """Where a rank computes: "cpu", or the GPU of its number."""
    return torch.device(kind, rows.rank if kind == "cuda" else None)


def _rank(rank: int, size: int, kind: str, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if kind == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    rows = Rows.join(rank, size, f"file://{folder}/meeting", device, timeout=120.0)
    torch.save(function(rows, *args), Path(folder) / f"{rank}.pt")
    rows.leave()


def run(function: Callable[..., Any], size: int, *args: Any, kind: str = "cpu") -> list[Any]:
    """[function(rows, *args) of each rank]; the function stands at the top of a module, a failing rank raises."""
    with tempfile.TemporaryDirectory() as folder:
        if size == 1:
            return [function(Rows(), *args)]
        method = "fork" if kind == "cpu" else "spawn"  # a process that has used a GPU cannot be forked
        mp.start_processes(_rank, (size, kind, folder, function, args), nprocs=size, start_method=method)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]
