"""Ranks that do something else than to fold, where the folder FOLDCP_CHAOS says so.

The file `fold_faults.json` lists the faults; each that happens leaves a file `hit-<fault>-<count>`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foldcp.pipeline.execution import worker
from foldcp.pipeline.execution.worker import Worker


def patch() -> None:
    """Let the workers of this process misbehave."""
    set_num_threads = torch.set_num_threads
    torch.set_num_threads = lambda number: set_num_threads(1)  # cores are few, ranks many
    predict = worker.fold
    predict_group = worker.fold_group
    fold_complex = Worker.fold
    fold_batch = Worker.fold_batch

    def faulty_fold(self: Any, complex: Any, *args: Any, **kwargs: Any) -> Any:
        kind, _ = first_claim([complex], self.cp.rank)
        if kind == "wrong_type":
            return "chaos: this is no result"
        worker.fold = faulty(predict, kind)
        return fold_complex(self, complex, *args, **kwargs)

    def faulty_fold_batch(self: Any, complexes: Any, *args: Any, **kwargs: Any) -> Any:
        kind, index = first_claim(complexes, self.cp.rank)
        if kind == "wrong_type":
            return "chaos: this is no result"
        worker.fold_group = faulty(predict_group, kind, index)
        return fold_batch(self, complexes, *args, **kwargs)

    Worker.fold = faulty_fold
    Worker.fold_batch = faulty_fold_batch


def faulty(predict: Callable[..., Any], kind: str | None, index: int = 0) -> Callable[..., Any]:
    """What a rank does that is to `predict` when a fault has hit it; `index` is that of the complex
    whose coordinates are lost.
    """

    def fold(*args: Any, **kwargs: Any) -> Any:
        if kind == "raise":
            raise RuntimeError("chaos: this rank raises")
        if kind == "oom":
            raise torch.OutOfMemoryError("chaos: the GPU is full")
        if kind == "memory_error":
            raise MemoryError("chaos: the machine is full")
        if kind in ("die", "hang"):
            os.kill(os.getpid(), signal.SIGKILL if kind == "die" else signal.SIGSTOP)
        folded = predict(*args, **kwargs)
        if kind != "nan":
            return folded
        if not isinstance(folded, list):
            return not_finite(folded)
        folded[index] = not_finite(folded[index])
        return folded

    return fold


def not_finite(prediction: Any) -> Any:
    """A prediction whose coordinates are no numbers."""
    return replace(prediction, coords=prediction.coords * float("nan"))


def first_claim(complexes: Sequence[Any], rank: int) -> tuple[str | None, int]:
    """The fault that hits the fold of complexes, one or a batch, and which of them it is of."""
    for index, complex in enumerate(complexes):
        if kind := claim(complex.name, rank):
            return kind, index
    return None, 0


def claim(name: str, rank: int) -> str | None:
    """The fault that hits this fold of a complex on this rank; leaves its file."""
    folder = Path(os.environ["FOLDCP_CHAOS"])
    for number, fault in enumerate(json.loads((folder / "fold_faults.json").read_text())):
        if (fault["complex"], fault["rank"]) != (name, rank):
            continue
        for count in range(1000 if fault["is_always"] else 1):
            try:
                (folder / f"hit-{number}-{count}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return fault["kind"]
    return None
