"""The plan of a run: input, settings and weights, read and checked before anything is written."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

from foldcp.checkpoint.architecture import checkpoint_architecture
from foldcp.checkpoint.identity import checkpoint_identity, is_untrained
from foldcp.complex import Complex, Record
from foldcp.config import Architecture
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.content_key import result_settings
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.tasks import TaskList, make_task_list, require_task, smallest
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.planning.partition import chosen_records
from foldcp.pipeline.storage.results.invalid_records import invalid_rows
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.run_folder import RunInfo, check_folder, read_identity
from foldcp.pipeline.storage.staleness import Present

LIBRARIES = ("foldcp", "torch", "numpy", "ray", "pyarrow", "gemmi", "biotite")
SETTINGS_DIGITS = 12  # hexadecimal digits of SHA-256
DATABASE_DIGITS = 32


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The tasks of a run, its settings and its weights.

    `present` is what the input asks for now: results of earlier runs in the folder that it does not
    ask for are stale. `identity` is what a folder must have been made with to be resumed,
    `database` a digest of the names in the input.
    """

    input_spec: InputSpec
    config: RunConfig
    architecture: Architecture
    task_list: TaskList
    provenance: Provenance
    present: Present
    identity: dict[str, Any]
    database: str

    def info(self, hardware: str) -> RunInfo:
        """The content of run.json."""
        versions = {name: metadata.version(name) for name in LIBRARIES}
        weights = self.provenance.checkpoint
        sha256 = weights.removeprefix("sha256:") if weights.startswith("sha256:") else None
        return RunInfo(
            identity=self.identity,
            command=" ".join(sys.argv),
            input=str(self.input_spec.input),
            checkpoint=self.input_spec.checkpoint,
            untrained=self.provenance.untrained,
            settings=asdict(self.config),
            versions={**versions, "python": platform.python_version()},
            checkpoint_sha256=sha256,
            hardware=hardware,
            shard=str(self.input_spec.shard) if self.input_spec.shard else None,
            database=self.database,
        )


def prepare(
    input_spec: InputSpec,
    config: RunConfig,
    out: Path,
    on_first_task: Callable[[], None] | None = None,
) -> RunPlan:
    """Read everything that the user names, and check that `out` is new or can be resumed.

    `on_first_task` is called when `out` can be used and the first task is made. Raises ValueError
    naming the file and the value for anything that cannot be used, and for an `out` that holds
    something else than results of these weights; nothing is written.
    """
    check_folder_writable(out)
    read_identity(out)  # an error comes before the input is read
    require_checkpoint(input_spec.checkpoint)
    architecture = checkpoint_architecture(input_spec.checkpoint)
    skipped_names: set[str] = set()
    with ThreadPoolExecutor(1) as other:
        # Hashing takes seconds, and lets this thread read sequences.
        hashed = other.submit(checkpoint_identity, input_spec.checkpoint)
        later_records = chosen_records(input_spec, config, skipped_names)
        first_records = up_to_complex(later_records)
        weights = hashed.result()
    identity: dict[str, Any] = {"checkpoint": weights}
    if input_spec.shard:
        identity["shard"] = str(input_spec.shard)
    check_folder(out, identity)
    records = chain(first_records, later_records)
    task_list = make_task_list(records, config, weights, on_first=on_first_task)
    if not input_spec.shard:  # of which one may be empty, or have invalid records alone
        require_task(input_spec.input, task_list)
    provenance = Provenance(
        weights,
        is_untrained(input_spec.checkpoint),
        settings_hash=settings_digest(config),
        repeated=repeated_names(task_list),
    )
    present = find_present(task_list, skipped_names, provenance)
    # What --limit leaves out still counts: a later run may resume with more of the same input.
    limited = smallest(task_list, input_spec.limit)
    database = database_digest(task_list, skipped_names)
    return RunPlan(
        input_spec, config, architecture, limited, provenance, present, identity, database
    )


def up_to_complex(records: Iterator[Record]) -> list[Record]:
    """The next records up to the first that is a complex, or all, if none is."""
    found = []
    for record in records:
        found.append(record)
        if isinstance(record, Complex):
            break
    return found


def require_checkpoint(name: str) -> None:
    """ValueError when no weights are named: random ones are never a default."""
    if not name:
        raise ValueError(
            "--checkpoint is missing: a checkpoint file, boltz2 once it is fetched, or "
            "demo to try things out"
        )


def settings_digest(config: RunConfig) -> str:
    """A short digest of the settings that change results."""
    text = json.dumps(result_settings(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SETTINGS_DIGITS]


def repeated_names(task_list: TaskList) -> frozenset[str]:
    """Names that several complexes of an input share."""
    counts = Counter(task.name for task in task_list.tasks)
    return frozenset(name for name, count in counts.items() if count > 1)


def database_digest(task_list: TaskList, skipped_names: Collection[str]) -> str:
    """A digest of the names of all records of an input, chosen or not: shards and runs of one
    database have the same.
    """
    names = {record.name for record in (*task_list.tasks, *task_list.invalid)} | set(skipped_names)
    text = json.dumps(sorted(names))
    return hashlib.sha256(text.encode()).hexdigest()[:DATABASE_DIGITS]


def find_present(
    task_list: TaskList, skipped_names: Collection[str], provenance: Provenance
) -> Present:
    """The results that an input asks for.

    `skipped_names` are names of records that were not looked at; a name that was looked at, too, is
    not among them.
    """
    names = {record.name for record in (*task_list.tasks, *task_list.invalid)}
    keys = {task.key for task in task_list.tasks}
    keys |= invalid_rows(task_list.invalid, provenance).keys()
    return Present(frozenset(keys), frozenset(skipped_names) - names, provenance.settings_hash)
