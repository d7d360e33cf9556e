"""A database scored in shards and merged: the tables of a run of everything."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from foldcp.pipeline.cli import app
from foldcp.pipeline.scheduling.hardware import PRESETS
from foldcp.pipeline.storage.tables import read_table
from tests.support.runs import assert_equal_tables, command, sequence, tables

SETTINGS = (
    "msa.missing=single-sequence",
    "model.steps=4",
    "model.recycling=0",
    "model.samples=2",
    "run.cpu_ranks=1",
    "write=boltz",
)
COUNT = 2


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four complexes that are folded, two that are too large, and two records that are none."""
    folder = tmp_path_factory.mktemp("input")
    lengths = {"a": (20, 17), "b": (25, 14), "c": (16, 16), "d-e": (31, 9), "huge": (300,)}
    lengths["giant"] = (310, 20)
    lines = [
        f">{name}\n{':'.join(sequence(n, 100 * i + j) for j, n in enumerate(sizes))}\n"
        for i, (name, sizes) in enumerate(lengths.items())
    ]
    (folder / "in.fasta").write_text("".join(lines) + ">bad\nMK1\n>a\nMKTAYI\n")
    hardware = yaml.safe_load((PRESETS / "cpu.yaml").read_text())
    (folder / "small.yaml").write_text(
        yaml.safe_dump(hardware | {"pair_bytes_fp32": 8e6, "memory_gb": 12.0})
    )
    return folder / "in.fasta"


def score(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    line = [*command(source, out, settings=SETTINGS), *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=240)


def foldcp(*words: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def test_merged_shards_are_the_run_of_everything(source: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert score(source, whole).returncode == 1
    shards = [tmp_path / f"shard-{number}" for number in range(1, COUNT + 1)]
    for number, shard in enumerate(shards, start=1):
        result = score(source, shard, "--shard", f"{number}/{COUNT}")
        assert result.returncode in (0, 1, 3), result.stderr
        (row,) = read_table(shard, "runs").to_pylist()
        assert row["shard"] == f"{number}/{COUNT}"
    names = [set(tables(shard)["complexes"]["name"]) for shard in shards]
    assert sum(map(len, names)) == len({"a", "b", "c", "d-e", "huge", "giant", "bad"})

    other = score(source, shards[0], "--shard", f"2/{COUNT}")
    assert other.returncode == 2 and "shard is '1/2' there and '2/2' here" in other.stderr
    other = score(source, shards[0])
    assert other.returncode == 2 and "shard is '1/2' there and not given here" in other.stderr

    out = tmp_path / "merged"
    printed = foldcp("merge", *shards, "--out", out)
    assert "4 done, 2 failed, 2 invalid" in printed and "hard links" in printed
    assert_equal_tables(tables(out), tables(whole))
    for folder in ("predictions", "structures"):
        found = [
            {path.relative_to(run) for path in (run / folder).rglob("*") if path.is_file()}
            for run in (out, whole)
        ]
        assert found[0] == found[1] and found[0]

    again = score(source, out)
    assert "4 of 6 complexes are done already" in again.stderr, again.stderr
    assert again.returncode == 1  # the same two are too large
    assert_equal_tables(tables(out), tables(whole))
    assert "4 done" in foldcp("status", out).replace(" of 6 complexes", "")
    assert foldcp("query", out, "SELECT count(*) FROM interfaces").split()[-1] == "16"
    assert "report.html" in foldcp("report", out)
    foldcp("export", out, "--to", "csv", "--out", tmp_path / "csv")
    assert (tmp_path / "csv/complexes.csv").read_text().count("\n") == 1 + 8 + 2 + 2


def test_plan_of_a_shard(source: Path) -> None:
    setting = ["--set", "msa.missing=single-sequence"]
    plans = [
        json.loads(foldcp("plan", source, "--shard", f"{number}/2", "--json", *setting))
        for number in (1, 2)
    ]
    names = [[entry["name"] for entry in plan["entries"]] for plan in plans]
    assert all(names) and sorted([*names[0], *names[1]]) == ["a", "b", "c", "d-e", "giant", "huge"]
    assert sum(len(plan["invalid"]) for plan in plans) == 2
