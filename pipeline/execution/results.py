"""Results of workers and worker groups: `Ready`, `FoldResult` or `Failure` (`scheduling/types.py`).

A prediction is large. Rank 0 puts it into Ray's object store, and only a reference to it passes
through the actor of the worker group (`RemoteFoldResult`); the driver fetches it, and Ray frees it
when the driver drops the result. So does every rank with its rows of the PAE that is to be kept,
which the driver fetches rank by rank: the whole never lies in the memory of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foldcp.pipeline.scheduling.types import Failure

if TYPE_CHECKING:  # so that the actor of a worker group needs no torch
    from ray import ObjectRef

    from foldcp.metrics.interface.pae_blocks import PaeBlock
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
    """A fold that succeeded; rank 0 has the prediction, the other ranks have none.

    `pae_blocks` are those of the rank's own rows, by sample.
    """

    stats: FoldStats
    prediction: Prediction | None
    pae_blocks: Mapping[int, Sequence[PaeBlock]]


@dataclass(frozen=True, slots=True)
class RemoteFoldResult:
    """A fold that succeeded, with its prediction in Ray's object store.

    `pae_refs` are references to the blocks of PAE of a sample, one of each rank.
    """

    stats: FoldStats
    prediction_ref: ObjectRef[Prediction] | None
    pae_refs: Mapping[int, Sequence[ObjectRef[Sequence[PaeBlock]]]]


class ResultLostError(Exception):
    """A result whose worker has died, or its node, before all of it was fetched."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure
