"""Results of workers and worker groups, or a `Failure` (`scheduling/types.py`).

A prediction is large. Rank 0 keeps it until all ranks have succeeded, and writes its rows and files
under temporary names (`StagedResult`), which the driver then gives their names. Where its node does
not have the run's folder, it puts the prediction into Ray's object store (`RemoteFoldResult`), and
the driver fetches and writes it. Every rank puts its rows of the PAE that is to be kept into the
object store; whoever writes fetches them rank by rank: the whole never lies in the memory of one
process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foldcp.pipeline.scheduling.types import Failure
from foldcp.pipeline.storage.commits.staged_commit import StagedCommit

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
class RankResult:
    """What a rank tells of a fold that succeeded; rank 0 keeps the prediction.

    `pae_refs` are references to its blocks of PAE, by sample.
    """

    stats: FoldStats
    pae_refs: Mapping[int, ObjectRef[Sequence[PaeBlock]]]


@dataclass(frozen=True, slots=True)
class StagedResult:
    """A result whose rows and files are on the disk under temporary names."""

    stats: FoldStats
    commit: StagedCommit


@dataclass(frozen=True, slots=True)
class RemoteFoldResult:
    """A result with its prediction in Ray's object store.

    `pae_refs` are references to the blocks of PAE of a sample, one of each rank.
    """

    stats: FoldStats
    prediction_ref: ObjectRef[Prediction]
    pae_refs: Mapping[int, Sequence[ObjectRef[Sequence[PaeBlock]]]]


# A complex has a Failure of its own if it is at fault itself or its result cannot be stored.
ComplexResult = StagedResult | RemoteFoldResult | Failure


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results of complexes that were folded together, in their order."""

    results: tuple[ComplexResult, ...]


class ResultLostError(Exception):
    """A result whose worker has died, or its node, before all of it was fetched."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure
