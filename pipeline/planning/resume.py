"""What is left to fold when a run resumes: a folder's results against the present input's tasks.

A result counts for a task if it has the task's key, the hash of everything that the result depends
on (`inputs/content_key.py`). So a run resumes with the same command, on any number of GPUs; a
changed input is a task without a result; and the former result is stale (`storage/staleness.py`).
Files that are asked for now and that a result lacks need another fold, after which it has these and
those that it had.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.costs.factors import MEASURED_STAGES
from foldcp.pipeline.scheduling.costs.learning import MeasuredFold
from foldcp.pipeline.storage.tables import read_table


def unfinished_tasks(tasks: Sequence[Task], outcomes: Mapping[str, str]) -> list[Task]:
    """The tasks without a result, those that failed before among them.

    `outcomes` are the folder's, by key: done, failed or invalid.
    """
    return [task for task in tasks if outcomes.get(task.key) != "done"]


def missing_files(
    written: WriteConfig, wanted: WriteConfig, num_samples: int, num_chains: int
) -> list[str]:
    """The settings `wanted` that ask for files that a result does not have.

    It was `written` with other settings. A structure counts in any format, and the PAE of as many
    best pairs as there are is all of it.
    """
    missing = []
    files = sorted(set(wanted.files) - set(written.files))
    if files:
        missing.append(f"write.files={','.join(files)}")
    if wanted.structures != "none" and written.structures == "none":
        missing.append(f"write.structures={wanted.structures}")
    num_pairs = max(1, num_chains * (num_chains - 1) // 2)  # one chain is kept like a pair
    if min(wanted.num_pae_pairs, num_pairs) > min(written.num_pae_pairs, num_pairs):
        missing.append(f"write.pae={wanted.pae}")
    is_partial = written.structure_samples == "best" and wanted.structure_samples == "all"
    if is_partial and num_samples > 1 and _has_sample_files(wanted):
        missing.append("write.structure_samples=all")
    return missing


def both(written: WriteConfig, wanted: WriteConfig) -> WriteConfig:
    """The settings of a result that has all files of both; the structures' format is kept.

    There is one choice of samples: where `written` has files of all, so has the result.
    """
    samples = {write.structure_samples for write in (written, wanted) if _has_sample_files(write)}
    return WriteConfig(
        files=tuple(dict.fromkeys((*written.files, *wanted.files))),
        structures=wanted.structures if written.structures == "none" else written.structures,
        structure_samples="all" if "all" in samples else "best",
        pae=max(written, wanted, key=lambda write: write.num_pae_pairs).pae,
    )


def _has_sample_files(write: WriteConfig) -> bool:
    """Whether there are files of the samples that `structure_samples` chooses."""
    return write.structures != "none" or write.num_pae_pairs > 0 or "pde" in write.files


def measured_folds(root: Path, tasks: Sequence[Task], hardware: str) -> list[MeasuredFold]:
    """The folds of earlier runs on the folder from which the cost model can learn.

    Those of the same hardware, and of complexes that the input still has: keys that are equal stand
    for equal settings of the network.
    """
    runs = read_table(root, "runs").select(["run_id", "hardware"]).to_pylist()
    same = {run["run_id"] for run in runs if run["hardware"] == hardware}
    by_key = {task.key: task for task in tasks}
    attempts = read_table(root, "attempts").to_pylist() if same else []
    folds: dict[Hashable, list[Mapping[str, Any]]] = {}
    for row in attempts:
        if (
            row["run_id"] in same
            and row["outcome"] in ("done", "oom")
            and not row["first_pass"]  # others were not whole
        ):
            folds.setdefault(_fold_id(row), []).append(row)
    measured = (_measured_fold(rows, by_key) for rows in folds.values())
    return [fold for fold in measured if fold is not None]


def _fold_id(row: Mapping[str, Any]) -> Hashable:
    """What the attempts have in common that are one fold: those of a batch."""
    if (row["batch"] or 1) == 1:
        return row["attempt_id"]
    return row["run_id"], row["gpus"], row["started"]


def _measured_fold(
    rows: Sequence[Mapping[str, Any]], by_key: Mapping[str, Task]
) -> MeasuredFold | None:
    """The fold of rows of the table `attempts`: of one complex, or of a batch, as its largest.

    None if that is not among the tasks, and of a batch in which some failed: it is not known what
    took the time.
    """
    largest = max(rows, key=lambda row: row["num_tokens"])
    batch = largest["batch"] or 1
    if largest["key"] not in by_key or len(rows) < batch:
        return None
    depth = largest["msa_depth"]
    shape = FoldShape(
        largest["group_size"], largest["precision"], largest["parallel_samples"], depth, batch
    )
    stages = {stage: [row[f"seconds_{stage}"] for row in rows] for stage in MEASURED_STAGES}
    is_whole = all(None not in seconds for seconds in stages.values())
    return MeasuredFold(
        replace(by_key[largest["key"]], msa_depth=depth),
        shape,
        sum(row["seconds"] for row in rows),
        {stage: sum(seconds) for stage, seconds in stages.items()} if is_whole else {},
        ran_out=largest["outcome"] == "oom",
    )


def suspect_keys(root: Path) -> set[str]:
    """Keys of complexes in whose fold, of them alone, a worker group ended in an earlier run on the
    folder.
    """
    return {
        row["key"]
        for row in _attempts(root, ["key", "outcome", "batch"])
        if row["outcome"] in ("worker_died", "timeout", "error") and (row["batch"] or 1) == 1
    }


def alone_keys(root: Path) -> set[str]:
    """Keys of complexes that were in a batch that failed in an earlier run on the folder, or failed
    in a batch.
    """
    return {
        row["key"]
        for row in _attempts(root, ["key", "outcome", "batch"])
        if row["outcome"] not in ("done", "stopped") and (row["batch"] or 1) > 1
    }


def _attempts(root: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Columns of the rows of the table `attempts`."""
    return read_table(root, "attempts").select(columns).to_pylist()
