"""Ranks that do something else than to fold, where the folder FOLDCP_CHAOS says so.

Imported by every Python process that has this folder on its PYTHONPATH: those of Ray. The file
`fold_faults.json` lists the faults; each that happens leaves a file `hit-<fault>-<count>`.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

WORKER = "foldcp.pipeline.execution.worker"


class Patcher:
    """Finds the module of the workers and changes `Worker.fold` once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = execute_and_patch
        return spec


def patch(module: Any) -> None:
    """Let the workers of a module misbehave."""
    set_num_threads = module.torch.set_num_threads
    module.torch.set_num_threads = lambda number: set_num_threads(1)  # cores are few, ranks many
    fold_complex = module.Worker.fold
    predict = module.fold

    def faulty_fold(self: Any, complex: Any, *args: Any, **kwargs: Any) -> Any:
        kind = claim(complex.name, self.cp.rank)
        if kind == "raise":
            raise RuntimeError("chaos: this rank raises")
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind == "wrong_type":
            return "chaos: this is no result"
        module.fold = predict
        if kind == "oom":
            module.fold = raising(module.torch.OutOfMemoryError("chaos: the GPU is full"))
        elif kind == "memory_error":
            module.fold = raising(MemoryError("chaos: the machine is full"))
        elif kind == "nan":
            module.fold = not_finite
        return fold_complex(self, complex, *args, **kwargs)

    def raising(error: Exception) -> Callable[..., Any]:
        def fold(*args: Any, **kwargs: Any) -> Any:
            raise error

        return fold

    def not_finite(*args: Any, **kwargs: Any) -> Any:
        prediction = predict(*args, **kwargs)
        return replace(prediction, coords=prediction.coords * float("nan"))

    module.Worker.fold = faulty_fold


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


if "FOLDCP_CHAOS" in os.environ:
    faulthandler.register(signal.SIGUSR1)  # for a driver that has started itself again
    sys.meta_path.insert(0, Patcher())
