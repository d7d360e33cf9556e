"""Progress and time of the stages of a prediction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def no_progress(stage: str, done: int, total: int) -> None:
    """No-op progress callback."""


class ProgressCounter:
    """Counts the steps of a stage, and reports each to a progress callback."""

    def __init__(self, stage: str, total: int, progress: Progress) -> None:
        self.stage = stage
        self.total = total
        self.progress = progress
        self.done = 0
        progress(stage, 0, total)

    def __call__(self) -> None:
        self.done += 1
        self.progress(self.stage, self.done, self.total)


class StageTimer:
    """Seconds of each stage; waits for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[stage] = self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
