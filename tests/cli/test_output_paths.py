"""What cannot be written is told before anything is read, and nothing is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foldcp.pipeline.bench import launch
from foldcp.pipeline.bench.run import BenchOptions, bench
from foldcp.pipeline.cli import main
from foldcp.pipeline.exporting import export_run
from foldcp.pipeline.output_paths import check_file_writable, check_folder_writable
from foldcp.pipeline.reporting import comparison
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import INFO

LONG = "x" * 300
MSA = ("--from", "none")
TRAINED = ("--set", "data.folder=none")
TINY = ("--checkpoint", "untrained:tiny")
# Commands with inputs that are not there, which is told only if `out` can be written.
FOLDER_COMMANDS = [
    ("score", "none.fasta", *TINY, "--out"),
    ("fold", "none.fasta", *TINY, "--out"),
    ("msa", "none.fasta", *MSA, "--out"),
    ("train", *TRAINED, "--out"),
    ("train-data", "none", "--out"),
    ("export", "none.fasta", "--to", "boltz", "--out"),
    ("merge", "none", "--out"),
]
FILE_COMMANDS = [
    ("plan", "none.fasta", "--simulate", "--gantt"),
    ("calibrate", "none", "--positives", "none", "--negatives", "none", "--csv"),
    ("convert", "none.ckpt"),
]


def refusal(
    arguments: tuple[str | Path, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    monkeypatch.setattr(sys, "argv", ["foldcp", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", FOLDER_COMMANDS, ids=lambda command: command[0])
def test_a_folder_that_cannot_be_made_is_told_at_once(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    error = refusal((*command, "file/run"), monkeypatch, capsys)
    assert error == f"foldcp: file/run: {tmp_path / 'file'} is not a folder\n"
    error = refusal((*command, f"new/{LONG}"), monkeypatch, capsys)
    assert error == f"foldcp: new/{LONG}: File name too long\n"
    error = refusal((*command, "good/run"), monkeypatch, capsys)
    assert "none" in error
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("command", FILE_COMMANDS, ids=lambda command: command[0])
def test_a_file_that_cannot_be_made_is_told_at_once(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal((*command, "new/a.safetensors"), monkeypatch, capsys)
    assert error == "foldcp: new/a.safetensors: no such folder: new\n"
    error = refusal((*command, f"{LONG}.safetensors"), monkeypatch, capsys)
    assert error == f"foldcp: {LONG}.safetensors: File name too long\n"
    error = refusal((*command, "a.safetensors"), monkeypatch, capsys)
    assert "none" in error
    assert not os.listdir()


def test_score_tells_of_a_folder_of_something_else_before_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    error = refusal((*FOLDER_COMMANDS[0], tmp_path), monkeypatch, capsys)
    assert error.startswith(f"foldcp: {tmp_path}: neither empty nor the folder of a run")


def test_score_tells_of_unknown_hardware_before_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(
        (*FOLDER_COMMANDS[0], tmp_path / "run", "--hardware", "h20"), monkeypatch, capsys
    )
    assert "h20" in error and "none.fasta" not in error


@pytest.mark.parametrize("to", ["csv", "cytoscape", "boltz", "afdb"])
def test_export_of_a_run_checks_its_folder_first(
    to: export_run.RunFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(tmp_path / "run", INFO).close()
    for reader in ("RunResults", "_csv_writers", "_network_writer"):
        monkeypatch.setattr(export_run, reader, lambda run: pytest.fail("results were read"))
    with pytest.raises(ValueError, match="x: File name too long"):
        export_run.export_run(tmp_path / "run", to, tmp_path / LONG, overwrite=False)


def test_comparison_checks_its_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        Store.open(tmp_path / name, INFO).close()
    (tmp_path / "b" / "comparison.html").mkdir()
    monkeypatch.setattr(comparison, "load_run", lambda run: pytest.fail("a run was loaded"))
    with pytest.raises(ValueError, match=r"b/comparison\.html: is a folder, not a file"):
        comparison.write_comparison(tmp_path / "a", tmp_path / "b")


def test_bench_checks_its_file_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "measure", lambda *_: pytest.fail("nothing may be measured"))
    with pytest.raises(ValueError, match=r"x\.yaml: File name too long"):
        bench(BenchOptions(sizes="16", quick=True, write=Path(f"{LONG}.yaml")))


@pytest.mark.parametrize(
    ("check", "path"), [(check_folder_writable, "a/b/c"), (check_file_writable, "a")]
)
def test_a_read_only_folder_is_named(
    check: Callable[[Path], None], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path / path)
    # Not by permissions, which the superuser does not heed.
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}/{path}: cannot be written: .*read-only"):
        check(tmp_path / path)


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(ValueError, match="link is not a folder"):
        check_folder_writable(tmp_path / "link")
