"""Preparation of training data: resuming, bad files, the index."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from foldcp.datasets.training.filters import FilterSettings
from foldcp.pipeline.cli import app
from foldcp.pipeline.training_data.prepare import PrepareSettings, prepare
from foldcp.training.data.prepared import read_index, read_structure, structure_path
from tests.training.data.mmcif import Atom, File, codes, protein, single_protein

SETTINGS = PrepareSettings()
SEQUENCE = "MKDAYIAFQRCHW"


def inputs(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        single_protein(SEQUENCE[: 8 + number % 5]).write(folder / f"s{number}.cif")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_prepared_structure_is_the_one_of_the_file(tmp_path: Path) -> None:
    ligand = [
        Atom(f"C{i}", "NAG", "L", "2", None, (12, -2.0 * i, 1), number=9, group="HETATM")
        for i in (1, 2, 3, 4)
    ]
    chain = protein("A", "MKDAYIAF", missing=(2,))
    bond = (next(atom for atom in chain if atom.place == 3 and atom.name == "CB"), ligand[0])
    file = File([*chain, *ligand], {"1": codes("MKDAYIAF")}, bonds=[bond])
    file.write(tmp_path / "in/x.cif")
    (row,) = prepare(tmp_path / "in", tmp_path / "out", SETTINGS).rows
    found = read_structure(structure_path(tmp_path / "out", "x"))
    assert [(c.name, c.kind, c.letters) for c in found.chains] == [
        ("A", "protein", "MKDAYIAF"),
        ("L", "ligand", ""),
    ]
    expected = np.array([atom.xyz for atom in chain], dtype=np.float32)
    np.testing.assert_array_equal(found.chains[0].coords, expected)
    assert found.chains[0].atom_names == tuple(atom.name for atom in chain)
    assert found.bonds == ((("A", 2, "CB"), ("L", 0, "C1")),)
    assert (found.resolution, found.date) == (2.0, "2020-01-01")
    assert (row.residues, row.atoms, row.interfaces) == (8, 39, ((0, 1),))
    assert read_index(tmp_path / "out") == [row]


def test_bad_file_is_a_row_with_its_reason(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in", 1)
    (folder / "bad.cif").write_text("data_x\n")
    (folder / "worse.cif.gz").write_bytes(b"\x1f\x8b damaged")
    summary = prepare(folder, tmp_path / "out", SETTINGS)
    reasons = {row.name: row.reason for row in summary.rows if row.dropped_by == "unreadable"}
    assert set(reasons) == {"bad", "worse"}
    assert "bad.cif: it has no atoms" in reasons["bad"]
    assert summary.dropped == {"unreadable": 2}


def test_counts_of_filters(tmp_path: Path) -> None:
    inputs(tmp_path / "in", 2)
    single_protein("MKDAYIAF", date="2024-01-01").write(tmp_path / "in/late.cif")
    single_protein("MKDAYIAF", resolution="12").write(tmp_path / "in/coarse.cif")
    atoms = [*protein("A", "MKDAYIAF"), *protein("B", "MKD", entity="2", origin=(0, 9, 0))]
    File(atoms, {"1": codes("MKDAYIAF"), "2": codes("MKD")}).write(tmp_path / "in/short.cif")
    summary = prepare(tmp_path / "in", tmp_path / "out", SETTINGS)
    assert summary.dropped == {"date": 1, "resolution": 1}
    assert summary.dropped_chains == {"short": 1}


def test_second_run_reads_no_structure_again_unless_it_changed(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in")
    assert prepare(folder, tmp_path / "out", SETTINGS).num_reused == 0
    before = contents(tmp_path / "out")
    assert prepare(folder, tmp_path / "out", SETTINGS).num_reused == 3
    assert contents(tmp_path / "out") == before
    single_protein("WWWWWWWW").write(folder / "s1.cif")
    assert prepare(folder, tmp_path / "out", SETTINGS).num_reused == 2
    other = replace(SETTINGS, filters=FilterSettings(max_chains=7))
    assert prepare(folder, tmp_path / "out", other).num_reused == 0


def test_number_of_workers_does_not_matter(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in", 4)
    prepare(folder, tmp_path / "one", SETTINGS)
    prepare(folder, tmp_path / "two", SETTINGS, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_killed_run_resumes_with_equal_bytes(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in", 100)
    prepare(folder, tmp_path / "undisturbed", SETTINGS)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "foldcp", "train-data", str(folder), "--out", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while len(list(out.rglob("*.safetensors"))) < 20:
            assert run.poll() is None and time.monotonic() < end
            time.sleep(0.002)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    done = len(list(out.rglob("*.safetensors")))
    assert not (out / "index.jsonl").exists(), "it was not killed in time"
    summary = prepare(folder, out, SETTINGS)
    assert 20 <= done == summary.num_reused < 100
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_held_out_structures_are_a_split(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(3):
        single_protein(SEQUENCE + "GGSS"[number:]).write(folder / f"s{number}.cif")
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("# for validation\nS1\nabsent\n")
    summary = prepare(folder, tmp_path / "out", SETTINGS, held_out=held_out)
    assert {row.name: row.split for row in summary.rows} == {
        "s0": "train",
        "s1": "held-out",
        "s2": "train",
    }
    assert summary.unknown_held_out == ["absent"]
    assert summary.num_similar == 2
    single_protein("WCHYVTSNG" * 3).write(folder / "s3.cif")
    assert prepare(folder, tmp_path / "out", SETTINGS, held_out=held_out).num_similar == 2


def test_alignments_are_found_by_sequence(tmp_path: Path) -> None:
    single_protein("MKDAYIAF").write(tmp_path / "in/a.cif")
    single_protein("MKDAYIAFQ").write(tmp_path / "in/b.cif")
    msas = tmp_path / "msas"
    msas.mkdir()
    (msas / f"{sha256(b'MKDAYIAF').hexdigest()}.a3m").write_text(">q\nMKDAYIAF\n>x\nMKDSYIAF\n")
    rows = prepare(tmp_path / "in", tmp_path / "out", SETTINGS, msas=[msas]).rows
    found = [row.chains[0].msa for row in rows]
    assert (tmp_path / "out" / found[0]).read_text().startswith(">q")
    assert found[1] == ""


def test_list_of_files(tmp_path: Path) -> None:
    inputs(tmp_path / "in")
    listed = tmp_path / "list.txt"
    listed.write_text("# two of them\nin/s2.cif\nin/s0.cif\nin/absent.cif\n")
    rows = prepare(listed, tmp_path / "out", SETTINGS).rows
    assert [(row.name, row.dropped_by) for row in rows] == [
        ("absent", "unreadable"),
        ("s0", ""),
        ("s2", ""),
    ]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in", 1)
    (folder / "s0.cif.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="have the same name 's0'"):
        prepare(folder, tmp_path / "out", SETTINGS)


def test_command_tells_what_it_found(tmp_path: Path) -> None:
    folder = inputs(tmp_path / "in")
    single_protein("MKDAYIAF", date="2024-01-01").write(folder / "late.cif")
    command = ["train-data", str(folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 of 4 structures (0 prepared before): 3 train" in result.output
    assert "dropped structures: 1 date" in result.output
    assert "date: late: its date 2024-01-01 is not before 2023-06-01" in result.output
    (folder / "bad.cif").write_text("")
    assert CliRunner().invoke(app, command).exit_code == 1
