"""Work that threads put into a CUDA stream of its own, beside what the current stream does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

# Begins some work; what it returns waits for the result.
Submit = Callable[[Callable[[], Result]], Callable[[], Result]]


@contextmanager
def side_stream(name: str, device: torch.device, num_threads: int) -> Iterator[Submit]:
    """Threads that work in the stream of this name, without gradients; none begins once the context
    is left.

    The work sees all that the current stream was given before it was submitted, and the current
    stream waits for it where the result is asked for. Tensors that both use must live until then.
    With no threads the work is done in the current stream, when its result is asked for.
    """
    if num_threads == 0:
        yield cache
        return
    current = torch.cuda.current_stream(device)
    stream = _stream(name, device, current.cuda_stream)

    def run(work: Callable[[], Result], given: torch.cuda.Event) -> tuple[Result, torch.cuda.Event]:
        # A thread begins on the first GPU, to which the end of a stream's context alone would
        # return, with memory there for a context of CUDA.
        with torch.inference_mode(), torch.cuda.device(device), torch.cuda.stream(stream):
            stream.wait_event(given)
            return work(), _recorded(stream)

    def submit(work: Callable[[], Result]) -> Callable[[], Result]:
        future = threads.submit(run, work, _recorded(current))

        def wait() -> Result:
            result, done = future.result()
            current.wait_event(done)
            return result

        return wait

    threads = ThreadPoolExecutor(num_threads, name)
    try:
        yield submit
    finally:
        threads.shutdown(cancel_futures=True)


def submit_ahead(
    submit: Submit, works: Iterable[Callable[[], Result]], number: int
) -> Iterator[Callable[[], Result]]:
    """What waits for each of these works, of which so many are begun before it is asked for."""
    begun: deque[Callable[[], Result]] = deque()
    for work in works:
        begun.append(submit(work))
        if len(begun) > number:
            yield begun.popleft()
    while begun:  # nothing of it is kept
        yield begun.popleft()


def _recorded(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record(stream)
    return event


@cache
def _stream(name: str, device: torch.device, beside: int) -> torch.cuda.Stream:
    """Always the same one beside a stream, as memory stays with the stream that it was used in.

    Its kernels are small, and the host waits for them: they go first.
    """
    return torch.cuda.Stream(device, priority=-1)
