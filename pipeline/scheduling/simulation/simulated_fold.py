"""A fold in virtual time: when each of its steps is done."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from foldcp.pipeline.scheduling.policy.fold_progress import StepTimes
from foldcp.pipeline.scheduling.types import Fold, FoldStep

REPORT_SHARE = 0.2  # of the time since its beginning, until it reports again
LEAST_SECONDS = 10.0  # between two reports


@dataclass(slots=True)
class SimulatedFold:
    """One attempt. Times are seconds of the simulation."""

    action: Fold
    times: StepTimes  # as predicted
    slowdown: float  # true over predicted seconds
    first_pass: int  # passes that an earlier attempt had kept
    began: float
    hangs_at: float = math.inf

    @property
    def seconds(self) -> float:
        """True seconds from its beginning to its end."""
        return (self.times.seconds - self._skipped) * self.slowdown

    @property
    def _skipped(self) -> float:
        return self.first_pass * self.times.pass_seconds

    def next_report(self, now: float) -> float:
        """When the group reports again."""
        interval = max(LEAST_SECONDS, REPORT_SHARE * (now - self.began))
        return now + (LEAST_SECONDS if now >= self.hangs_at else interval)

    def kept_passes(self, now: float) -> int:
        """Passes whose state is kept, if the fold ends now."""
        if not self.action.keeps_passes:
            return 0
        num_done = self.times.num_passes_done(self.step(now))
        return max(self.first_pass, min(num_done, self.times.num_passes - 1))

    def step(self, now: float) -> FoldStep:
        """The last step that is done."""
        times = self.times
        done = (min(now, self.hangs_at) - self.began) / self.slowdown
        if done >= times.stages["features"]:
            done += self._skipped
        step = self._step_of(done)
        at = max(0.0, times.done(step) - (0.0 if step.stage == "features" else self._skipped))
        first = self.first_pass * times.blocks if step.stage == "trunk" else 0
        seconds = max(0.0, now - self.began - at * self.slowdown)
        return FoldStep(step.stage, step.done, step.total, seconds, first)

    def _step_of(self, seconds: float) -> FoldStep:
        """The step that is done after predicted seconds of a whole fold."""
        times = self.times
        totals = {
            "features": 1,
            "trunk": times.num_passes * times.blocks,
            "sampling": times.steps,
            "confidence": times.samples * (times.confidence_blocks + 1),
        }
        begun = FoldStep("features", 0, 1)
        for stage, total in totals.items():
            steps = range(total + 1)
            number = bisect.bisect_right(
                steps, seconds, key=lambda done: times.done(FoldStep(stage, done, total))
            )
            if not number:
                break
            begun = FoldStep(stage, number - 1, total)
        return begun
