"""Heartbeat of a worker group: the steps that the GPU of rank 0 has done, sent by a thread.

All ranks exchange rows in every block of the network and every layer of the sampler, so that a rank
that hangs stops the steps of rank 0, too. Where they have samples of their own, rank 0 has the most
and waits for the others after its last step. The thread asks for events that were recorded behind
the steps, and neither it nor the fold waits for the GPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch

from foldcp.pipeline.scheduling.types import FoldStep
from foldcp.progress import DoneSteps, StepDone

POLL_SECONDS = 1.0  # between two looks at the GPU
AGAIN_SECONDS = 10.0  # after which the same step is sent again: what was sent may be lost


class Heartbeat:
    """The progress callback of rank 0, from whose calls on a thread sends its steps."""

    def __init__(self, send: Callable[[FoldStep], None], device: torch.device) -> None:
        self._send = send
        self._device = device
        self._done = DoneSteps(device)
        self._sent: StepDone | None = None
        self._sent_at = 0.0
        self._step_at = 0.0  # when the last step was seen
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._done(stage, done, total)

    def _run(self) -> None:
        if (
            self._device.type == "cuda"
        ):  # a thread begins with the first GPU, and takes memory there
            torch.cuda.set_device(self._device)
        while True:
            try:
                self.beat(time.monotonic())
            except RuntimeError:  # work on the GPU failed, of which the fold hears as well
                return
            time.sleep(POLL_SECONDS)

    def beat(self, now: float) -> None:
        """Send the last step that is done, if it is new or was sent a while ago.

        Raises RuntimeError when work on the GPU has failed.
        """
        step = self._done.last()
        if step is None:
            return
        if step != self._sent:
            self._step_at = now
        elif now - self._sent_at < AGAIN_SECONDS:
            return
        self._sent = step
        self._sent_at = now
        seconds = now - self._step_at
        self._send(FoldStep(step.stage, step.done, step.total, seconds, step.first))
