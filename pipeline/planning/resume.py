"""What is left when a run resumes: a folder's results against the tasks of the present input.

A result counts for a task if it has the task's key, the hash of everything that the result depends
on (`inputs/content_key.py`). So a run resumes with the same command, on any number of GPUs; a
changed input is a task without a result; and the former result is stale (`storage/staleness.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.tables import read_table


def unfinished_tasks(tasks: Sequence[Task], outcomes: Mapping[str, str]) -> list[Task]:
    """The tasks without a result, those that failed before among them.

    `outcomes` are the folder's, by key: done, failed or invalid.
    """
    return [task for task in tasks if outcomes.get(task.key) != "done"]


def suspect_keys(root: Path) -> set[str]:
    """Keys of complexes in whose fold a worker group ended in an earlier run on the folder."""
    attempts = read_table(root, "attempts").select(["key", "outcome"]).to_pylist()
    return {row["key"] for row in attempts if row["outcome"] in ("worker_died", "timeout", "error")}
