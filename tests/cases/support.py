"""The folders of cases, and what the program makes of an input in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import InvalidComplex
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.input_warnings import input_warnings
from foldcp.pipeline.inputs.tasks import Task, make_task_list

CASES = Path(__file__).parents[3] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason="the cases are not in ../shared")


def case(number: int) -> Path:
    """The folder of a case's inputs."""
    [folder] = CASES.glob(f"{number:02d}_*")
    return folder / "in"


@dataclass(frozen=True)
class Planned:
    """What `plan` makes of an input: tasks and reasons by name, and lines for the user."""

    tasks: dict[str, Task]
    reasons: dict[str, str]
    warnings: list[str]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: task.num_tokens for name, task in self.tasks.items()}

    @property
    def depths(self) -> dict[str, int]:
        return {name: task.msa_depth for name, task in self.tasks.items()}

    @property
    def task(self) -> Task:
        [task] = self.tasks.values()
        return task


def plan(path: Path, *settings: str, **options: Any) -> Planned:
    spec = InputSpec(path, InputOptions(**options))
    config = load(overrides=["msa.missing=single-sequence", *settings])
    found = make_task_list(records(spec), config, "weights")
    invalid: tuple[InvalidComplex, ...] = found.invalid
    return Planned(
        {task.name: task for task in found.tasks},
        {record.name: record.reason for record in invalid},
        input_warnings(spec, [task.complex for task in found.tasks]),
    )


def error(path: Path, **options: Any) -> str:
    """The line that reading an input ends with."""
    with pytest.raises(ValueError) as caught:
        plan(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message
