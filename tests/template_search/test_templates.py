"""Templates: searched with MMseqs2 among real structures, stored, and read with an input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foldcp.complex import Chain, Complex, InvalidComplex, Template
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.reader import read
from foldcp.datasets.templates import TemplateHit, hits_name, hits_text, open_templates
from foldcp.features.templates.structure import read_template
from foldcp.pipeline.cli import app
from foldcp.pipeline.template_search.library import LibraryChain, open_library, structure_date
from foldcp.pipeline.template_search.mmseqs import Limits, _choose, _pairs
from foldcp.pipeline.template_search.search_templates import TemplateCounts, search_templates
from tests.support.runs import has_ended

STRUCTURES = Path(__file__).parents[3] / "shared/data/structures"
FILES = ("1ake.cif.gz", "1a28.cif.gz", "7cth.cif.gz")
RANDOM = "WCHWMCYWHCMPWYCHMWCPYHWMCHYWPCMHWYCPHMWC"

needs_structures = pytest.mark.skipif(
    not STRUCTURES.is_dir(), reason="the structures for development are not here"
)
needs_mmseqs = pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed")


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    folder = tmp_path / "structures"
    (folder / "more").mkdir(parents=True)
    for name in FILES:
        shutil.copy(STRUCTURES / name, folder / "more" / name)
    (folder / "broken.cif").write_text("data_x\n_no\n")
    return folder


def complex_of(*sequences: str) -> Complex:
    chains = [Chain("ABCDEF"[i], "protein", sequence) for i, sequence in enumerate(sequences)]
    return Complex("x", tuple(chains))


def sequence_of(name: str) -> str:
    return next(iter(read_template(STRUCTURES / name).values())).sequence


def make_folder(tmp_path: Path, hits: dict[str, list[TemplateHit]]) -> Path:
    """A folder of hits among structures that are not there."""
    folder = tmp_path / "templates"
    (tmp_path / "cif").mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    (folder / "search.json").write_text(json.dumps({"structures": str(tmp_path / "cif")}))
    for sequence, found in hits.items():
        path = folder / hits_name(sequence)
        path.parent.mkdir(exist_ok=True)
        path.write_text(hits_text(found))
    return folder


@needs_structures
@needs_mmseqs
def test_search_finds_what_is_there_and_resumes(tmp_path: Path, structures: Path) -> None:
    sequence = sequence_of("1ake.cif.gz")
    mutant = sequence[:50] + sequence[60:].replace("K", "R")
    out = tmp_path / "out"
    warnings: list[str] = []
    records = [
        complex_of(sequence, mutant),
        InvalidComplex("bad", "?"),
        complex_of(RANDOM, sequence),
    ]
    first = search_templates(records, structures, out, Limits(), warnings.append)
    assert first == TemplateCounts(searched=3, stored=0, with_templates=2)
    assert len(warnings) == 1
    assert "broken.cif" in warnings[0]
    found = open_templates(out)
    (hit,) = found.find(sequence)
    assert hit.path == "more/1ake.cif.gz"
    assert hit.residues == tuple((i, i) for i in range(1, len(sequence) + 1))
    assert hit.identity == 1
    (hit,) = found.find(mutant)
    assert hit.identity < 1
    assert dict(hit.residues)[1] == 1
    assert dict(hit.residues)[len(mutant)] == len(sequence)
    assert found.find(RANDOM) == ()
    template = read_template(found.structures / hit.path)[hit.chain]
    same = [template.sequence[t - 1] == mutant[q - 1] for q, t in hit.residues]
    assert sum(same) / len(same) == pytest.approx(hit.identity, abs=0.01)

    (out / hits_name(mutant)).unlink()
    before = (out / hits_name(sequence)).stat().st_mtime_ns
    again = search_templates(records, structures, out, Limits(), warnings.append)
    assert again == TemplateCounts(searched=1, stored=2, with_templates=2)
    assert (out / hits_name(sequence)).stat().st_mtime_ns == before
    assert len(warnings) == 1  # the library was read from its list
    assert not list(out.rglob("*.part")) + list(out.glob("mmseqs-*"))

    with pytest.raises(ValueError, match=r"another search \(max_templates was 4, now 2\)"):
        search_templates(records, structures, out, Limits(2), warnings.append)
    (structures / "broken.cif").unlink()
    with pytest.raises(ValueError, match=r"another search \(listing"):
        search_templates(records, structures, out, Limits(), warnings.append)


@needs_structures
@needs_mmseqs
def test_the_command_and_its_option(tmp_path: Path, structures: Path) -> None:
    sequence = sequence_of("7cth.cif.gz")
    (tmp_path / "in.fasta").write_text(f">x\n{sequence}:{sequence}\n")
    out = tmp_path / "out"
    command = ["templates", str(tmp_path / "in.fasta"), "--out", str(out)]
    command += ["--structures", str(structures)]
    done = CliRunner().invoke(app, [*command, "--max-date", "2020-08-20"])
    assert done.exit_code == 0, done.output
    assert "1 sequences searched, 0 were there; 1 have templates" in done.output
    options = ReadOptions(templates=open_templates(out))
    (found,) = read(tmp_path / "in.fasta", options)
    assert isinstance(found, Complex)
    assert {template.chains for template in found.templates} == {("A", "B")}
    assert found.templates[0].path == structures.resolve() / "more/7cth.cif.gz"


@needs_structures
def test_dates_and_names_of_chains(tmp_path: Path) -> None:
    assert structure_date(STRUCTURES / "7cth.cif.gz") == "2020-08-19"
    assert structure_date(STRUCTURES / "1ake.cif.gz") == ""
    both = tmp_path / "both.cif"
    both.write_text(
        "data_x\n_pdbx_database_status.recvd_initial_deposition_date 1999-01-02\nloop_\n"
        "_pdbx_audit_revision_history.ordinal\n_pdbx_audit_revision_history.revision_date\n"
        "1 2000-03-04\n2 2011-07-13\n"
    )
    assert structure_date(both) == "2000-03-04"
    chains = open_library(tmp_path, STRUCTURES, [STRUCTURES / "1ake.cif.gz"], print)
    assert [(chain.path, chain.chain) for chain in chains] == [("1ake.cif.gz", "A")]


def test_limits() -> None:
    library = [
        LibraryChain(f"{i}.cif", "A", date, sequence)
        for i, (date, sequence) in enumerate(
            [("2020-01-01", "M"), ("", "A"), ("2022-01-01", "G"), ("2019-01-01", "M")]
        )
    ]
    rows = [
        ["0", str(i), evalue, coverage, "1", "1", "MK-T", row]
        for i, evalue, row, coverage in [
            (2, "1e-9", "MRAT", "0.9"),
            (0, "1e-5", "MKA-", "0.9"),
            (1, "1e-7", "MRAA", "0.05"),
            (3, "1e-4", "MRAA", "0.9"),
        ]
    ]

    def chosen(**limits: float | str) -> list[str]:
        return [hit.path for hit in _choose(rows, library, replace(Limits(), **limits))]

    assert chosen() == ["2.cif", "0.cif"]  # 3 has the sequence of 0
    assert chosen(max_templates=1) == ["2.cif"]
    assert chosen(max_date="2020-01-01", min_coverage=0.01) == ["0.cif"]
    assert chosen(max_identity=0.95) == ["2.cif", "3.cif"]
    assert chosen(min_coverage=0.01) == ["2.cif", "1.cif", "0.cif"]


def test_pairs_skip_gaps() -> None:
    assert _pairs(3, "MK-TA", 7, "M-GTA") == ((3, 7), (5, 9), (6, 10))


def test_complexes_with_templates_of_their_own_keep_them(tmp_path: Path) -> None:
    hit = TemplateHit("a/1abc.cif", "A", 1e-9, 0.5, ((1, 2), (2, 3)))
    folder = open_templates(make_folder(tmp_path, {"MKTAY": [hit]}))
    record = complex_of("MKTAY", "GSHMW", "MKTAY")
    expected = Template(tmp_path / "cif/a/1abc.cif", ("A", "C"), ("A",), residues=hit.residues)
    assert folder.with_templates(record).templates == (expected,)
    own = replace(record, templates=(Template(Path("own.cif")),))
    assert folder.with_templates(own) == own


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}x",
        "[1]",
        '[{"path": "../a.cif", "chain": "A", "evalue": 0, "identity": 1, "residues": []}]',
        '[{"path": "/a.cif", "chain": "A", "evalue": 0, "identity": 1, "residues": []}]',
        '[{"path": "a.cif", "chain": "A", "evalue": 0, "identity": 1, "residues": [[9, 1]]}]',
        '[{"path": "a.cif", "chain": "A", "evalue": 0, "identity": 1, "residues": [[1]]}]',
    ],
)
def test_a_damaged_file_makes_the_record_invalid(tmp_path: Path, text: str) -> None:
    folder = make_folder(tmp_path, {"MKTAY": []})
    (folder / hits_name("MKTAY")).write_text(text)
    (tmp_path / "in.csv").write_text("id,sequence\nx,MKTAY\ny,GSHMW\n")
    options = ReadOptions(templates=open_templates(folder))
    first, second = read(tmp_path / "in.csv", options)
    assert isinstance(first, InvalidComplex)
    assert "not a file of templates" in first.reason
    assert isinstance(second, Complex)
    assert (first.index, second.index) == (0, 1)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder of templates"):
        open_templates(tmp_path)
    folder = make_folder(tmp_path, {})
    (tmp_path / "cif").rmdir()
    with pytest.raises(ValueError, match="does not exist"):
        open_templates(folder)
    (folder / "search.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        open_templates(folder)


@pytest.mark.parametrize("date", ["2020", "2020-13-01", "20200101", "x"])
def test_dates_of_the_user(tmp_path: Path, date: str) -> None:
    with pytest.raises(ValueError, match="expected YYYY-MM-DD"):
        search_templates([], tmp_path, tmp_path / "out", Limits(max_date=date), print)


@needs_mmseqs
def test_a_folder_without_structures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no file that ends in"):
        search_templates([], tmp_path, tmp_path / "out", Limits(), print)
    with pytest.raises(ValueError, match="not a folder of structures"):
        search_templates([], tmp_path / "none", tmp_path / "out", Limits(), print)


def test_a_signal_ends_the_search_and_its_program(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "mmseqs"
    program.parent.mkdir()
    pids = tmp_path / "pids"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = version ] && exit 0\nsleep 600 &\necho $! > {pids}\nwait\n'
    )
    program.chmod(0o755)
    (tmp_path / "cif").mkdir()
    (tmp_path / "cif" / "x.cif").write_text("data_x\n")
    (tmp_path / "in.fasta").write_text(">x\nMKTAYIAKQR\n")
    out = tmp_path / "out"
    library = [{"path": "x.cif", "chain": "A", "date": "", "sequence": "MKTAYIAKQR"}]
    out.mkdir()
    (out / "library.json").write_text(json.dumps(library))
    command = [sys.executable, "-m", "foldcp", "templates", tmp_path / "in.fasta", "--out", out]
    process = subprocess.Popen(
        [*command, "--structures", tmp_path / "cif"],
        env={**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (pids.exists() and pids.read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "interrupted; the same command resumes from here\n"
    assert has_ended(int(pids.read_text()))
    assert not list(out.glob("mmseqs-*"))
