"""Tasks of an input: each content once, with what the network will read; the rest is invalid."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, InvalidComplex, Pocket, Template
from foldcp.features.featurize import featurize
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.worker import msa_settings
from foldcp.pipeline.inputs.tasks import TaskMaker, make_task, make_task_list
from tests.support.synthetic_inputs import PAIR, with_msa, write_template

ALONE = "msa.missing=single-sequence"
CONFIG = load(overrides=[ALONE])


def test_msa_depth_is_the_number_of_rows_of_the_features(tmp_path: Path) -> None:
    a3m = tmp_path / "a.a3m"
    table = tmp_path / "b.csv"
    keyed = tmp_path / "c.csv"
    a3m.write_text(">q\nMKTAYIA\n>1\nMKT-YIA\n>2\nMKT-\nYIA\n>3\n--TAYIA\n")
    table.write_text("key,sequence\n-1,GSHMW\n,GSHM-\n,GS-M-\n,GS---\n5,GS-M-\n6,AS-M-\n")
    keyed.write_text("key,sequence\n,MKTAYIA\n5,MKT-YIA\n5,MK--YIA\n7,-KTAYIA\n")
    a, b = PAIR.chains
    variants = [
        (PAIR, 1),
        (with_msa(a3m), 3),  # one row repeats another
        (replace(PAIR, chains=(replace(a, msa=a3m), replace(b, msa=table))), 5),
        (with_msa(keyed), 6),  # two rows of one key stand twice
        (replace(PAIR, chains=(replace(a, msa=keyed), replace(b, msa=table))), 6),
        (
            replace(PAIR, chains=(replace(a, msa=keyed), replace(a, name="C", msa=keyed))),
            7,
        ),
    ]
    for complex, depth in variants:
        for overrides in ([], ["msa.max_rows=2"], ["msa.corrected=true"]):
            config = load(overrides=[ALONE, *overrides])
            task = make_task(complex, config, "w")
            rows = featurize(
                complex, msa=msa_settings(config, 2 * config.msa.max_rows)
            ).num_msa_rows
            assert task.msa_depth == rows
            assert overrides or rows == depth


def test_make_task_records_the_digests_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMKTAYIA\n")
    write_template(tmp_path / "t.cif")
    complex = replace(with_msa(tmp_path / "a.a3m"), templates=(Template(tmp_path / "t.cif"),))
    task = make_task(complex, CONFIG, "w")
    files = [tmp_path / name for name in ("a.a3m", "t.cif")]
    assert task.complex.digests == {
        file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    assert task.complex == complex and task.complex.index == complex.index


def test_make_task_reads_a_changed_file_again(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m"
    path.write_text(">q\nMKTAYIA\n")
    first = make_task(with_msa(path), CONFIG, "w")
    path.write_text(">q\nMKTAYIA\n>h\nMKT-YIA\n")
    second = make_task(with_msa(path), CONFIG, "w")
    assert (first.msa_depth, second.msa_depth) == (1, 2) and first.key != second.key


def test_num_tokens_counts_residues_and_ligand_atoms() -> None:
    assert make_task(PAIR, CONFIG, "w").num_tokens == 12
    modified = replace(PAIR.chains[0], modifications=((2, "SEP"),))
    assert make_task(replace(PAIR, chains=(modified,)), CONFIG, "w").num_tokens == 7
    ligand = Chain("L", "ligand", ccd=("MG",))
    assert make_task(replace(PAIR, chains=(*PAIR.chains, ligand)), CONFIG, "w").num_tokens == 13


def test_make_task_list_merges_equal_complexes_and_keeps_the_order() -> None:
    bad = InvalidComplex("c3", "unknown accession P9")
    other = replace(PAIR, name="other")
    work = make_task_list([other, PAIR, bad, replace(PAIR, source="line 9")], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["other", "pair"]
    assert work.invalid == (bad,)
    assert work.num_duplicates == 1


def test_make_task_list_reports_unreadable_files_as_invalid(tmp_path: Path) -> None:
    missing = replace(with_msa(tmp_path / "none.a3m"), organism="Human")
    unknown = Complex("odd", (Chain("L", "ligand", ccd=("NOT-A-CODE",)),))
    (tmp_path / "torn.a3m.gz").write_bytes(gzip.compress(b">q\nMK\n" * 99)[:-9])
    work = make_task_list([missing, unknown, with_msa(tmp_path / "torn.a3m.gz")], CONFIG, "w")
    assert not work.tasks
    first, second, third = work.invalid
    assert "none.a3m" in first.reason
    assert first.organism == "Human"
    assert "NOT-A-CODE" in second.reason
    assert "torn.a3m.gz" in third.reason


def test_make_task_list_reports_what_featurize_would_refuse_as_invalid(tmp_path: Path) -> None:
    files = {
        "full.a3m": ">full\nGGMKTAYIARR\n",
        "mutant.a3m": ">q\nMKTAYIV\n",
        "torn.csv": "key,sequence\n1,MKTAYIA\n99999999999999999999,MKTAYIA\n",
        "empty.cif": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    packed = bytearray(gzip.compress(b">q\nMKTAYIA\n" * 99))
    packed[30] ^= 255
    (tmp_path / "flipped.a3m.gz").write_bytes(packed)
    imitated = write_template(tmp_path / "t.cif")
    wrong: dict[str, tuple[Complex, str]] = {
        "full": (
            with_msa(tmp_path / "full.a3m"),
            "its query has 11 residues, but the chain 7",
        ),
        "mutant": (
            with_msa(tmp_path / "mutant.a3m"),
            "residue 7 is VAL, but ALA in the chain",
        ),
        "torn": (
            with_msa(tmp_path / "torn.csv"),
            "the key '99999999999999999999' exceeds 64 bits",
        ),
        "flipped": (with_msa(tmp_path / "flipped.a3m.gz"), "flipped.a3m.gz"),
        "folder": (with_msa(tmp_path), "expected a name that ends in .a3m"),
        "empty": (
            replace(PAIR, templates=(Template(tmp_path / "empty.cif"),)),
            "empty.cif",
        ),
        "chain": (
            replace(PAIR, templates=(Template(imitated, ("A",), ("Q",)),)),
            "the file has no protein chain 'Q'",
        ),
        "bond": (
            replace(PAIR, bonds=(Bond(("A", 1, "SG"), ("B", 1, "CA")),)),
            "has no atom 'SG', only N CA C O CB CG SD",
        ),
        "contact": (
            replace(PAIR, contacts=(Contact(("A", 9), ("B", 1)),)),
            "chain A has no residue 9",
        ),
        "pocket": (
            replace(PAIR, pockets=(Pocket("Z", (("B", 2),)),)),
            "the binder 'Z' of a pocket does not exist",
        ),
    }
    records = [
        replace(complex, name=name, index=n)
        for n, (name, (complex, _)) in enumerate(wrong.items(), 7)
    ]
    work = make_task_list([PAIR, *records], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["pair"]
    assert [record.name for record in work.invalid] == list(wrong)
    assert [record.index for record in work.invalid] == list(range(7, 7 + len(wrong)))
    for record in work.invalid:
        assert wrong[record.name][1] in record.reason and "\n" not in record.reason


def test_make_task_list_reports_any_error_as_that_of_its_complex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(code: str, kind: str) -> None:
        raise KeyError(code)

    monkeypatch.setattr("foldcp.features.tokens.ccd_component", fail)
    odd = Complex("odd", (Chain("L", "ligand", ccd=("ATP",)),))
    work = make_task_list([odd, PAIR], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["pair"]
    assert work.invalid == (InvalidComplex("odd", "complex odd: KeyError: 'ATP'"),)
    with pytest.raises(ValueError, match="complex odd: KeyError: 'ATP'"):
        make_task(odd, CONFIG, "w")


def test_make_task_reads_no_more_than_the_limits(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMKTAYIA\n")
    write_template(tmp_path / "t.cif")
    with_template = replace(PAIR, templates=(Template(tmp_path / "t.cif"),))
    for complex, limit in (
        (with_msa(tmp_path / "a.a3m"), "msa_bytes"),
        (with_template, "input_bytes"),
    ):
        make_task(complex, CONFIG, "w")
        with pytest.raises(ValueError, match="holds more than 9 bytes once unpacked"):
            make_task(complex, load(overrides=[ALONE, f"limits.{limit}=9"]), "w")
        larger = load(overrides=[ALONE, f"limits.{limit}=99999"])
        assert make_task(complex, larger, "w").key == make_task(complex, CONFIG, "w").key


def test_make_task_of_plain_chains_imports_no_chemistry(tmp_path: Path) -> None:
    """Components, templates and tensors are imported for those who have some."""
    (tmp_path / "a.a3m").write_text(">q\nMK\n")
    program = """
