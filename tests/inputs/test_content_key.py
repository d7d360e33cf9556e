"""Content keys follow the content of a complex, the settings and the weights, and nothing else."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, Pocket, Template
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.content_key import result_settings
from foldcp.pipeline.inputs.tasks import TaskMaker, make_task
from tests.support.synthetic_inputs import PAIR, with_msa, write_template


def key(complex: Complex = PAIR, *overrides: str, checkpoint: str = "untrained:tiny") -> str:
    return make_task(
        complex, load(overrides=["msa.missing=single-sequence", *overrides]), checkpoint
    ).key


def test_content_key_is_stable_over_processes() -> None:
    # A changed key would orphan every finished run: if this fails on purpose, raise KEY_FORMAT.
    assert key() == key(replace(PAIR)) == "86fca1b38532dd2172e042a953b45fb2"


def full_key(complex: Complex, settings: dict[str, Any], checkpoint: str) -> str:
    """The key from one JSON of everything, without anything that is kept from other keys."""

    def chain(chain: Chain) -> dict[str, Any]:
        content = asdict(chain)
        for name in ("single_sequence", "msa_statistics", "gene", "protein_name"):
            del content[name]
        content["msa"] = complex.digests[chain.msa] if chain.msa else ""
        del content["paired_msa"]
        if chain.paired_msa:
            content["paired_msa"] = complex.digests[chain.paired_msa]
        return content

    def template(template: Template) -> dict[str, Any]:
        content = {**asdict(template), "file": complex.digests[template.path]}
        del content["path"]
        if not template.residues:
            del content["residues"]
        return content

    content = {
        "format": 4 if complex.bonds else 3,
        "name": complex.name,
        "chains": list(map(chain, complex.chains)),
        "bonds": list(map(asdict, complex.bonds)),
        "pockets": list(map(asdict, complex.pockets)),
        "contacts": list(map(asdict, complex.contacts)),
        "templates": list(map(template, complex.templates)),
        "method": complex.method,
        "settings": settings,
        "checkpoint": checkpoint,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:32]


def test_content_keys_are_those_of_the_whole_content(tmp_path: Path) -> None:
    write_template(tmp_path / "t.cif")
    for name in ("a", "b"):
        (tmp_path / f"{name}.a3m").write_text(f">q\nMKTAYIA\n>{name}\nMKT-YIA\n")
    a, b = PAIR.chains
    aligned = replace(a, msa=tmp_path / "a.a3m", paired_msa=tmp_path / "b.a3m")
    ligand = Chain("L", "ligand", smiles="C[C@H](N)C(=O)O")
    bond = Bond(("A", 1, "CA"), ("B", 1, "CA"))
    everything = Complex(
        'a "name"\n\u00e9',
        (replace(aligned, modifications=((2, "SEP"),), cyclic=True), b, ligand),
        bonds=(bond,),
        pockets=(Pocket("A", (("B", 2),)),),
        contacts=(Contact(("A", 1), ("B", 2), 5.5),),
        templates=(Template(tmp_path / "t.cif"), Template(tmp_path / "t.cif", ("A",), threshold=2)),
        method="electron microscopy",
    )
    complexes = [
        PAIR,
        replace(PAIR, name="other"),
        replace(PAIR, chains=(aligned, b)),
        replace(PAIR, chains=(replace(aligned, paired_msa=None), b)),
        replace(PAIR, chains=(replace(aligned, msa=tmp_path / "b.a3m"), b)),
        replace(PAIR, bonds=(bond,)),
        replace(PAIR, templates=(Template(tmp_path / "t.cif", residues=((1, 2),)),)),
        everything,
    ]
    for overrides in ([], ["model.samples=2", "compat=corrected", "model.seed=3"]):
        config = load(overrides=["msa.missing=single-sequence", *overrides])
        maker = TaskMaker(config, 'weights "1"')
        for complex in complexes * 2:
            task = maker.make(complex)
            settings = result_settings(config)
            assert task.key == full_key(task.complex, settings, 'weights "1"')


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
        "write=boltz,pde",
        "write.pae=best:3",
        "write.structures=bcif",
        "write.structure_samples=best",
    ]
    assert key(PAIR, *same) == key()


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
