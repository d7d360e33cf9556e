"""The scripts in examples/ run as written."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DEMO = ROOT / "datasets" / "demo"


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with the interpreter's programs on the path and random weights."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "PATH": path, "CHECKPOINT": "untrained:tiny"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_fold_one_writes_the_best_structure(tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, EXAMPLES / "fold_one.py", "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "sample 1: confidence" in done.stdout
    assert (tmp_path / "barnase_barstar.cif").read_text().startswith("data_barnase_barstar")


def test_score_corum_and_read_tables(tmp_path: Path) -> None:
    inputs = [DEMO / "complexes.tsv", DEMO / "sequences.fasta", "-", "demo-run"]
    settings = ["--limit", "2", "--set", "model.steps=2"]
    scored = run(tmp_path, "bash", EXAMPLES / "score_corum.sh", *inputs, *settings)
    assert scored.returncode == 0, scored.stdout + scored.stderr

    read = run(tmp_path, sys.executable, EXAMPLES / "read_tables.py", "demo-run", "--csv", "a.csv")
    assert read.returncode == 0, read.stderr
    assert "The weights are random" in read.stdout
    assert "0 complexes without a result" in read.stdout
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == 2
    assert all(0 <= float(row["ipsae_d0res"]) <= 1 for row in rows)


def test_score_corum_explains_its_arguments(tmp_path: Path) -> None:
    done = run(tmp_path, "bash", EXAMPLES / "score_corum.sh", DEMO / "complexes.tsv")
    assert done.returncode == 2 and "usage: " in done.stderr


def test_slurm_script_is_a_shell_script(tmp_path: Path) -> None:
    assert run(tmp_path, "bash", "-n", EXAMPLES / "slurm.sbatch").returncode == 0
