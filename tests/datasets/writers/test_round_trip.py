"""A complex that is written for another tool and read again is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.complex import Bond, Chain, Complex, Contact, Pocket, Template
from foldcp.datasets.writers.alphafold3 import alphafold3_json
from foldcp.datasets.writers.boltz_yaml import boltz_yaml
from foldcp.files import EmbeddedFile, FileSource, read_file
from tests.datasets.json_jobs.test_alphafold3 import read_one

A3M = ">q\nMKTS\n>h\nMK-S\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = (tmp_path / "files").resolve()
    folder.mkdir()
    found = {name: folder / name for name in ("a.a3m", "b.csv", "p.a3m", "t.cif", "t.pdb")}
    for path in found.values():
        path.write_text(A3M)
    return found


@pytest.fixture
def embedded(tmp_path: Path) -> EmbeddedFile:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"text": A3M}))
    return EmbeddedFile(path.resolve(), "/text", ".a3m")


def boltz_again(complex: Complex, folder: Path) -> Complex:
    written = boltz_yaml(complex, complex.name)
    folder.mkdir()
    for name, source in written.files.items():
        (folder / name).write_bytes(read_file(source).data)
    path = folder / f"{complex.name}.yaml"
    path.write_text(written.text)
    return replace(read_one(path, allow_outside=True), source=complex.source)


def alphafold3_again(complex: Complex, folder: Path) -> Complex:
    folder.mkdir()
    path = folder / "x.json"
    path.write_text(alphafold3_json(complex).text)
    return replace(read_one(path, allow_outside=True), source=complex.source)


OTHERS = (
    Chain("D", "dna", "GATTACA", modifications=((1, "6OG"),)),
    Chain("R", "rna", "GAUUACA", modifications=((2, "2MG"), (3, "5MC"))),
    Chain("G", "ligand", ccd=("NAG", "BMA")),
    Chain("NO", "ligand", ccd=("017",)),
    Chain("S", "ligand", smiles="C/C=C\\C#N"),
)
BONDS = (Bond(("A", 4, "OG"), ("G", 1, "C1")), Bond(("G", 1, "O4"), ("G", 2, "C1")))


def test_boltz_yaml_read_again_is_the_same_complex(files: dict[str, Path], tmp_path: Path) -> None:
    complex = Complex(
        "job_1",
        (
            Chain("A", "protein", "MKTS", msa=files["a.a3m"]),
            Chain("B", "protein", "MKTS", msa=files["a.a3m"]),
            Chain("C", "protein", "MKTS", msa=files["a.a3m"], modifications=((4, "SEP"),)),
            Chain("1", "protein", "MKTV", msa=files["b.csv"], cyclic=True),
            Chain("y", "protein", "MAAAA", single_sequence=True),
            *OTHERS,
        ),
        bonds=BONDS,
        pockets=(Pocket("S", (("A", 1), ("NO", "C1")), 7.5, force=True),),
        contacts=(Contact(("A", 1), ("1", 4)), Contact(("A", 2), ("D", 1), 0.1 + 0.2, True)),
        templates=(
            Template(files["t.cif"]),
            Template(files["t.pdb"], ("A", "B"), ("X", "Y"), force=True, threshold=2.5),
        ),
    )
    assert boltz_again(complex, tmp_path / "out") == complex
    assert boltz_yaml(complex, "job_1").notes == ()


def test_alphafold3_json_read_again_is_the_same_complex(
    files: dict[str, Path], tmp_path: Path
) -> None:
    a3m = files["a.a3m"]
    cif = files["t.cif"]
    complex = Complex(
        "job 1/a",
        (
            Chain("A", "protein", "MKTS", msa=a3m, paired_msa=files["p.a3m"]),
            Chain("B", "protein", "MKTS", msa=a3m, paired_msa=files["p.a3m"]),
            Chain(
                "C",
                "protein",
                "MKTS",
                msa=a3m,
                paired_msa=files["p.a3m"],
                modifications=((4, "SEP"),),
            ),
            Chain("AB", "protein", "MAAAA", single_sequence=True),
            Chain("AC", "protein", "MAAAV", paired_msa=files["p.a3m"]),
            Chain("AD", "protein", "MAAAW"),
            *OTHERS,
        ),
        bonds=BONDS,
        templates=(
            Template(cif, ("A", "B"), residues=((1, 7), (4, 3))),
            Template(cif, ("AB",), residues=((5, 1),)),
        ),
    )
    assert alphafold3_again(complex, tmp_path / "out") == complex


def test_files_inside_another_are_written_out(embedded: EmbeddedFile, tmp_path: Path) -> None:
    cif = replace(embedded, suffix=".cif")
    chain = Chain("A", "protein", "MKTS", msa=embedded)
    complex = Complex("x", (chain,), templates=(Template(cif),))
    found = boltz_again(complex, tmp_path / "boltz")
    beside: list[FileSource | None] = [found.chains[0].msa, found.templates[0].path]
    assert beside == [tmp_path / "boltz" / "x-1.a3m", tmp_path / "boltz" / "x-template1.cif"]
    for path in beside:
        assert path is not None and read_file(path).data == A3M.encode()
    mapped = replace(complex, templates=(Template(cif, ("A",), residues=((1, 1),)),))
    again = alphafold3_again(mapped, tmp_path / "alphafold3")
    msa = again.chains[0].msa
    assert isinstance(msa, EmbeddedFile) and read_file(msa).data == A3M.encode()
    assert again.templates[0].residues == ((1, 1),)
    assert read_file(again.templates[0].path).data == A3M.encode()


def test_boltz_yaml_tells_what_it_leaves_out(files: dict[str, Path]) -> None:
    chains = (
        Chain("A", "protein", "MKTS", accession="P1", msa=files["a.a3m"]),
        Chain("B", "protein", "MKTV", paired_msa=files["p.a3m"]),
        Chain("C", "protein", "MKTS"),
    )
    assert boltz_yaml(Complex("a b", chains, method="EM"), "a_b").notes == (
        "titles, organisms and accessions are left out",
        "the method 'EM' is left out",
        "copies of one molecule are side by side when it is read again",
        "a name that cannot be that of a file is changed",
        "proteins without an alignment are written without one, which Boltz then has to search",
        "paired alignments are left out",
    )
    mapped = Template(files["t.cif"], ("A",), residues=((1, 1),))
    with pytest.raises(ValueError, match=r"complex x: the residues that the template .*t\.cif"):
        boltz_yaml(Complex("x", chains, templates=(mapped,)), "x")


PROTEIN = Chain("A", "protein", "MKTS", single_sequence=True)
OTHER = Chain("B", "protein", "MKTV", single_sequence=True)
SMILES = Chain("S", "ligand", smiles="CC")
FORCED = Template(Path("t.cif"), ("A",), force=True, threshold=1.0, residues=((1, 1),))


@pytest.mark.parametrize(
    ("complex", "expected"),
    [
        (Complex("x", (PROTEIN, SMILES), pockets=(Pocket("S", (("A", 1),)),)), "no pockets and no"),
        (Complex("x", (PROTEIN,), contacts=(Contact(("A", 1), ("A", 3)),)), "no pockets and no"),
        (Complex("x", (replace(PROTEIN, cyclic=True),)), "chain A: .* no cyclic chains"),
        (Complex("x", (replace(PROTEIN, name="a1"),)), "chain 'a1': .* upper-case letters"),
        (Complex("x", (PROTEIN,), templates=(FORCED,)), "no forced templates"),
        (
            Complex("x", (PROTEIN,), templates=(replace(FORCED, force=False, residues=()),)),
            "template t.cif: AlphaFold 3 wants the residues that match",
        ),
        (
            Complex("x", (PROTEIN,), templates=(replace(FORCED, force=False, path=Path("t.pdb")),)),
            "template t.pdb: AlphaFold 3 reads templates as mmCIF",
        ),
        (
            Complex("x", (replace(PROTEIN, msa=Path("m.csv")),)),
            "chain A: AlphaFold 3 reads alignments as a3m, not m.csv",
        ),
        (
            Complex("x", (PROTEIN, SMILES), bonds=(Bond(("A", 4, "OG"), ("S", 1, "C1")),)),
            "bond of chains A, S: AlphaFold 3 binds no atoms of a SMILES",
        ),
        (
            Complex("x", (PROTEIN, OTHER), bonds=(Bond(("A", 4, "OG"), ("B", 1, "N")),)),
            "bond of chains A, B: AlphaFold 3 binds no two polymers",
        ),
    ],
)
def test_alphafold3_json_refuses_what_it_cannot_say(complex: Complex, expected: str) -> None:
    with pytest.raises(ValueError, match=f"complex x: .*{expected}"):
        alphafold3_json(complex)


def test_the_alignment_of_a_whole_complex_is_not_written(files: dict[str, Path]) -> None:
    files["a.a3m"].write_text("#4,2\t1,1\n>101\t102\nMKTSGW\n")
    chains = (
        Chain("A", "protein", "MKTS", msa=files["a.a3m"]),
        Chain("B", "protein", "GW", msa=files["a.a3m"]),
    )
    for write in (alphafold3_json, lambda complex: boltz_yaml(complex, "x")):
        with pytest.raises(ValueError, match=r"complex x: chain A: .*a\.a3m is the alignment of"):
            write(Complex("x", chains))
