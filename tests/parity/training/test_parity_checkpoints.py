"""Checkpoints of training runs are read by Boltz's own module, optimizer, schedule and average."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.config import Architecture
from foldcp.training.loop.checkpoints import newest_checkpoint
from foldcp.training.loop.settings import SIZES, ModelSettings, checkpoint_folder
from tests.training.loop.runs import SETTINGS, train

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-parity/bin/python"
PROGRAM = ROOT / "tests/parity/reference/train/read_checkpoint.py"


@pytest.mark.parametrize("weight_decay", [0.0, 0.003])
@pytest.mark.parametrize(
    "architecture",
    [SIZES["tiny"], replace(SIZES["tiny"], use_templates=False)],
    ids=["templates", "no templates"],
)
def test_boltz_reads_our_checkpoints(
    architecture: Architecture, weight_decay: float, tmp_path: Path
) -> None:
    settings = replace(
        SETTINGS,
        model=ModelSettings(architecture=architecture),
        optimizer=replace(SETTINGS.optimizer, weight_decay=weight_decay),
        max_steps=2,
    )
    train(tmp_path, settings)
    path = newest_checkpoint(checkpoint_folder(tmp_path))
    done = subprocess.run([PYTHON, PROGRAM, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
