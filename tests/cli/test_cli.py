"""The command line: what it prints, and one line with exit code 2 for every mistake of a user."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from time import perf_counter

import pytest
import torch

from foldcp.checkpoint.identity import checkpoint_identity
from foldcp.datasets.reader import FORMATS
from foldcp.pipeline import cli
from foldcp.pipeline.cli import main
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.run import Summary
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.planning.run_plan import prepare
from foldcp.pipeline.reporting import best_interfaces
from foldcp.pipeline.storage.results.result_rows import failed_rows
from foldcp.pipeline.storage.run_folder import FORMAT
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from tests.checkpoint.test_load import contents
from tests.support.synthetic_results import INFO, finishing

SHARED = Path(__file__).parents[3] / "shared" / "data"
CORUM = SHARED / "corum" / "corum_4.1_core.tsv.gz"
HUMAN = SHARED / "inputs" / "human_proteins_uniprot.fasta.gz"
ALONE = "msa.missing=single-sequence"
needs_corum = pytest.mark.skipif(not CORUM.exists(), reason="CORUM is not in ../shared/data")

# Runs a command and says on the last line of stderr which heavy packages it imported.
PROGRAM = """
import sys
from foldcp.pipeline import cli
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
    assert (result.returncode, result.stderr) == (0, "[]\n"), (
        "plan must import neither torch nor ray"
    )
    plan = json.loads(result.stdout)
    assert (plan["num_human"], plan["num_other"]) == (3694, 1586)
    entries = plan["entries"]
    assert len(entries) + len(plan["invalid"]) + len(plan["too_large"]) == 5280
    assert all(e["reason"] for e in plan["invalid"] + plan["too_large"])
    assert {e["group_size"] for e in entries} >= {1, 2, 3, 8}
    assert all(e["least_gb"] <= e["peak_gb"] <= 141 for e in entries)
    assert 1 < plan["gpu_hours"] / plan["hours"] <= 8
    assert sum(e["seconds"] * e["group_size"] for e in entries) / 3600 == pytest.approx(
        plan["gpu_hours"], rel=1e-3
    )


