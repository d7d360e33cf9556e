"""What a small complex asks for again and again: recorded on a GPU, then one launch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def can_capture(device: torch.device) -> bool:
    """Can this device replay what it did, and is no gradient wanted, which a recording cannot
    give?
    """
    return device.type == "cuda" and not torch.is_grad_enabled()


def new_pool() -> Any:
    """Memory for recordings that are replayed in the order in which they were made."""
    return torch.cuda.graph_pool_handle()


@cache
def _aside(device: int) -> torch.cuda.Stream:
    """One stream for all recordings on a device: for each that it meets cuBLAS keeps a workspace
    of 32 MiB.
    """
    return torch.cuda.Stream(device)


@dataclass(frozen=True)
class _Recording(Generic[Result]):
    replay: Callable[[], None]
    given: list[Tensor]
    result: Result


class CUDAGraphWrapper(Generic[Result]):
    """A function of tensors as a CUDA graph, one for each set of their shapes and types.

    The first call with some of them runs as written, which compiles kernels; the second is
    recorded, or already the first `at_once`, where another call compiled the same kernels. Results
    then live in the graph's memory until the next call. The first `updated` arguments are updated
    in place: the memory of those given when it was recorded becomes the recording's, and is what
    later calls return.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        pool: Any,
        updated: int = 0,
        at_once: bool = False,
    ) -> None:
        self.function = function
        self.pool = pool
        self.updated = updated
        self.at_once = at_once
        self.recordings: dict[
            tuple[tuple[torch.Size, torch.dtype], ...], _Recording[Result] | None
        ] = {}

    def __call__(self, *given: Tensor) -> Result:
        of = tuple((x.shape, x.dtype) for x in given)
        if of not in self.recordings and not self.at_once:
            self.recordings[of] = None
            return self.function(*given)
        recording = self.recordings.get(of) or self._record(given)
        self.recordings[of] = recording
        for held, x in zip(recording.given, given, strict=True):
            if held.data_ptr() != x.data_ptr():
                held.copy_(x)
        recording.replay()
        return recording.result

    def _record(self, given: tuple[Tensor, ...]) -> _Recording[Result]:
        """Unlike `torch.cuda.graph` this does not wait for the device, which works on what was
        asked for before.
        """
        held = [x if index < self.updated else x.clone() for index, x in enumerate(given)]
        graph = torch.cuda.CUDAGraph()
        stream = _aside(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                result = self.function(*held)
            except BaseException:
                with suppress(RuntimeError):  # it says that the recording failed, not why
                    graph.capture_end()
                raise
            graph.capture_end()
        return _Recording(graph.replay, held, result)
