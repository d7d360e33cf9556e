"""Settings of a training run, and the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from foldcp.pipeline.cli import app
from foldcp.pipeline.fetch import find_weights
from foldcp.pipeline.storage.training.training_log import TrainingLog, read_training_log
from foldcp.pipeline.training.settings_file import read_train_settings
from foldcp.pipeline.training.train import read_run_settings
from foldcp.pipeline.training_data.prepare import PrepareSettings, prepare
from foldcp.training.loop.checkpoints import newest_checkpoint
from foldcp.training.loop.settings import checkpoint_folder
from tests.training.data.mmcif import single_protein

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs/train").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_read(path: Path) -> None:
    settings = read_train_settings(path, ["data.folder=x", "optimizer.max_rate=1e-4"])
    assert settings.optimizer.max_rate == 1e-4
    assert settings.data.folder == "x"


MISTAKES = {
    "modle.init=x": "--set: modle.init: unknown setting; did you mean model.init?",
    "step.multiplicity=0": "--set: step.multiplicity: multiplicity must be at least 1, not 0",
    "optimizer.ema=1": r"--set: optimizer.ema: ema must be in \[0, 1\), not 1",
    "max_steps=-1": "--set: max_steps: -1 is too small; the minimum is 0",
    "precision=fp16": "--set: precision: expected one of fp32, tf32, bf16, got 'fp16'",
    "model.init=untrained:huge": "--set: model.init: unknown network 'untrained:huge'",
    "model.architecture.averaging_heads=4": "averaging_heads: must be 8, as Boltz's checkpoints",
    "data.examples.crop_tokens=0": "crop_tokens must be at least 1, not 0",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_name_the_key(text: str) -> None:
    with pytest.raises(ValueError, match=MISTAKES[text]):
        read_train_settings(None, [text])


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("optimizer:\n  rate: 1\n")
    with pytest.raises(ValueError, match=f"{path}: optimizer.rate: unknown setting"):
        read_train_settings(path, [])


def test_weights_to_begin_with_have_the_names_that_other_commands_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDCP_CACHE", str(tmp_path))
    settings = read_run_settings(None, ["model.init=demo", "data.folder=x"], None)
    assert settings.model.init == find_weights("demo")
    with pytest.raises(ValueError, match="`foldcp fetch boltz2` downloads it"):
        read_run_settings(None, ["model.init=boltz2", "data.folder=x"], None)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for number in range(2):
        single_protein("MKDAYIAFQRCHW"[: 9 + number]).write(tmp_path / f"in/s{number}.cif")
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("s1\n")
    prepare(tmp_path / "in", tmp_path / "data", PrepareSettings(), held_out=held_out)
    return tmp_path / "data"


def arguments(prepared: Path, out: Path, *changes: str) -> list[str]:
    keys = [
        "model.init=untrained:tiny", f"data.folder={prepared}", "data.workers=0",
        "step.multiplicity=1", "step.weights.confidence=0", "step.recycling=0",
        "examples_per_step=1", "max_steps=2", "log.every=1", "validation.every=2",
        "validation.training_examples=1", "validation.sampling_steps=2", *changes,
    ]  # fmt: skip
    return ["train", "--out", str(out), *(word for key in keys for word in ("--set", key))]


def test_the_command_trains_validates_and_logs(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # of which each has a thread
    out = tmp_path / "run"
    done = CliRunner().invoke(app, arguments(prepared, out))
    assert done.exit_code == 0, done.output
    assert "step 2, 1 held-out examples: lddt" in done.output
    steps = read_training_log(out / "log", "steps").to_pylist()
    assert [row["step"] for row in steps] == [1, 2]
    assert all(row["loss"] > 0 and row["mse"] > 0 and row["plddt"] is None for row in steps)
    rows = read_training_log(out / "log", "validation").to_pylist()
    assert [(row["name"], row["split"]) for row in rows] == [("s1", "held-out"), ("s0", "train")]
    assert all(0 <= row["lddt"] <= 1 for row in rows)
    again = CliRunner().invoke(app, arguments(prepared, out, "max_steps=3"))
    assert "2 steps are done" in again.output
    rows = read_training_log(out / "log", "steps").to_pylist()
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_data_without_what_validates_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    single_protein("MKDAYIAF").write(tmp_path / "in/s.cif")
    prepare(tmp_path / "in", tmp_path / "data", PrepareSettings())
    refused = CliRunner().invoke(app, arguments(tmp_path / "data", tmp_path / "run"))
    assert "of the split 'held-out'; validation.every=0 trains without" in str(refused.exception)
    assert not (tmp_path / "run").exists()


def test_the_log_forgets_steps_that_are_done_again(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.add("steps", {"step": step})
        log.flush()
    TrainingLog(tmp_path, 1)
    assert read_training_log(tmp_path, "steps").column("step").to_pylist() == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_exit_code_75(
    number: signal.Signals, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = arguments(prepared, out, "max_steps=100000", "validation.every=0")
    command = [sys.executable, "-m", "foldcp", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    while "step 1:" not in (line := process.stdout.readline()):
        assert line, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert f"{number.name}: stopping after this step" in errors
    newest = newest_checkpoint(checkpoint_folder(out))
    assert newest is not None
    assert torch.load(newest, weights_only=True)["global_step"] >= 1
    assert "stopped after" in output
