"""Schedules: numbers that change over the sampler's time, as in Boltz."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# The sampler's time: 1 in the first step, 1 / steps in the last.
Time = float

Schedule = Callable[[Time], float]


@dataclass(frozen=True)
class Constant:
    """A constant value."""

    value: float

    def __call__(self, time: Time) -> float:
        return self.value


@dataclass(frozen=True)
class PiecewiseStepFunction:
    """values[k], k being the number of thresholds that the time exceeds."""

    thresholds: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, time: Time) -> float:
        return self.values[sum(time > threshold for threshold in self.thresholds)]


@dataclass(frozen=True)
class ExponentialInterpolation:
    """A value that goes exponentially from `start` at time 0 to `end` at time 1."""

    start: float
    end: float
    alpha: float

    def __call__(self, time: Time) -> float:
        span = self.end - self.start
        return self.start + span * math.expm1(self.alpha * time) / math.expm1(self.alpha)
