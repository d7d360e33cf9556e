"""Run a function on P gloo ranks of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from foldcp.rows import Rows


def _rank(rank: int, size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    rows = Rows.join(rank, size, f"file://{folder}/meeting", torch.device("cpu"), timeout=120.0)
    torch.save(function(rows, *args), Path(folder) / f"{rank}.pt")
    rows.leave()


def run(function: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """[function(rows, *args) of each rank]; the function stands at the top of a module, a failing rank raises."""
    with tempfile.TemporaryDirectory() as folder:
        if size == 1:
            return [function(Rows(), *args)]
        mp.start_processes(_rank, (size, folder, function, args), nprocs=size, start_method="fork")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]
