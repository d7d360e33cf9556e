"""Writer of results: the rows and files of a prediction, staged in the run's folder.

Rank 0 of a worker group writes its results where its node has that folder, so that the driver only
renames them; the driver writes the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.results import FoldStats, ResultLostError, StagedResult
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Failure
from foldcp.pipeline.storage.commits.staged_commit import stage_commit
from foldcp.pipeline.storage.filesystem import FileSystem
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.run_folder import RUN_FILE
from foldcp.pipeline.storage.staging import StagingArea

if TYPE_CHECKING:  # so that the actor of a worker group needs no torch
    from foldcp.metrics.interface.pae_blocks import PaeBlock
    from foldcp.predict import Prediction

    PaeBlocks = Callable[[int], Iterable[PaeBlock]]


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """The writer of the results of one run, for any process."""

    root: str  # the run's folder, with its absolute path
    run_id: str
    config: RunConfig
    provenance: Provenance

    def sees_folder(self) -> bool:
        """Whether this machine has the run's folder, and not another one at its path."""
        try:
            content = json.loads((Path(self.root) / RUN_FILE).read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("run_id") == self.run_id

    def staging_area(self, owner: str) -> StagingArea:
        """Where a process of this name stages results."""
        return StagingArea(Path(self.root), FileSystem(), owner)

    def stage(
        self,
        staging: StagingArea,
        task: Task,
        shape: FoldShape,
        fallbacks: Sequence[str],
        stats: FoldStats,
        prediction: Prediction,
        pae_blocks: PaeBlocks,
    ) -> StagedResult | Failure:
        """Stage the result of an attempt of `shape`, after `fallbacks`.

        Returns a Failure if it cannot be made into rows and files, or if a part of it is lost
        before it is fetched. Raises OSError when a file cannot be written.
        """
        # Imported now, as the actor of a worker group needs no torch.
        from foldcp.pipeline.storage.results.result_files import result_files
        from foldcp.pipeline.storage.results.result_rows import result_rows

        started = time.perf_counter()
        task = replace(task, msa_depth=stats.msa_depth)
        provenance = replace(
            self.provenance,
            seed=self.config.model.seed,
            num_ranks=shape.num_ranks,
            precision=shape.precision,
            max_rows=shape.max_rows,
            parallel_samples=shape.parallel_samples,
            fallbacks=tuple(fallbacks),
        )
        layout = prediction.layout
        try:
            rows = result_rows(task, layout, prediction, provenance, task.write)
            files = result_files(task, layout, prediction, provenance, task.write, pae_blocks)
            commit = stage_commit(staging, task.key, "complex", rows, files, task.write)
        except ResultLostError as error:
            return error.failure
        except OSError:
            raise
        except Exception as error:
            return unstorable(error)
        seconds = {**stats.seconds, "write": time.perf_counter() - started}
        return StagedResult(replace(stats, seconds=seconds), commit)


def unstorable(error: Exception) -> Failure:
    """The failure of a complex whose result cannot be stored."""
    reason = f"its result cannot be stored: {type(error).__name__}: {error}"
    return Failure("invalid", " ".join(reason.split()))
