"""Progress and time of the stages of a prediction."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all
OnSteps = Callable[[int], None]  # number of further steps
_Time = float | torch.cuda.Event


def no_progress(stage: str, done: int, total: int) -> None:
    """No-op progress callback."""


def no_steps(count: int) -> None:
    """No-op callback for the steps of a stage."""


class ProgressCounter:
    """Counts the steps of a stage, and reports them to a progress callback."""

    def __init__(self, stage: str, total: int, progress: Progress, done: int = 0) -> None:
        """`done` steps were done before, by an earlier attempt."""
        self.stage = stage
        self.total = total
        self.progress = progress
        self.done = done
        progress(stage, done, total)

    def __call__(self, count: int = 1) -> None:
        self.done += count
        self.progress(self.stage, self.done, self.total)


@dataclass(frozen=True, slots=True)
class StepDone:
    """Step `done` of `total` of a stage."""

    stage: str
    done: int
    total: int
    first: int  # steps that were done before the prediction, by an earlier attempt


class DoneSteps:
    """A progress callback that knows which steps the device has done.

    Work on a GPU is only queued when a step is reported, so an event is recorded behind it; on a
    CPU a step is done when it is reported. No call waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._launched: deque[tuple[StepDone, torch.cuda.Event | None]] = deque()
        self._stage = ""
        self._first = 0
        self._last: StepDone | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stage = stage
            self._first = done
        event = None
        if self._on_gpu:
            event = torch.cuda.Event()
            event.record()
        self._launched.append((StepDone(stage, done, total, self._first), event))

    def last(self) -> StepDone | None:
        """The last step that is done; None before the first. For one thread, any.

        Raises RuntimeError when work on the GPU has failed.
        """
        while self._launched:
            step, event = self._launched[0]
            if event is not None and not event.query():
                break
            self._launched.popleft()
            self._last = step
        return self._last


class StageTimer:
    """Seconds of each stage, by the clock of the device: the CPU does not wait between stages, so
    that it can launch the next one while a GPU is at work on the last.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stages: dict[str, tuple[_Time, _Time]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self._stages[stage] = (start, self._now())

    def seconds(self) -> dict[str, float]:
        """The seconds of each stage. Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return {stage: _seconds(*times) for stage, times in self._stages.items()}

    def _now(self) -> _Time:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _seconds(start: _Time, end: _Time) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end) / 1e3
    assert isinstance(end, float)
    return end - start
