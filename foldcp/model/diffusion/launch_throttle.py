"""Limit on how far the CPU may run ahead of a GPU."""

from __future__ import annotations

import torch


class LaunchThrottle:
    """Lets the CPU launch one step ahead of the GPU.

    So the GPU never waits for work, and progress is reported about when it is made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.previous: torch.cuda.Event | None = None

    def step_launched(self) -> None:
        """Wait for the step before the one that has just been launched."""
        if self.device.type != "cuda":
            return
        if self.previous is not None:
            self.previous.synchronize()
        self.previous = torch.cuda.Event()
        self.previous.record()
