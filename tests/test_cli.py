"""The command line: what it prints, and one line with exit code 2 for every mistake of a user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pytest

from foldcp.pipeline.cli import main

SHARED = Path(__file__).parents[2] / "shared" / "data"
CORUM = SHARED / "corum" / "corum_4.1_core.tsv.gz"
HUMAN = SHARED / "inputs" / "human_proteins_uniprot.fasta.gz"
needs_corum = pytest.mark.skipif(not CORUM.exists(), reason="CORUM is not in ../shared/data")

# Runs a command and says on the last line of stderr which heavy packages it imported.
PROGRAM = """
import sys
from foldcp.pipeline.cli import main
try:
    main()
finally:
    print(sorted({"torch", "ray"} & set(sys.modules)), file=sys.stderr)
"""


def run_apart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@dataclass
class Result:
    code: object
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["foldcp", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Result(end.value.code, *capsys.readouterr())

    return run


def fasta(path: Path, *records: str) -> Path:
    path.write_text("".join(f">c{index}\n{record}\n" for index, record in enumerate(records, 1)))
    return path


@needs_corum
def test_plan_of_corum() -> None:
    began = perf_counter()
    result = run_apart("plan", CORUM, "--sequences", HUMAN, "--gpus", "8", "--json")
    assert perf_counter() - began < 20
    assert (result.returncode, result.stderr) == (0, "[]\n"), "plan must import neither torch nor ray"
    plan = json.loads(result.stdout)
    assert (plan["num_human"], plan["num_other"]) == (3694, 1586)
    entries = plan["entries"]
    assert len(entries) + len(plan["unbuildable"]) + len(plan["too_large"]) == 5280
    assert all(e["reason"] for e in plan["unbuildable"] + plan["too_large"])
    assert {e["group_size"] for e in entries} >= {1, 2, 3, 8}
    assert all(e["gb"] < 141 for e in entries)
    assert 1 < plan["gpu_hours"] / plan["hours"] <= 8
    assert sum(e["seconds"] * e["group_size"] for e in entries) / 3600 == pytest.approx(plan["gpu_hours"], rel=1e-3)


def test_plan_for_people(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT:GHW", "MKTA" * 500, "MK" * 30_000, "MK1:GHW")
    result = run("plan", source, "--gpus", "3", "--hardware", "a100-80", "--set", "model.samples=2")
    assert result.code == 0
    lines = result.out.splitlines()
    assert any(line.startswith("cannot be built\tc4\t") and "1" in line for line in lines)
    assert any(line.startswith("too large\tc3\t") and "60000 tokens" in line for line in lines)
    assert "1,537-2,048" in result.out
    assert "on 3 GPUs of a100-80" in lines[-1]


def test_more_gpus_take_larger_complexes_in_less_time(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", *("M" * (500 + 999 * i) for i in range(12)), "M" * 29_000)
    one, eight = (json.loads(run("plan", source, "--gpus", n, "--json").out) for n in ("1", "8"))
    assert len(one["too_large"]) > len(eight["too_large"]) == 0
    assert "on each of 1 GPU" in one["too_large"][0]["reason"]
    sizes = {e["num_tokens"]: e["group_size"] for e in eight["entries"]}
    assert sizes[29_000] == 8
    assert one["hours"] > eight["hours"] * 0.2


def test_organism_is_a_filter(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "corum.txt"
    table.write_text("ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n1\ta\tHuman\tP1;P1\n2\tb\tMouse\tP1\n")
    sequences = tmp_path / "s.fasta"
    sequences.write_text(">P1\nMKTAYI\n")
    plan = json.loads(run("plan", table, "--sequences", sequences, "--organism", "human", "--json").out)
    assert [e["name"] for e in plan["entries"]] == ["1"]
    result = run("plan", table, "--sequences", sequences, "--organism", "Yeast")
    assert (result.code, result.err) == (2, f"foldcp: {table}: no complex of organism 'Yeast'\n")


MISTAKES = {
    "missing input": (["{tmp}/none.fasta"], ["none.fasta"]),
    "empty input": (["{tmp}/empty.fasta"], ["empty.fasta"]),
    "wrong columns": (["{tmp}/wrong.tsv"], ["wrong.tsv"]),
    "no sequences": (["{tmp}/corum.txt"], ["corum.txt", "--sequences"]),
    "unknown setting": (["{tmp}/in.fasta", "--set", "model.smaples=3"], ["model.smaples", "model.samples"]),
    "wrong value": (["{tmp}/in.fasta", "--set", "model.samples=x"], ["model.samples", "'x'"]),
    "unknown hardware": (["{tmp}/in.fasta", "--hardware", "h20"], ["h20", "h200"]),
    "missing config": (["{tmp}/in.fasta", "--config", "{tmp}/none.yaml"], ["none.yaml"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(run: Run, tmp_path: Path, name: str) -> None:
    fasta(tmp_path / "in.fasta", "MKT")
    (tmp_path / "empty.fasta").write_text("")
    (tmp_path / "wrong.tsv").write_text("a\tb\n1\t2\n")
    (tmp_path / "corum.txt").write_text("ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n1\ta\tHuman\tP1\n")
    arguments, words = MISTAKES[name]
    result = run("plan", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("foldcp: ")
    assert result.err.count("\n") == 1
    assert all(word in result.err for word in words), result.err


def test_help_has_examples(run: Run) -> None:
    whole = run("--help")
    assert whole.code == 0
    assert "plan" in whole.out
    assert "foldcp plan corum.tsv.gz --sequences" in run("plan", "--help").out
