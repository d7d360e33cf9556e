"""The geometry of several samples, which the CPU computes while the GPU computes something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.features.features import Features
from foldcp.metrics.geometry.geometry import Geometry, geometry

NUM_THREADS = 2
# With more, the confidence module takes far longer than the geometry, and memory is scarce.
MAX_ATOMS = 40_000

WaitForGeometry = Callable[[], Geometry]


@contextmanager
def geometries(
    features: Features, coords: Float[Tensor, "M A 3"]
) -> Iterator[list[WaitForGeometry]]:
    """The geometry of every sample, with atoms in Å, padded: functions that wait for it.

    On a GPU threads begin with the first sample at once; on a CPU, whose cores have work, and for a
    large complex a geometry is computed when it is asked for.
    """
    if coords.device.type != "cuda" or coords.shape[1] > MAX_ATOMS:
        yield [partial(geometry, features, x) for x in coords]
        return
    stream = _stream(coords.device)
    stream.wait_stream(torch.cuda.current_stream(coords.device))

    def compute(x: Float[Tensor, "A 3"]) -> Geometry:
        # A thread begins on the first GPU, to which the end of a stream's context alone would
        # return, with memory there for a context of CUDA.
        device = torch.cuda.device(coords.device)
        with torch.inference_mode(), device, torch.cuda.stream(stream):
            return geometry(features, x)

    threads = ThreadPoolExecutor(NUM_THREADS, "geometry")
    try:
        yield [threads.submit(compute, x).result for x in coords]
    finally:
        threads.shutdown(cancel_futures=True)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all, as memory stays with the stream that it was used in."""
    return torch.cuda.Stream(device)
