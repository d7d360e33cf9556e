"""`foldcp export`, as a user calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from foldcp.pipeline.cli import main


def export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["foldcp", "export", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("id,sequence\none,MKTS:MKTS\n../two,MKTV\nthree,MK?\n..,MKTS\nTwo,MKTV\n")
    return path


def test_export_writes_a_file_for_each_complex(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert export(monkeypatch, str(table), "--to", "alphafold3", "--out", str(out)) == 1
    names = sorted(path.name for path in out.iterdir())
    assert {"one.json", "Two.json"} < set(names) and len(names) == 4
    assert sorted(tmp_path.iterdir()) == [out, table]
    stored = sorted(json.loads(path.read_text())["name"] for path in out.iterdir())
    assert stored == ["..", "../two", "Two", "one"]
    captured = capsys.readouterr()
    assert captured.out == f"4 files in {out}\n"
    assert "not written: three: chain A: invalid letters '?'" in captured.err
    assert "AlphaFold 3 searches for them (in 4 of 4 files)" in captured.err


def test_export_replaces_files_only_if_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.fasta"
    source.write_text(">one\nMKTS\n")
    out = tmp_path / "out"
    arguments = (str(source), "--to", "boltz", "--out", str(out))
    assert export(monkeypatch, *arguments) == 0
    (out / "one.yaml").write_text("mine")
    assert export(monkeypatch, *arguments) == 2
    assert f"{out / 'one.yaml'}: exists already; --overwrite replaces it" in capsys.readouterr().err
    assert (out / "one.yaml").read_text() == "mine"
    assert export(monkeypatch, *arguments, "--overwrite") == 0
    assert "sequence: MKTS" in (out / "one.yaml").read_text()


def test_export_lists_what_the_format_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.yaml"
    source.write_text("sequences:\n- protein: {id: A, sequence: MKTS, msa: empty, cyclic: true}\n")
    out = tmp_path / "out"
    assert export(monkeypatch, str(source), "--to", "alphafold3", "--out", str(out)) == 1
    assert "not written: x: complex x: chain A: AlphaFold 3's JSON has no cyclic chains" in (
        capsys.readouterr().err
    )
    assert not out.exists()


def test_export_refuses_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.fasta"
    source.write_text(">one\nMKTS\n")
    out = source / "out"
    assert export(monkeypatch, str(source), "--to", "boltz", "--out", str(out)) == 2
    assert f"{out}: {source} is not a folder" in capsys.readouterr().err
