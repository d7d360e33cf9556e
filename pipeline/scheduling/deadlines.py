"""Deadlines of starts and folds: predicted times, corrected by what the run has measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.scheduling.hardware import Hardware
from foldcp.pipeline.scheduling.types import GroupState, QueuedTask

NUM_RECENT = 20  # folds whose times are remembered
MAX_DOUBLINGS = 4  # of the time allowed for a fold, while folds time out and none succeeds
MAX_START_SECONDS = 900.0  # allowed for a start at most
PRIOR_SECONDS = 300.0  # weight of the cost model against the run's own measurements


class Deadlines:
    """Measured times of a run, and the deadlines that follow from them.

    `start_seconds` is the longest start so far, or the predicted one.
    """

    def __init__(self, settings: RunSection, hardware: Hardware) -> None:
        self.settings = settings
        self.hardware = hardware
        self.start_seconds = hardware.start_seconds
        self._measured = PRIOR_SECONDS
        self._predicted = PRIOR_SECONDS
        self._recent: deque[tuple[float, float]] = deque(maxlen=NUM_RECENT)  # predicted, measured
        self._timed_out_starts = 0  # while none has succeeded
        # Since one succeeded: the machine may be slower than predicted.
        self._timed_out_folds = 0

    @property
    def slowdown(self) -> float:
        """Measured over predicted seconds of the folds so far."""
        return self._measured / self._predicted

    def record_start(self, seconds: float) -> None:
        """A worker group was ready after `seconds`."""
        self.start_seconds = max(self.start_seconds, seconds)
        self._timed_out_starts = 0

    def record_start_timeout(self) -> None:
        """A worker group was not ready in time."""
        self._timed_out_starts += 1

    def record_fold(self, predicted: float, measured: float) -> None:
        """A fold succeeded; both in seconds."""
        self._measured += measured
        self._predicted += predicted
        self._recent.append((predicted, measured))
        self._timed_out_folds = 0

    def rescale_predictions(self, ratio: float) -> None:
        """The cost model has learned: it now predicts `ratio` times what it predicted before."""
        self._predicted = PRIOR_SECONDS + ratio * (self._predicted - PRIOR_SECONDS)

    def record_fold_timeout(self) -> None:
        """A fold was not done in time."""
        self._timed_out_folds += 1

    def of_start(self, now: float) -> float:
        """Deadline of a start that begins now; later after starts that timed out."""
        allowed = max(
            self.settings.start_deadline,
            self.settings.deadline_factor * self.start_seconds,
        )
        return now + min(MAX_START_SECONDS, allowed * 2**self._timed_out_starts)

    def of_fold(
        self,
        group: GroupState,
        queued: QueuedTask,
        now: float,
        others: Sequence[QueuedTask] = (),
    ) -> float:
        """Deadline of a fold that begins now, of a task alone or together with others.

        The time allowed is a multiple of the predicted time, corrected by `slowdown`, or of the
        longest recent fold that was predicted to be no longer. It is doubled after folds that timed
        out, which may only have been slow. The first fold of a group on GPUs also compiles kernels,
        which takes about as long as the group's start. Files that took long to read when the
        complex was planned take as long again.
        """
        settings = self.settings
        no_longer = [
            measured for predicted, measured in self._recent if predicted <= queued.seconds
        ]
        expected = max([queued.seconds * max(1.0, self.slowdown), *no_longer])
        if not group.num_folds and self.hardware.device == "cuda":
            expected += self.hardware.start_seconds
        expected += sum(member.task.read_seconds for member in (queued, *others))
        allowed = max(settings.deadline_floor, settings.deadline_factor * expected)
        return now + allowed * self._more_time(queued)

    def of_step(self, group: GroupState, queued: QueuedTask, gap: float, longest: float) -> float:
        """Seconds that a fold may go on without a step.

        `gap` is predicted, `longest` the longest step so far of this fold and stage. Compilation
        and reading are allowed for as in `of_fold`.
        """
        settings = self.settings
        expected = max(gap * max(1.0, self.slowdown), longest)
        if not group.num_folds and self.hardware.device == "cuda":
            expected += self.hardware.start_seconds
        expected += max(member.task.read_seconds for member in (queued, *group.others))
        allowed = max(settings.stall_floor, settings.deadline_factor * expected)
        return allowed * self._more_time(queued)

    def _more_time(self, queued: QueuedTask) -> int:
        """Factor of the time allowed after folds that timed out."""
        return 2 ** max(queued.timeouts, min(self._timed_out_folds, MAX_DOUBLINGS))