import sys
from pathlib import Path
from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import TaskMaker, make_task
make_task(Complex("x", (Chain("A", "protein", "MK", single_sequence=True),)), load(), "w")
print(*sorted({"torch", "gemmi", "Bio", "rdkit"} & set(sys.modules)), end=";")
make_task(Complex("x", (Chain("A", "protein", "MK", msa=Path(sys.argv[1])),)), load(), "w")
print(*sorted({"torch", "Bio", "rdkit"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.a3m")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ";\n"


def test_a_protein_without_an_alignment_is_refused_where_nobody_said_so(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMK\n>hit\nM-\n")
    aligned = Chain("A", "protein", "MK", msa=tmp_path / "a.a3m")
    lacking = Chain("B", "protein", "GSH", accession="P12345")
    others = (
        Chain("D", "dna", "GATC"),
        Chain("L", "ligand", ccd=("MG",)),
        Chain("S", "protein", "MKT", single_sequence=True),
    )
    mixed = Complex("mixed", (aligned, lacking, *others))
    expected = (
        r"no alignment for chain B \(P12345\): `foldcp msa` makes alignments.*"
        "msa.missing=single-sequence"
    )
    with pytest.raises(ValueError, match=expected):
        make_task(mixed, load(), "w")
    [invalid] = make_task_list([mixed], load(), "w").invalid
    assert invalid.name == "mixed" and "chain B" in invalid.reason
    assert make_task(mixed, CONFIG, "w").msa_depth == 2
    assert make_task(replace(mixed, chains=(aligned, *others)), load(), "w").msa_depth == 2
    copies = tuple(replace(lacking, name=name, accession="") for name in "BCDEFGHIJKLMN")
    with pytest.raises(ValueError, match=r"chain B, .*, chain K and 3 more: `foldcp msa`"):
        make_task(Complex("copies", copies), load(), "w")


def test_a_plan_counts_the_rows_of_alignments_that_follow(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMK\n>hit\nM-\n")
    lacking = Chain("B", "protein", "GSH")
    for chains in (
        (lacking,),
        (Chain("A", "protein", "MK", msa=tmp_path / "a.a3m"), lacking),
    ):
        complex = Complex("x", chains)
        settings = ["msa.max_rows=100"]
        plan = TaskMaker(load(overrides=settings), "plan", alignments_follow=True)
        assert plan.make(complex).msa_depth == 100
        alone = load(overrides=[*settings, ALONE])
        plan = TaskMaker(alone, "plan", alignments_follow=True)
        assert plan.make(complex).msa_depth == len(chains)
    meant = Complex("x", (replace(lacking, single_sequence=True),))
    assert TaskMaker(load(), "plan", alignments_follow=True).make(meant).msa_depth == 1


def test_a_paired_alignment_counts_in_key_depth_and_digests(tmp_path: Path) -> None:
    paired = tmp_path / "paired.a3m"
    paired.write_text(">q\nMK\n>x OX=9606\nM-\n")
    (tmp_path / "a.a3m").write_text(">q\nMK\n>hit\n-K\n")
    one = Chain("A", "protein", "MK", msa=tmp_path / "a.a3m")
    two = replace(one, name="B", sequence="MK", paired_msa=paired)
    depths = [make_task(Complex("x", (chain,)), load(), "w").msa_depth for chain in (one, two)]
    assert depths == [2, 3]
    alone = make_task(Complex("x", (replace(two, msa=None),)), load(), "w")
    assert (alone.msa_depth, set(alone.complex.digests)) == (2, {paired})
    task = make_task(Complex("x", (two,)), load(), "w")
    assert set(task.complex.digests) == {paired, tmp_path / "a.a3m"}
    paired.write_text(">q\nMK\n>x OX=9606\nM-\n>y\n--\n")
    assert make_task(Complex("x", (two,)), load(), "w").key != task.key
    with pytest.raises(ValueError, match="has changed since"):
        featurize(task.complex)
    paired.write_text(">q\nMW\n")
    with pytest.raises(ValueError, match=r"chain B: alignment .*paired\.a3m: its query is another"):
        make_task(Complex("x", (two,)), load(), "w")
