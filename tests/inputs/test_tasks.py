"""Tasks: the key follows the content and nothing else; equal complexes are folded once."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gemmi
import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, InvalidComplex, Pocket, Template
from foldcp.features.featurize import featurize
from foldcp.pipeline.config import load
from foldcp.pipeline.execution.worker import msa_settings
from foldcp.pipeline.inputs.tasks import make_task, make_work

CONFIG = load()
PAIR = Complex(
    "pair",
    (Chain("A", "protein", "MKTAYIA", accession="P1"), Chain("B", "protein", "GSHMW")),
)


def key(complex: Complex = PAIR, *overrides: str, checkpoint: str = "untrained:tiny") -> str:
    return make_task(complex, load(overrides=overrides), checkpoint).key


def template(path: Path, title: str = "") -> Path:
    """A structure of chain A of PAIR."""
    made = gemmi.Structure()
    model = gemmi.Model(1)
    chain = gemmi.Chain("A")
    for number, letter in enumerate("MKTAYIA", 1):
        residue = gemmi.Residue()
        residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
        residue.seqid = gemmi.SeqId(str(number))
        for place, name in enumerate(("N", "CA", "C")):
            atom = gemmi.Atom()
            atom.name = name
            atom.element = gemmi.Element(name[0])
            atom.pos = gemmi.Position(number * 4, place * 1.4, 0)
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    made.assign_label_seq_id()
    path.write_text(f"# {title}\n" + made.make_mmcif_document().as_string())
    return path


def with_msa(path: Path) -> Complex:
    return replace(PAIR, chains=(replace(PAIR.chains[0], msa=path), PAIR.chains[1]))


def test_key_is_stable_over_processes() -> None:
    # A changed key would orphan every finished run: if this fails on purpose, raise KEY_FORMAT.
    assert key() == key(replace(PAIR)) == "4292a30ec7746926acc481ca85e1510f"


def test_what_does_not_change_the_result_does_not_change_the_key() -> None:
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


@pytest.mark.parametrize(
    "override",
    ["model.recycling=4", "model.steps=20", "model.samples=2", "model.seed=1", "model.precision=bf16",
     "model.potentials=true", "model.sampling=fp32", "msa.max_rows=10", "msa.corrected=true", "msa.subsample=5",
     "write=pae"],
)  # fmt: skip
def test_settings_of_the_result_change_the_key(override: str) -> None:
    assert key(PAIR, override) != key()


def test_every_part_of_a_complex_changes_the_key(tmp_path: Path) -> None:
    template(tmp_path / "t.cif")
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
    first, moved, edited, packed = (
        tmp_path / name for name in ("a.a3m", "b.a3m", "c.a3m", "d.a3m.gz")
    )
    for path, last in ((first, "MKT-YIA"), (moved, "MKT-YIA"), (edited, "MKT-YI-")):
        path.write_text(f">query\nMKTAYIA\n>hit\n{last}\n")
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert key(with_msa(first)) == key(with_msa(moved)) == key(with_msa(packed))
    assert len({key(), key(with_msa(first)), key(with_msa(edited))}) == 3


def test_templates_count_by_content_not_by_path(tmp_path: Path) -> None:
    for name, text in (("a.cif", "x"), ("b.cif", "x"), ("c.cif", "y")):
        template(tmp_path / name, text)
    a, b, c = (
        key(replace(PAIR, templates=(Template(tmp_path / f"{name}.cif"),))) for name in "abc"
    )
    assert a == b != c


def test_depth_is_what_the_network_will_read(tmp_path: Path) -> None:
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
            config = load(overrides=overrides)
            task = make_task(complex, config, "w")
            rows = featurize(
                complex, msa=msa_settings(config, 2 * config.msa.max_rows)
            ).num_msa_rows
            assert task.msa_depth == rows
            assert overrides or rows == depth


def test_a_task_holds_the_digests_of_what_was_planned(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMKTAYIA\n")
    template(tmp_path / "t.cif")
    complex = replace(with_msa(tmp_path / "a.a3m"), templates=(Template(tmp_path / "t.cif"),))
    task = make_task(complex, CONFIG, "w")
    files = [tmp_path / name for name in ("a.a3m", "t.cif")]
    assert task.complex.digests == {
        file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    assert task.complex == complex and task.complex.place == complex.place


def test_a_file_is_read_anew_once_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m"
    path.write_text(">q\nMKTAYIA\n")
    first = make_task(with_msa(path), CONFIG, "w")
    path.write_text(">q\nMKTAYIA\n>h\nMKT-YIA\n")
    second = make_task(with_msa(path), CONFIG, "w")
    assert (first.msa_depth, second.msa_depth) == (1, 2) and first.key != second.key


def test_tokens_are_residues_and_ligand_atoms() -> None:
    assert make_task(PAIR, CONFIG, "w").num_tokens == 12
    modified = replace(PAIR.chains[0], modifications=((2, "SEP"),))
    assert make_task(replace(PAIR, chains=(modified,)), CONFIG, "w").num_tokens == 7
    ligand = Chain("L", "ligand", ccd=("MG",))
    assert make_task(replace(PAIR, chains=(*PAIR.chains, ligand)), CONFIG, "w").num_tokens == 13


def test_equal_complexes_become_one_task_and_the_rest_keep_their_order() -> None:
    bad = InvalidComplex("c3", "unknown accession P9")
    other = replace(PAIR, name="other")
    work = make_work([other, PAIR, bad, replace(PAIR, source="line 9")], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["other", "pair"]
    assert work.invalid == (bad,)
    assert work.num_duplicates == 1


def test_what_cannot_be_read_is_no_task(tmp_path: Path) -> None:
    missing = replace(with_msa(tmp_path / "none.a3m"), organism="Human")
    unknown = Complex("odd", (Chain("L", "ligand", ccd=("NOT-A-CODE",)),))
    (tmp_path / "torn.a3m.gz").write_bytes(gzip.compress(b">q\nMK\n" * 99)[:-9])
    work = make_work([missing, unknown, with_msa(tmp_path / "torn.a3m.gz")], CONFIG, "w")
    assert not work.tasks
    first, second, third = work.invalid
    assert "none.a3m" in first.reason
    assert first.organism == "Human"
    assert "NOT-A-CODE" in second.reason
    assert "torn.a3m.gz" in third.reason


def test_what_would_be_refused_on_a_gpu_is_no_task(tmp_path: Path) -> None:
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
    imitated = template(tmp_path / "t.cif")
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
        replace(complex, name=name, place=n)
        for n, (name, (complex, _)) in enumerate(wrong.items(), 7)
    ]
    work = make_work([PAIR, *records], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["pair"]
    assert [record.name for record in work.invalid] == list(wrong)
    assert [record.place for record in work.invalid] == list(range(7, 7 + len(wrong)))
    for record in work.invalid:
        assert wrong[record.name][1] in record.reason and "\n" not in record.reason


def test_whatever_a_reader_raises_is_of_its_complex_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(code: str, kind: str) -> None:
        raise KeyError(code)

    monkeypatch.setattr("foldcp.features.tokens.ccd_component", fail)
    odd = Complex("odd", (Chain("L", "ligand", ccd=("ATP",)),))
    work = make_work([odd, PAIR], CONFIG, "w")
    assert [task.name for task in work.tasks] == ["pair"]
    assert work.invalid == (InvalidComplex("odd", "complex odd: KeyError: 'ATP'"),)
    with pytest.raises(ValueError, match="complex odd: KeyError: 'ATP'"):
        make_task(odd, CONFIG, "w")


def test_limits_bound_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.a3m").write_text(">q\nMKTAYIA\n")
    template(tmp_path / "t.cif")
    with_template = replace(PAIR, templates=(Template(tmp_path / "t.cif"),))
    for complex, limit in (
        (with_msa(tmp_path / "a.a3m"), "msa_bytes"),
        (with_template, "input_bytes"),
    ):
        make_task(complex, CONFIG, "w")
        with pytest.raises(ValueError, match="holds more than 9 bytes once unpacked"):
            make_task(complex, load(overrides=[f"limits.{limit}=9"]), "w")
        assert key(complex, f"limits.{limit}=99999") == key(complex)


def test_planning_plain_chains_needs_no_chemistry(tmp_path: Path) -> None:
    """Components, templates and tensors are imported for those who have some."""
    (tmp_path / "a.a3m").write_text(">q\nMK\n")
    program = """
import sys
from pathlib import Path
from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import make_task
make_task(Complex("x", (Chain("A", "protein", "MK"),)), load(), "w")
print(*sorted({"torch", "gemmi", "Bio", "rdkit"} & set(sys.modules)), end=";")
make_task(Complex("x", (Chain("A", "protein", "MK", msa=Path(sys.argv[1])),)), load(), "w")
print(*sorted({"torch", "Bio", "rdkit"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.a3m")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ";\n"
