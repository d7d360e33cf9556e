"""Status of a run in progress, which its driver writes into the folder every few seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from foldcp.files import reading

STATUS_FILE = "status.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A worker group: what it folds, and how far it is."""

    group: int
    gpus: str  # as host:count, host:count
    num_gpus: int
    state: str  # starting, idle, folding or stopping
    complex: str = ""  # the largest of a batch
    num_tokens: int = 0
    batch: int = 1  # complexes that it folds together
    seconds: float = 0.0  # in this state
    predicted_seconds: float = 0.0  # of the fold, by the cost model and its steps so far
    stage: str = ""  # features, trunk, sampling or confidence
    step: int = 0
    num_steps: int = 0
    seconds_since_step: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run: its complexes, its GPUs and its worker groups. Times are ISO 8601, in UTC."""

    run_id: str
    host: str  # of the driver
    pid: int
    device: str  # cuda or cpu, whose ranks count as GPUs here
    started: str
    updated: str
    num_complexes: int
    num_done: int  # those that were done before are among them
    num_failed: int
    num_invalid: int
    failures: dict[str, int]  # complexes of this invocation by reason
    num_gpus: int
    num_busy_gpus: int
    gpu_hours: float  # of folds, this invocation's
    gpu_hours_left: float  # predicted
    use: float  # share of the GPU-hours since it started that went into folds
    seconds_left: float
    groups: tuple[GroupStatus, ...]

    @property
    def num_waiting(self) -> int:
        """Complexes that no group folds and that have no outcome."""
        num_folding = sum(group.batch for group in self.groups if group.state == "folding")
        return self.num_complexes - self.num_done - self.num_failed - num_folding

    @property
    def updated_at(self) -> datetime:
        """When the driver wrote it."""
        return datetime.fromisoformat(self.updated)


def write_status(root: Path, status: RunStatus) -> None:
    """Replace the status of a run's folder by one rename. Raises OSError when the disk fails."""
    path = root / STATUS_FILE
    temporary = path.with_suffix(".json.new")
    temporary.write_text(to_json(status), encoding="utf-8")
    temporary.replace(path)


def to_json(status: RunStatus) -> str:
    """All fields as JSON, on one line: that takes a tenth of the time."""
    return json.dumps(status, default=_as_fields)


def _as_fields(part: RunStatus | GroupStatus) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def read_status(root: Path) -> RunStatus | None:
    """The last status of a run's folder; None if there is none.

    Raises ValueError naming the file when it is damaged.
    """
    path = root / STATUS_FILE
    if not path.exists():
        return None
    with reading(str(path)):
        content = path.read_bytes()
    try:
        values = json.loads(content)
        groups = tuple(GroupStatus(**group) for group in values.pop("groups"))
        return RunStatus(**values, groups=groups)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: not what foldcp writes") from error
