"""CUDA graph capture and replay, for small inputs whose time goes into launching kernels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Signature = tuple[tuple[torch.Size, torch.dtype], ...]  # shapes and types of the arguments


def can_capture(device: torch.device) -> bool:
    """Whether work on this device may be captured: on CUDA, without gradients."""
    return device.type == "cuda" and not torch.is_grad_enabled()


def new_pool() -> Any:
    """A memory pool for CUDA graphs that are replayed in the order in which they were captured."""
    return torch.cuda.graph_pool_handle()


def stream_of(device: torch.device) -> int:
    """The current stream of a device, as a number; 0 on a CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


@cache
def _capture_stream(device: int, stream: int) -> torch.cuda.Stream:
    """One stream for all captures that are replayed in a stream of a device: cuBLAS keeps a
    workspace of 32 MiB per stream, which two graphs that run at once cannot share.
    """
    return torch.cuda.Stream(device)


@dataclass(frozen=True)
class _CapturedGraph(Generic[Result]):
    replay: Callable[[], None]
    static_inputs: list[Tensor]
    outputs: Result


class CUDAGraphWrapper(Generic[Result]):
    """A function of tensors as a CUDA graph, one for each set of their shapes and types.

    The first call with a set runs eagerly, as warmup, which compiles kernels; the second is
    captured. `skip_warmup` captures the first, where another function compiled the same kernels.
    Outputs live in the graph's memory until the next call. The first `num_inplace_args` arguments
    are updated in place: the memory of those given at capture becomes the graph's, and is what
    later calls return.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        pool: Any,
        num_inplace_args: int = 0,
        skip_warmup: bool = False,
    ) -> None:
        self.function = function
        self.pool = pool
        self.num_inplace_args = num_inplace_args
        self.skip_warmup = skip_warmup
        self.graphs: dict[Signature, _CapturedGraph[Result] | None] = {}  # None: only warmed up

    def __call__(self, *args: Tensor) -> Result:
        signature = tuple((x.shape, x.dtype) for x in args)
        if signature not in self.graphs and not self.skip_warmup:
            self.graphs[signature] = None
            return self.function(*args)
        graph = self.graphs.get(signature) or self._capture(args)
        self.graphs[signature] = graph
        for static, x in zip(graph.static_inputs, args, strict=True):
            if static.data_ptr() != x.data_ptr():
                static.copy_(x)
        graph.replay()
        return graph.outputs

    def _capture(self, args: tuple[Tensor, ...]) -> _CapturedGraph[Result]:
        """Unlike `torch.cuda.graph` this does not wait for the device to finish earlier work."""
        static_inputs = [
            x if index < self.num_inplace_args else x.clone() for index, x in enumerate(args)
        ]
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        stream = _capture_stream(torch.cuda.current_device(), current.cuda_stream)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                outputs = self.function(*static_inputs)
            except BaseException:
                with suppress(RuntimeError):  # its message does not name the cause
                    graph.capture_end()
                raise
            graph.capture_end()
        return _CapturedGraph(graph.replay, static_inputs, outputs)
