"""Tasks: the key follows the content and nothing else; equal complexes are folded once."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, Pocket, Template, Unbuildable
from foldcp.pipeline.config import load
from foldcp.pipeline.tasks import make_task, make_work

CONFIG = load()
PAIR = Complex("pair", (Chain("A", "protein", "MKTAYIA", accession="P1"), Chain("B", "protein", "GSHMW")))


def key(complex: Complex = PAIR, *overrides: str, checkpoint: str = "untrained:tiny") -> str:
    return make_task(complex, load(overrides=overrides), checkpoint).key


def with_msa(path: Path) -> Complex:
    return replace(PAIR, chains=(replace(PAIR.chains[0], msa=path), PAIR.chains[1]))


def test_key_is_stable_over_processes() -> None:
    # A changed key would orphan every finished run: if this fails on purpose, raise KEY_FORMAT.
    assert key() == key(replace(PAIR)) == "4292a30ec7746926acc481ca85e1510f"


def test_what_does_not_change_the_result_does_not_change_the_key() -> None:
    assert key(replace(PAIR, title="t", organism="Human", source="corum.txt:3", comment={"a": "b"})) == key()
    same = ["model.parallel_samples=1", "run.deadline_factor=9", "run.max_group=3", "run.cpu_ranks=2", "run.retries=4"]
    assert key(PAIR, *same) == key()
    assert key(PAIR, "write=pae,boltz") == key(PAIR, "write=boltz,pae")


@pytest.mark.parametrize(
    "override",
    ["model.recycling=4", "model.steps=20", "model.samples=2", "model.seed=1", "model.precision=bf16",
     "model.potentials=true", "model.sampling=fp32", "msa.max_rows=10", "msa.corrected=true", "msa.subsample=5",
     "write=pae"],
)  # fmt: skip
def test_settings_of_the_result_change_the_key(override: str) -> None:
    assert key(PAIR, override) != key()


def test_every_part_of_a_complex_changes_the_key(tmp_path: Path) -> None:
    (tmp_path / "t.cif").write_text("data_")
    a, b = PAIR.chains
    variants = [
        PAIR,
        replace(PAIR, name="other"),
        replace(PAIR, chains=(b, a)),
        replace(PAIR, chains=(replace(a, sequence="MKTAYIV"), b)),
        replace(PAIR, chains=(replace(a, name="C"), b)),
        replace(PAIR, chains=(replace(a, accession="P2"), b)),
        replace(PAIR, chains=(replace(a, cyclic=True), b)),
        replace(PAIR, chains=(replace(a, modifications=((2, "SEP"),)), b)),
        replace(PAIR, chains=(a, b, Chain("L", "ligand", ccd=("ATP",)))),
        replace(PAIR, chains=(a, b, Chain("L", "ligand", ccd=("ADP",)))),
        replace(PAIR, bonds=(Bond(("A", 1, "CA"), ("B", 1, "CA")),)),
        replace(PAIR, pockets=(Pocket("A", (("B", 2),)),)),
        replace(PAIR, contacts=(Contact(("A", 1), ("B", 2)),)),
        replace(PAIR, templates=(Template(tmp_path / "t.cif"),)),
        replace(PAIR, templates=(Template(tmp_path / "t.cif", chains=("A",)),)),
        replace(PAIR, method="electron microscopy"),
    ]
    assert len({key(variant) for variant in variants}) == len(variants)
    assert key(PAIR, checkpoint="untrained:boltz2") != key()


def test_alignments_count_by_content_not_by_path(tmp_path: Path) -> None:
    first, moved, edited, packed = (tmp_path / name for name in ("a.a3m", "b.a3m", "c.a3m", "d.a3m.gz"))
    for path, last in ((first, "MKT-YIA"), (moved, "MKT-YIA"), (edited, "MKT-YI-")):
        path.write_text(f">query\nMKTAYIA\n>hit\n{last}\n")
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert key(with_msa(first)) == key(with_msa(moved)) == key(with_msa(packed))
    assert len({key(), key(with_msa(first)), key(with_msa(edited))}) == 3


def test_templates_count_by_content_not_by_path(tmp_path: Path) -> None:
    for name, text in (("a.cif", "x"), ("b.cif", "x"), ("c.cif", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (key(replace(PAIR, templates=(Template(tmp_path / f"{name}.cif"),))) for name in "abc")
    assert a == b != c


def test_depth_is_the_deepest_alignment_up_to_the_limit(tmp_path: Path) -> None:
    a3m, table = tmp_path / "a.a3m", tmp_path / "b.csv"
    a3m.write_text(">q\nMKTAYIA\n>1\nMKT-YIA\n>2\nMKT-\nYIA\n")
    table.write_text("key,sequence\n-1,GSHMW\n,GSHM-\n,GS-M-\n,GS---\n")
    both = replace(PAIR, chains=(replace(PAIR.chains[0], msa=a3m), replace(PAIR.chains[1], msa=table)))
    assert make_task(PAIR, CONFIG, "w").msa_depth == 1
    assert make_task(with_msa(a3m), CONFIG, "w").msa_depth == 3
    assert make_task(both, CONFIG, "w").msa_depth == 4
    assert make_task(both, load(overrides=["msa.max_rows=2"]), "w").msa_depth == 2
    keyed = replace(PAIR, chains=tuple(replace(chain, msa=table) for chain in PAIR.chains))
    assert make_task(keyed, CONFIG, "w").msa_depth == 4
    (tmp_path / "c.csv").write_text(table.read_text())
    keyed = replace(keyed, chains=(keyed.chains[0], replace(keyed.chains[1], msa=tmp_path / "c.csv")))
    assert make_task(keyed, CONFIG, "w").msa_depth == 8  # four rows may be paired and stand twice


def test_tokens_are_residues_and_ligand_atoms() -> None:
    assert make_task(PAIR, CONFIG, "w").num_tokens == 12
    modified = replace(PAIR.chains[0], modifications=((2, "SEP"),))
    assert make_task(replace(PAIR, chains=(modified,)), CONFIG, "w").num_tokens == 7
    ligand = Chain("L", "ligand", ccd=("MG",))
    assert make_task(replace(PAIR, chains=(*PAIR.chains, ligand)), CONFIG, "w").num_tokens == 13


def test_equal_complexes_become_one_task_and_the_rest_keep_their_order() -> None:
    bad = Unbuildable("c3", "unknown accession P9")
    other = replace(PAIR, name="other")
    work = make_work([other, PAIR, bad, replace(PAIR, source="line 9")], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["other", "pair"]
    assert work.unbuildable == (bad,)
    assert work.num_duplicates == 1


def test_what_cannot_be_read_is_no_task(tmp_path: Path) -> None:
    missing = replace(with_msa(tmp_path / "none.a3m"), organism="Human")
    unknown = Complex("odd", (Chain("L", "ligand", ccd=("NOT-A-CODE",)),))
    (tmp_path / "torn.a3m.gz").write_bytes(gzip.compress(b">q\nMK\n" * 99)[:-9])
    work = make_work([missing, unknown, with_msa(tmp_path / "torn.a3m.gz")], CONFIG, "w")
    assert not work.tasks
    first, second, third = work.unbuildable
    assert "none.a3m" in first.reason
    assert first.organism == "Human"
    assert "NOT-A-CODE" in second.reason
    assert "torn.a3m.gz" in third.reason
