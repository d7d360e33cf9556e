"""Work in a stream of its own, with a GPU that is imitated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from foldcp.model.layers import side_stream as module
from foldcp.model.layers.side_stream import side_stream, submit_ahead

GPU = torch.device("cuda", 1)


class Stream:
    """One that knows what it waits for."""

    def __init__(self) -> None:
        self.cuda_stream = 7
        self.waited_for: list[object] = []

    def wait_event(self, event: Event) -> None:
        """Note the stream of the event."""
        self.waited_for.append(event.stream)


@dataclass(frozen=True)
class Event:
    """Follows all that a stream was given before it."""

    stream: Stream


class Gpu(threading.local):
    """What a thread is within."""

    names: tuple[Any, ...] = ()


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The current stream of the thread of the test."""
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(module, "_recorded", Event)
    return stream


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The stream of the threads."""
    stream = Stream()
    monkeypatch.setattr(module, "_stream", lambda name, device, beside: stream)
    return stream


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, current: Stream, side: Stream) -> Gpu:
    """Contexts of `torch.cuda` that note what a thread is within."""
    found = Gpu()

    def context(name: str) -> Any:
        @contextmanager
        def within(what: object) -> Iterator[None]:
            before = found.names
            found.names = (*before, (name, what))
            yield
            found.names = before

        return within

    monkeypatch.setattr(torch.cuda, "device", context("device"))
    monkeypatch.setattr(torch.cuda, "stream", context("stream"))
    return found


def test_threads_work_on_the_device_in_one_stream_and_without_gradients(
    gpu: Gpu, side: Stream
) -> None:
    def work(index: int) -> Any:
        return index, gpu.names, torch.is_inference_mode_enabled()

    with side_stream("test", GPU, 2) as submit:
        waits = [submit(partial(work, index)) for index in range(5)]
        results = [wait() for wait in waits]
    # The device comes first, so that the stream's context ends on it.
    within = (("device", GPU), ("stream", side))
    assert results == [(index, within, True) for index in range(5)]


@pytest.mark.usefixtures("gpu")
def test_each_stream_waits_for_the_work_of_the_other(current: Stream, side: Stream) -> None:
    with side_stream("test", GPU, 1) as submit:
        wait = submit(lambda: len(side.waited_for))
        assert not current.waited_for
        assert wait() == 1, "the work began before the stream waited"
        assert current.waited_for == [side]
    assert side.waited_for == [current]


@pytest.mark.usefixtures("gpu")
def test_an_error_is_raised_where_the_result_is_waited_for() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("of the GPU")

    with side_stream("test", GPU, 2) as submit:
        first, second, third = submit(lambda: 1), submit(fail), submit(lambda: 3)
        assert (first(), third()) == (1, 3)
        with pytest.raises(torch.OutOfMemoryError, match="of the GPU"):
            second()


@pytest.mark.usefixtures("gpu")
def test_after_an_error_no_other_work_is_begun() -> None:
    begun = []

    def work(index: int) -> None:
        begun.append(index)
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt), side_stream("test", GPU, 2) as submit:
        waits = [submit(partial(work, index)) for index in range(20)]
        waits[0]()
        raise KeyboardInterrupt
    assert len(begun) < 20


def test_without_threads_work_is_done_once_when_its_result_is_asked_for() -> None:
    begun = []

    with side_stream("test", torch.device("cpu"), 0) as submit:
        first, second = (submit(partial(begun.append, index)) for index in range(2))
        assert not begun
        second()
        second()
        assert begun == [1]
        first()
        assert begun == [1, 0]


@pytest.mark.parametrize("number", [0, 2, 9])
def test_so_many_works_are_begun_ahead(number: int) -> None:
    begun = []

    def begin(work: Callable[[], int]) -> Callable[[], int]:
        begun.append(work())
        return work

    waits = submit_ahead(begin, [partial(int, index) for index in range(5)], number)
    assert not begun
    for index, wait in enumerate(waits):
        assert begun == list(range(min(5, index + number + 1)))
        assert wait() == index
