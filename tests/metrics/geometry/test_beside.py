"""Geometries of samples on threads, with a GPU that is imitated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from foldcp.features.features import Features
from foldcp.metrics.geometry import beside
from foldcp.metrics.geometry.geometry import UNKNOWN, Geometry

GPU = torch.device("cuda", 1)


class Samples(torch.Tensor):
    """Coordinates, each the number of the sample, that are said to lie on the GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The GPU."""
        return GPU


class Stream:
    """One that work is put into by nobody."""

    def wait_stream(self, other: object) -> None:
        """Nothing."""


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> threading.local:
    """What a thread is within."""
    found = threading.local()

    def context(name: str) -> Any:
        @contextmanager
        def within(what: object) -> Iterator[None]:
            before = getattr(found, "names", [])
            found.names = [*before, (name, what)]
            yield
            found.names = before

        return within

    monkeypatch.setattr(torch.cuda, "device", context("device"))
    monkeypatch.setattr(torch.cuda, "stream", context("stream"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    return found


def run(
    monkeypatch: pytest.MonkeyPatch, compute: Callable[[int], None], num_samples: int
) -> tuple[Stream, Any]:
    """A stream, and the geometries of samples in it, whose numbers a function is given."""
    stream = Stream()
    monkeypatch.setattr(beside, "_stream", lambda device: stream)

    def geometry(features: Features, coords: torch.Tensor) -> Geometry:
        compute(int(coords[0, 0]))
        return replace(UNKNOWN, fraction_disordered=float(coords[0, 0]))

    monkeypatch.setattr(beside, "geometry", geometry)
    numbers = torch.arange(num_samples, dtype=torch.float32)
    coords = numbers[:, None, None].expand(-1, 1, 3).as_subclass(Samples)
    return stream, beside.geometries(Features.__new__(Features), coords)


def test_threads_compute_on_the_device_of_the_samples_and_in_one_stream(
    monkeypatch: pytest.MonkeyPatch, entered: threading.local
) -> None:
    within = []

    def compute(sample: int) -> None:
        within.append((entered.names, torch.is_inference_mode_enabled()))

    stream, geometries = run(monkeypatch, compute, 5)
    with geometries as waits:
        assert [wait().fraction_disordered for wait in waits] == list(range(5))
    # The device comes first, so that the stream's context ends on it.
    assert within == [([("device", GPU), ("stream", stream)], True)] * 5


@pytest.mark.usefixtures("entered")
def test_an_error_of_a_sample_is_raised_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compute(sample: int) -> None:
        if sample == 1:
            raise torch.OutOfMemoryError("of the GPU")

    _, geometries = run(monkeypatch, compute, 3)
    with geometries as waits:
        assert waits[0]().fraction_disordered == 0
        assert waits[2]().fraction_disordered == 2
        with pytest.raises(torch.OutOfMemoryError, match="of the GPU"):
            waits[1]()


@pytest.mark.usefixtures("entered")
def test_after_an_error_no_other_sample_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def compute(sample: int) -> None:
        begun.append(sample)
        time.sleep(0.05)

    _, geometries = run(monkeypatch, compute, 20)
    with pytest.raises(KeyboardInterrupt), geometries as waits:
        waits[0]()
        raise KeyboardInterrupt
    assert len(begun) < 20


@pytest.mark.usefixtures("entered")
def test_a_large_sample_is_computed_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(beside, "MAX_ATOMS", 0)
    _, geometries = run(monkeypatch, begun.append, 3)
    with geometries as waits:
        assert not begun
        waits[2]()
        assert begun == [2]