def test_plan_prints_a_table(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT:GHW", "MKTA" * 500, "MK" * 30_000, "MK1:GHW")
    result = run(
        "plan",
        source,
        "--gpus",
        "3",
        "--hardware",
        "a100-80",
        "--set",
        "model.samples=2",
    )
    assert result.code == 0
    lines = result.out.splitlines()
    assert any(line.startswith("cannot be built\tc4\t") and "1" in line for line in lines)
    assert any(line.startswith("too large\tc3\t") and "60000 tokens" in line for line in lines)
    assert "1,537-2,048" in result.out
    assert "on 3 GPUs of a100-80" in lines[-1]


def test_plan_is_for_the_network_of_the_checkpoint(tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKTA" * 500)
    found = {}
    for name in ("", "demo", "untrained:tiny", "untrained:boltz2"):
        result = run_apart("plan", source, "--json", *(["--checkpoint", name] if name else []))
        assert (result.returncode, result.stderr) == (0, "[]\n"), "without torch and ray"
        [found[name]] = json.loads(result.stdout)["entries"]
    assert found[""] == found["untrained:boltz2"]
    work = {name: entry["seconds"] * entry["group_size"] for name, entry in found.items()}
    assert work["untrained:tiny"] < work["demo"] < work[""]


def test_plan_simulates_a_run_on_nodes_of_different_sizes(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", *("M" * (100 * i) for i in range(1, 40)))
    picture = tmp_path / "run.svg"
    cluster = ("--gpus", "20", "--gpus-per-node", "3+8+5")
    options = ("--price", "2", "--fail-rate", "0.1", "--gantt", picture)
    result = run("plan", source, *cluster, "--simulate", *options)
    assert result.code == 0
    assert "20 GPUs of h200: 1 node of 8, 1 of 5, 2 of 3, 1 of 1" in result.out
    assert "times the least possible" in result.out
    assert picture.read_text().startswith("<svg")
    found = json.loads(run("plan", source, *cluster, "--simulate", "--json").out)
    assert (found["num_done"], found["failed"], found["cost"]) == (39, [], 0)
    assert "on 20 GPUs of h200" in run("plan", source, *cluster).out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--price", "2"), "--price is for a simulation; add --simulate"),
        (("--fail-rate", "0.1"), "--fail-rate is for a simulation; add --simulate"),
        (("--gantt", "g.svg"), "--gantt is for a simulation; add --simulate"),
        (("--gpus-per-node", "3x8"), "--gpus-per-node 3x8: '3x8' is not a number of GPUs"),
        (("--simulate", "--gantt", "none/g.svg"), "none/g.svg: no such folder: none"),
    ],
)
def test_plan_refuses_options_that_cannot_be_used(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run("plan", fasta(tmp_path / "in.fasta", "MKT:GSH"), *options)
    assert (result.code, message in result.err) == (2, True)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_plan_and_score_agree_when_no_complex_can_be_built(
    run: Run, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """The plan still says why, of each."""
    source = fasta(tmp_path / "in.fasta", "MK1", "MK2:GHW")
    planned = run("plan", source, *flags)
    assert "c1" in planned.out and "c2" in planned.out
    arguments = ("--out", tmp_path / "out", "--checkpoint", "untrained:tiny", "--set", ALONE)
    scored = run("score", source, *arguments)
    assert planned.code == scored.code == 2
    assert planned.err == scored.err
    assert planned.err.startswith(f"foldcp: {source}: no complex can be built; c1: ")


def test_plan_of_more_gpus_takes_larger_complexes_in_less_time(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", *("M" * (500 + 999 * i) for i in range(12)), "M" * 29_000)
    one, eight = (json.loads(run("plan", source, "--gpus", n, "--json").out) for n in ("1", "8"))
    assert len(one["too_large"]) > len(eight["too_large"]) == 0
    assert "on each of 1 GPU" in one["too_large"][0]["reason"]
    sizes = {e["num_tokens"]: e["group_size"] for e in eight["entries"]}
    assert sizes[29_000] == 8
    assert one["hours"] > eight["hours"] * 0.2


def test_plan_takes_one_organism(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "corum.txt"
    table.write_text(
        "ComplexID\tComplexName\tOrganism\tsubunits(UniProt "
        "IDs)\n1\ta\tHuman\tP1;P1\n2\tb\tMouse\tP1\n"
    )
    sequences = tmp_path / "s.fasta"
    sequences.write_text(">P1\nMKTAYI\n")
    plan = json.loads(
        run("plan", table, "--sequences", sequences, "--organism", "human", "--json").out
    )
    assert [e["name"] for e in plan["entries"]] == ["1"]
    result = run("plan", table, "--sequences", sequences, "--organism", "Yeast")
    assert (result.code, result.err) == (
        2,
        f"foldcp: {table}: no complex of organism 'Yeast'\n",
    )


MISTAKES = {
    "missing input": (["{tmp}/none.fasta"], ["none.fasta"]),
    "empty input": (["{tmp}/empty.fasta"], ["empty.fasta"]),
    "wrong columns": (["{tmp}/wrong.tsv"], ["wrong.tsv"]),
    "no sequences": (["{tmp}/corum.txt"], ["corum.txt", "--sequences"]),
    "unknown setting": (
        ["{tmp}/in.fasta", "--set", "model.smaples=3"],
        ["model.smaples", "model.samples"],
    ),
    "wrong value": (
        ["{tmp}/in.fasta", "--set", "model.samples=x"],
        ["model.samples", "'x'"],
    ),
    "unknown hardware": (["{tmp}/in.fasta", "--hardware", "h20"], ["h20", "h200"]),
    "missing config": (
        ["{tmp}/in.fasta", "--config", "{tmp}/none.yaml"],
        ["none.yaml"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_plan_mistakes_are_one_line_and_exit_code_2(run: Run, tmp_path: Path, name: str) -> None:
    fasta(tmp_path / "in.fasta", "MKT")
    (tmp_path / "empty.fasta").write_text("")
    (tmp_path / "wrong.tsv").write_text("a\tb\n1\t2\n")
    (tmp_path / "corum.txt").write_text(
        "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n1\ta\tHuman\tP1\n"
    )
    arguments, words = MISTAKES[name]
    result = run("plan", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("foldcp: ")
    assert result.err.count("\n") == 1
    assert all(word in result.err for word in words), result.err


SCORE_MISTAKES = {
    "no checkpoint": (["in.fasta"], ["--checkpoint is missing"]),
    "no such checkpoint": (
        ["in.fasta", "--checkpoint", "none.ckpt"],
        ["none.ckpt", "no such checkpoint"],
    ),
    "not a checkpoint": (
        ["in.fasta", "--checkpoint", "text.ckpt"],
        ["text.ckpt", "not a checkpoint"],
    ),
    "unknown untrained": (
        ["in.fasta", "--checkpoint", "untrained:huge"],
        ["untrained:huge", "untrained:tiny"],
    ),
    "empty file": (
        ["empty.fasta", *(TINY := ["--checkpoint", "untrained:tiny", "--set", ALONE])],
        ["empty.fasta"],
    ),
    "wrong columns": (["wrong.tsv", *TINY], ["wrong.tsv"]),
    "digits": (["digits.fasta", *TINY], ["digits.fasta", "'17'"]),
    "equal names": (["twice.yaml", *TINY], ["twice.yaml", "'A'"]),
    "unknown setting": (
        ["in.fasta", *TINY, "--set", "model.seeds=3"],
        ["model.seeds", "model.seed"],
    ),
    "unknown hardware": (["in.fasta", *TINY, "--hardware", "h20"], ["h20", "h200"]),
    "missing sequences": (["corum.txt", *TINY], ["corum.txt", "--sequences"]),
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("score", name) for name in SCORE_MISTAKES),
        *(("fold", name) for name in SCORE_MISTAKES if "hard" not in name),
    ],
)
def test_score_and_fold_mistakes_write_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    arguments, words = SCORE_MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    fasta(tmp_path / "in.fasta", "MKT")
    fasta(tmp_path / "digits.fasta", "MK17T")
    Path("empty.fasta").write_text("")
    Path("text.ckpt").write_text("these are no weights")
    Path("wrong.tsv").write_text("a\tb\n1\t2\n")
    Path("corum.txt").write_text(
        "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n1\ta\tHuman\tP1\n"
    )
    protein = "  - protein: {id: A, sequence: MKT, msa: empty}\n"
    Path("twice.yaml").write_text("version: 1\nsequences:\n" + 2 * protein)
    result = run(command, *arguments, "--out", "out")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("foldcp: ")
    assert all(word in result.err.splitlines()[-1] for word in words), result.err
    assert not Path("out").exists()


def stored(out: Path, identity: dict[str, object]) -> None:
    """A folder that says it belongs to a run."""
    Store.open(out, replace(INFO, identity=identity)).close()


def test_score_refuses_a_folder_of_something_else(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT")
    checkpoint = ("--checkpoint", "untrained:tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    result = run("score", source, *checkpoint, "--out", tmp_path / "full")
    assert (
        result.code,
        result.err.splitlines()[-1].startswith(f"foldcp: {tmp_path / 'full'}: "),
    ) == (2, True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]

    stored(tmp_path / "run", {"checkpoint": "sha256:other"})
    before = (tmp_path / "run" / "run.json").read_bytes()
    result = run("score", source, *checkpoint, "--out", tmp_path / "run")
    assert result.code == 2
    assert (
        "checkpoint is 'sha256:other' there and 'untrained:tiny' here"
        in result.err.splitlines()[-1]
    )
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize("command", ["score", "report"])
def test_folder_of_another_format_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, command: str
) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT")
    out = tmp_path / "run"
    stored(out, {"checkpoint": "untrained:tiny"})
    file = out / "run.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 2'))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    options = (source, "--checkpoint", "untrained:tiny", "--out") if command == "score" else ()
    result = run(command, *options, out)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"foldcp: {out}: a folder of format 2, but this version of foldcp reads format {FORMAT}; "
        "give another --out, or use the version of foldcp that wrote it\n"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_version_option_prints_the_package_version(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out) == (0, f"foldcp {metadata.version('foldcp')}\n")


@pytest.mark.parametrize("command", ["score", "fold"])
def test_out_that_cannot_be_created_is_one_line(run: Run, tmp_path: Path, command: str) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT")
    result = run(
        command,
        source,
        "--checkpoint",
        "untrained:tiny",
        "--out",
        tmp_path / ("x" * 300),
    )
    assert result.code == 2
    assert result.err.splitlines()[-1].endswith("x: File name too long")
    result = run(command, source, "--checkpoint", "untrained:tiny", "--out", source / "out")
    assert result.code == 2
    assert str(source) in result.err.splitlines()[-1]


def test_prepare_finds_present_keys_by_input_and_settings(
    tmp_path: Path,
) -> None:
    table = tmp_path / "corum.txt"
    sequences = tmp_path / "s.fasta"
    sequences.write_text(">P1\nMKTAYI\n")
    head = "ComplexID\tComplexName\tOrganism\tsubunits(UniProt IDs)\n"
    table.write_text(
        f"{head}1\ta\tHuman\tP1;P1\n2\tb\tMouse\tP1\n3\tc\tMouse\tP2\n4\td\tHuman\tP2\n"
    )
    everything = InputSpec(table, InputOptions(sequences=(sequences,)), checkpoint="untrained:tiny")

    def present(sources: InputSpec, *settings: str) -> Present:
        return prepare(sources, load(overrides=[ALONE, *settings]), tmp_path / "out").present

    whole = present(everything)
    assert (len(whole.keys), whole.unselected) == (4, frozenset())
    assert present(replace(everything, limit=1)) == whole
    human = present(replace(everything, options=replace(everything.options, organism="human")))
    assert human.unselected == {"2", "3"}
    assert human.settings_hash == whole.settings_hash
    assert len(human.keys & whole.keys) >= 1
    more = present(everything, "model.samples=2")
    assert more.settings_hash != whole.settings_hash
    assert present(everything, "model.parallel_samples=1", "run.retries=3") == whole


def test_prepare_of_changed_alignments_gives_another_key(tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKTAYI:GSHMW")
    msas = tmp_path / "msas"
    out = tmp_path / "run"
    msas.mkdir()
    name = hashlib.sha256(b"MKTAYI").hexdigest()
    sources = InputSpec(source, InputOptions(msas=(msas,)), checkpoint="untrained:tiny")
    (msas / f"{name}.a3m").write_text(">q\nMKTAYI\n")
    first = prepare(sources, load(overrides=[ALONE]), out)
    (key,) = first.present.keys
    assert first.task_list.tasks[0].complex.chains[0].msa is not None
    with finishing(Store.open(out, first.info("cpu"))) as store:
        store.put(
            first.task_list.tasks[0].key,
            failed_rows(first.task_list.tasks[0], "a reason", first.provenance),
        )
    assert prepare(sources, load(overrides=[ALONE]), out).present == first.present
    (msas / f"{name}.a3m").write_text(">q\nMKTAYI\n>hit\nMKT-YI\n")
    changed = prepare(sources, load(overrides=[ALONE]), out)
    assert key not in changed.present.keys
    with finishing(Store.open(out, changed.info("cpu"))) as store:
        store.mark_stale(changed.present)
        assert store.outcomes() == {}
    (msas / f"{name}.a3m").write_text(">q\nMKTAYI\n")
    with finishing(Store.open(out, first.info("cpu"))) as store:
        store.mark_stale(prepare(sources, load(overrides=[ALONE]), out).present)
        assert store.outcomes() == {key: "failed"}


def test_prepare_limit_takes_the_smallest(tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKTAYI", "MK", "MKT", "M1")
    prepared = prepare(
        InputSpec(source, checkpoint="untrained:tiny", limit=2),
        load(overrides=[ALONE]),
        tmp_path / "out",
    )
    assert [task.name for task in prepared.task_list.tasks] == ["c2", "c3"]
    assert not prepared.task_list.invalid
    whole = prepare(
        InputSpec(source, checkpoint="untrained:tiny"), load(overrides=[ALONE]), tmp_path / "out"
    )
    assert whole.present == prepared.present  # so that a later run may go on with more
    assert len(whole.task_list.tasks) == 3


def test_fold_writes_the_files_of_boltz_and_the_scores(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKTAYIAKQR:GSHMWLL")
    settings = [
        part for s in ("steps=2", "recycling=0", "samples=2") for part in ("--set", f"model.{s}")
    ]
    result = run(
        "fold",
        source,
        "--checkpoint",
        "untrained:tiny",
        "--out",
        tmp_path / "out",
        "--set",
        ALONE,
        *settings,
    )
    assert result.code == 0
    assert "random weights" in result.out
    folder = tmp_path / "out" / "predictions" / "c1"
    assert {path.name for path in folder.iterdir()} >= {
        "c1_model_0.cif",
        "c1_model_1.cif",
        "confidence_c1_model_0.json",
        "pae_c1_model_0.npz",
        "plddt_c1_model_1.npz",
        "scores_c1.json",
    }
    scores = json.loads(
        (folder / "scores_c1.json").read_text(),
        parse_constant=lambda name: pytest.fail(name),
    )
    assert [(row["chain_a"], row["chain_b"], row["sample"]) for row in scores["interfaces"]] == [
        ("A", "B", 0),
        ("B", "A", 0),
        ("A", "B", 1),
        ("B", "A", 1),
    ]
    for row in scores["complexes"]:
        name = f"c1_model_{row['rank']}.cif"
        assert row["structure"] == f"predictions/c1/{name}"
        assert (tmp_path / "out" / row["structure"]).is_file()
    assert not list((tmp_path / "out").glob(".new*"))
    several = fasta(tmp_path / "two.fasta", "MKT", "MKTA")
    result = run("fold", several, "--checkpoint", "untrained:tiny", "--out", tmp_path / "no")
    assert (result.code, "several complexes" in result.err) == (2, True)


def test_convert_prints_a_summary_or_one_line_of_error(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "small.ckpt"
    target = tmp_path / "small.safetensors"
    torch.save(contents(), source)
    result = run("convert", source, target)
    assert (result.code, result.err) == (0, "")
    assert (
        result.out == f"{target}: 465 weights, {target.stat().st_size / 1e6:.1f} MB, "
        f"{checkpoint_identity(target)}\n"
    )
    result = run("convert", source, target)
    assert (result.code, result.err) == (
        2,
        f"foldcp: {target}: exists; --overwrite replaces it\n",
    )
    assert run("convert", source, target, "--overwrite").code == 0
    source.write_text("these are no weights")
    result = run("convert", source, target, "--overwrite")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"foldcp: {source}: not a checkpoint")


def test_report_prints_its_table_if_the_page_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full or read-only disk the best interfaces are printed all the same."""
    stored(tmp_path / "run", {"checkpoint": "abc"})

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("foldcp.pipeline.reporting.page.os.replace", fail)
    result = run("report", tmp_path / "run")
    assert result.code == 1
    assert "no interfaces" in result.out
    page = tmp_path / "run" / "report.html"
    assert result.err == f"foldcp: {page}: cannot be written: No space left on device\n"


def test_control_characters_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.fasta"
    source.write_text(">\x1b[31mred\u202e\nMK1\n>ok\nMKT\n")
    result = run("plan", source)
    assert "cannot be built\t\\x1b[31mred\\u202e\t" in result.out
    result = run("plan", tmp_path / "\x1b[31mnone.fasta")
    assert "\x1b" not in result.err
    assert "\\x1b[31mnone.fasta" in result.err


def test_report_refuses_a_folder_without_a_run(run: Run, tmp_path: Path) -> None:
    result = run("report", tmp_path)
    assert (result.code, result.err) == (
        2,
        f"foldcp: {tmp_path}: not the folder of a run, as there is no run.json\n",
    )


def test_help_has_examples(run: Run) -> None:
    whole = run("--help")
    assert whole.code == 0
    for command in ("plan", "score", "fold", "report", "convert"):
        assert command in whole.out
        assert f"\n  foldcp {command} " in run(command, "--help").out


def test_help_lists_the_names_of_formats(run: Run) -> None:
    text = re.sub(r"-\s+", "-", run("plan", "--help").out)  # lines break after hyphens
    listed = " ".join(text.partition("--format NAME")[2].split())
    assert all(f"{known.name}, " in listed for known in FORMATS[:-1])


def test_plan_warns_of_chains_without_an_alignment(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    msas = tmp_path / "msas"
    source.write_text("id,sequence\ndimer,MKTAYI:GSHMW\nhomo,MKTAYI:MKTAYI\n")
    msas.mkdir()
    result = run("plan", source, "--msas", msas, "--hardware", "cpu", "--json")
    assert (result.code, result.err) == (
        0,
        f"0 of 4 chains have an alignment in {msas}\n",
    )
    assert len(json.loads(result.out)["entries"]) == 2
    (msas / "homo.a3m").write_text(">q\nMKTAYI\n")
    assert run("plan", source, "--msas", msas, "--hardware", "cpu").err.startswith("2 of 4 chains")
    assert run("plan", source, "--hardware", "cpu").err == ""


def test_plan_counts_chains_without_an_alignment_and_score_refuses_them(
    run: Run, tmp_path: Path
) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT:GSH", "MKTA:MKTA", "MKTAYI:GSH")
    planned = run("plan", source, "--hardware", "cpu")
    counts = "without alignment  6 chains in 3 complexes, "
    line = "planned with 8,192 rows each; `score` refuses them until `foldcp msa` has made theirs"
    assert counts + line in planned.out.splitlines()
    alone = run("plan", source, "--hardware", "cpu", "--set", "msa.missing=single-sequence")
    assert f"{counts}folded from the sequence alone" in alone.out.splitlines()
    plan = json.loads(run("plan", source, "--hardware", "cpu", "--json").out)
    assert plan["without_alignment"] == {
        "num_chains": 6,
        "num_complexes": 3,
        "num_rows": 8192,
        "num_too_large": 0,
    }
    assert (len(plan["entries"]), plan["invalid"]) == (3, [])
    for command in ("score", "fold"):
        arguments = (command, fasta(tmp_path / "one.fasta", "MKT:GSH"), "--out", tmp_path / "out")
        result = run(*arguments, "--checkpoint", "untrained:tiny")
        assert (result.code, "no alignment for chain A, chain B" in result.err) == (2, True)
        assert not (tmp_path / "out").exists()


def test_plan_says_which_complexes_are_too_large_only_with_alignments(
    run: Run, tmp_path: Path
) -> None:
    letters = "ACDEFGHIKLMNPQRSTVWY"
    source = fasta(tmp_path / "in.fasta", letters * 1250, letters * 2000, letters)
    planned = run("plan", source, "--gpus", "3")
    assert "too large        2\n" in planned.out
    reasons = [line for line in planned.out.splitlines() if line.startswith("too large\t")]
    ending = "with 8,192 rows of the alignments that it lacks; without them it fits"
    assert [line.endswith(ending) for line in reasons] == [True, False]
    assert "1 of those too large would fit from the sequence alone" in planned.out
    alone = run("plan", source, "--gpus", "3", "--set", "msa.missing=single-sequence").out
    assert "too large        1\n" in alone
    assert "alignments that it lacks" not in alone
    assert "would fit" not in alone


def test_plan_makes_a_screen(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT", "GSH", "MKTA")
    baits = tmp_path / "baits.txt"
    baits.write_text("c2\n")
    entries = json.loads(run("plan", source, "--all-against-all", "--json").out)["entries"]
    assert len(entries) == 6
    options = ("--baits", baits, "--no-homodimers", "--json")
    entries = json.loads(run("plan", source, *options).out)["entries"]
    assert [entry["name"] for entry in entries] == ["c2_c1", "c2_c3"]
    result = run("plan", source, "--no-homodimers")
    assert (result.code, result.err) == (
        2,
        "foldcp: --no-homodimers is for a screen; add --all-against-all or --baits\n",
    )


def test_compat_is_an_option_of_plan_score_and_fold(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT:GSH")
    assert run("plan", source, "--hardware", "cpu", "--compat", "community").code == 0
    for command in ("plan", "score", "fold"):
        out = () if command == "plan" else ("--out", tmp_path / "out")
        result = run(command, source, *out, "--compat", "boltz1")
        assert (result.code, "boltz, community, corrected, got 'boltz1'" in result.err) == (2, True)


def test_plan_warns_of_single_chains_in_a_fasta_file(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT", "GSH")
    assert (
        "2 records of one chain, each folded alone" in run("plan", source, "--hardware", "cpu").err
    )
    one = fasta(tmp_path / "one.fasta", "MKT", "MK1")
    assert "1 record of one chain" in run("plan", one, "--hardware", "cpu").err
    result = run("fold", source, "--out", tmp_path / "out", "--checkpoint", "untrained:tiny")
    assert result.code == 2
    assert "the chains of one complex are joined by ':'" in result.err


def test_plan_reads_no_more_of_an_input_than_the_limit(run: Run, tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", "MKT" * 1_000)
    result = run("plan", source, "--hardware", "cpu", "--set", "limits.input_bytes=1000")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "in.fasta: holds more than 1,000 bytes once unpacked" in result.err
    out = tmp_path / "out"
    for command in ("score", "fold"):
        result = run(
            command,
            source,
            "--out",
            out,
            "--checkpoint",
            "untrained:tiny",
            "--set",
            "limits.input_bytes=10",
        )
        assert (result.code, "holds more than 10 bytes" in result.err) == (2, True)


def test_a_folder_with_a_name_that_is_not_utf8_is_prepared(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    fasta(folder / "right.fasta", "MKT:GSH")
    fasta(folder / os.fsdecode(b"caf\xe9.fasta"), "MKT")
    prepared = prepare(
        InputSpec(folder, checkpoint="untrained:tiny"), load(overrides=[ALONE]), tmp_path / "out"
    )
    assert [task.name for task in prepared.task_list.tasks] == ["c1"]
    [wrong] = prepared.task_list.invalid
    assert (wrong.name, wrong.index) == (r"caf\xe9", 0)
    assert r"caf\xe9.fasta: the file's name is not valid UTF-8" in wrong.reason


@pytest.mark.timeout(60)
def test_pipes_and_devices_are_refused_at_once(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    source = fasta(tmp_path / "in.fasta", "MKT")
    pipe = tmp_path / "pipe.yaml"
    for arguments in (
        (pipe,),
        (source, "--config", pipe),
        (source, "--hardware", pipe),
        ("/dev/zero",),
    ):
        result = run("plan", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1)


def test_score_names_the_folder_of_structures_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(best_interfaces, "format_best", lambda out: "")
    monkeypatch.setattr(cli, "_write_page", lambda out: out / "report.html")
    cli._print_results(Summary(1, (), ()), tmp_path)
    assert "structures" not in capsys.readouterr().out
    (tmp_path / "structures").mkdir()
    cli._print_results(Summary(1, (), ()), tmp_path)
    assert f"structures  {tmp_path}/structures\n" in capsys.readouterr().out
