"""The plan of a run, and when the start of Ray may begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.planning.run_plan import prepare

CONFIG = load(overrides=["msa.missing=single-sequence"])


@pytest.fixture
def calls() -> list[str]:
    return []


def test_prepare_says_when_the_first_task_is_made(tmp_path: Path, calls: list[str]) -> None:
    source = tmp_path / "in.fasta"
    source.write_text(">bad\nMK1\n>a\nMKT\n>b\nGSH\n")
    spec = InputSpec(source, InputOptions(), "untrained:tiny")
    plan = prepare(spec, CONFIG, tmp_path / "run", lambda: calls.append("begin"))
    assert calls == ["begin"]
    assert [task.name for task in plan.task_list.tasks] == ["a", "b"]
    assert [record.name for record in plan.task_list.invalid] == ["bad"]


@pytest.mark.parametrize("fault", ["no complex", "no alignment", "another folder"])
def test_prepare_says_nothing_before_it_finds_a_mistake(
    tmp_path: Path, calls: list[str], fault: str
) -> None:
    source = tmp_path / "in.fasta"
    source.write_text(">bad\nMK1\n" if fault == "no complex" else ">a\nMKT\n")
    (tmp_path / "notes.txt").write_text("mine")
    out = tmp_path if fault == "another folder" else tmp_path / "run"
    spec = InputSpec(source, InputOptions(), "untrained:tiny")
    config = load() if fault == "no alignment" else CONFIG
    with pytest.raises(ValueError, match=r"no complex can be built|neither empty nor"):
        prepare(spec, config, out, lambda: calls.append("begin"))
    assert not calls
