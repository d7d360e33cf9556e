"""Content keys follow the content of a complex, the settings and the weights, and nothing else."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, Pocket, Template
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import make_task
from tests.support.synthetic_inputs import PAIR, with_msa, write_template


def key(complex: Complex = PAIR, *overrides: str, checkpoint: str = "untrained:tiny") -> str:
    return make_task(
        complex, load(overrides=["msa.missing=single-sequence", *overrides]), checkpoint
    ).key


def test_content_key_is_stable_over_processes() -> None:
    # A changed key would orphan every finished run: if this fails on purpose, raise KEY_FORMAT.
    assert key() == key(replace(PAIR)) == "4292a30ec7746926acc481ca85e1510f"


def test_content_key_ignores_what_does_not_change_the_result() -> None:
    assert (
        key(
            replace(
                PAIR,
                title="t",
                organism="Human",
                source="corum.txt:3",
                notes=("a: b",),
            )
        )
        == key()
    )
    same = [
        "model.parallel_samples=1",
        "model.kernels=torch",
        "model.chunk_bytes=1000000",
        "run.deadline_factor=9",
        "run.max_group=3",
        "run.cpu_ranks=2",
        "run.retries=4",
    ]
    assert key(PAIR, *same) == key()
    assert key(PAIR, "write=pae,boltz") == key(PAIR, "write=boltz,pae")
    assert key(PAIR, "write.structures=cif.gz", "write.structure_samples=all") == key()


@pytest.mark.parametrize(
    "override",
    [
        "model.recycling=4",
        "model.steps=20",
        "model.samples=2",
        "model.seed=1",
        "model.precision=bf16",
        "model.potentials=true",
        "model.sampling=fp32",
        "msa.max_rows=10",
        "msa.corrected=true",
        "msa.pairing=taxonomy",
        "compat=community",
        "compat=corrected",
        "msa.cut_to_range=true",
        "msa.subsample=5",
        "write=pae",
        "write.structures=cif",
        "write.structures=bcif",
        "write.structure_samples=best",
    ],
)
def test_content_key_depends_on_settings_that_change_results(override: str) -> None:
    assert key(PAIR, override) != key()


def test_content_key_depends_on_every_part_of_a_complex(tmp_path: Path) -> None:
    write_template(tmp_path / "t.cif")
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


def test_content_key_depends_on_content_not_path_of_alignments(tmp_path: Path) -> None:
    first, moved, edited, packed = (
        tmp_path / name for name in ("a.a3m", "b.a3m", "c.a3m", "d.a3m.gz")
    )
    for path, last in ((first, "MKT-YIA"), (moved, "MKT-YIA"), (edited, "MKT-YI-")):
        path.write_text(f">query\nMKTAYIA\n>hit\n{last}\n")
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert key(with_msa(first)) == key(with_msa(moved)) == key(with_msa(packed))
    assert len({key(), key(with_msa(first)), key(with_msa(edited))}) == 3


def test_content_key_depends_on_content_not_path_of_templates(tmp_path: Path) -> None:
    for name, text in (("a.cif", "x"), ("b.cif", "x"), ("c.cif", "y")):
        write_template(tmp_path / name, text)
    a, b, c = (
        key(replace(PAIR, templates=(Template(tmp_path / f"{name}.cif"),))) for name in "abc"
    )
    assert a == b != c
