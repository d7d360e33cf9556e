"""Results of workers and worker groups: `Ready`, `FoldResult` or `Failure` (`scheduling/types.py`).

A prediction is large. Rank 0 puts it into Ray's object store, and only a reference to it passes
through the actor of the worker group (`RemoteFoldResult`); the driver fetches it, and Ray frees it
when the driver drops the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that the actor of a worker group needs no torch
    from ray import ObjectRef

    from foldcp.predict import Prediction


@dataclass(frozen=True, slots=True)
class DeviceLocation:
    """The node and the GPU of a worker."""

    node: str
    gpu: str  # Ray's index of it on its node; empty on a CPU


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker, or all workers of a group, have loaded the network.

    A group lists the locations of its ranks in order.
    """

    locations: tuple[DeviceLocation, ...] = ()
    kernels: str = ""  # what the network computes with, on rank 0: implementations and versions


@dataclass(frozen=True, slots=True)
class FoldStats:
    """Time and memory of a fold, and the number of its MSA rows."""

    seconds: dict[str, float]  # of each stage
    peak_bytes: int  # of the rank with the largest peak
    msa_depth: int  # MSA rows that the network got


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A fold that succeeded; rank 0 has the prediction, the other ranks have none."""

    stats: FoldStats
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class RemoteFoldResult:
    """A fold that succeeded, with its prediction in Ray's object store."""

    stats: FoldStats
    prediction_ref: ObjectRef[Prediction] | None
