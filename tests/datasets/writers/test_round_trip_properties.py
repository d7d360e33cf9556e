"""Any complex that a format can say is the same when it is written and read again."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foldcp.complex import Bond, Chain, Complex, Contact, Pocket
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.writers.alphafold3 import alphafold3_json
from foldcp.datasets.writers.boltz_yaml import boltz_yaml
from tests.datasets.json_jobs.test_alphafold3 import read_one

CODES = ("ATP", "MG", "NAG", "017", "SEP", "MSE")
SMILES = ("CC(=O)O", "c1ccccc1", "[Mg+2]", "C/C=C\\C#N", "N#[N+]", "C%10CC%10", "[2H]O")
LETTERS = {"protein": "ACDEFGHIKLMNPQRSTVWYX", "dna": "ACGTN", "rna": "ACGUN"}
ATOMS = ("N", "CA", "OG", "C1", "O5'", "1HB")
UPPER = st.text(string.ascii_uppercase, min_size=1, max_size=3)
# YAML has a meaning of its own for some of them.
ANY_NAME = st.one_of(
    st.sampled_from(["NO", "null", "~", "1e3", "0x10", "true", "1:30", "a b", "é", "- a", "#"]),
    st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=4
    ),
)
DISTANCES = st.floats(min_value=0.01, max_value=1e6, allow_nan=False)
EXAMPLES = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def chains(draw: Any, names: st.SearchStrategy[str], cyclic: bool) -> tuple[Chain, ...]:
    """Chains of all kinds as readers have them: copies of one molecule side by side, all with an
    alignment or none, modifications in the order of their residues.
    """
    found = []
    single_sequence = draw(st.booleans())
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        kind = draw(st.sampled_from(("protein", "protein", "dna", "rna", "ligand")))
        if kind == "ligand":
            if draw(st.booleans()):
                found.append(Chain(name, "ligand", smiles=draw(st.sampled_from(SMILES))))
                continue
            codes = st.lists(st.sampled_from(CODES), min_size=1, max_size=3)
            found.append(Chain(name, "ligand", ccd=tuple(draw(codes))))
            continue
        sequence = draw(st.text(LETTERS[kind], min_size=1, max_size=6))
        positions = st.lists(st.integers(1, len(sequence)), max_size=2, unique=True)
        found.append(
            Chain(
                name,
                kind,
                sequence,
                cyclic=cyclic and draw(st.booleans()),
                modifications=tuple(
                    (at, draw(st.sampled_from(CODES))) for at in sorted(draw(positions))
                ),
                single_sequence=kind == "protein" and single_sequence,
            )
        )
    return group_by_entity(found)


@st.composite
def bonds(draw: Any, of: tuple[Chain, ...], to_ligands: bool) -> tuple[Bond, ...]:
    """Bonds of any two chains without SMILES, one of them a ligand where `to_ligands` says so."""
    ends = [chain for chain in of if not chain.smiles]
    firsts = [chain for chain in ends if chain.kind == "ligand" or not to_ligands]
    if not firsts:
        return ()
    made = []
    for _ in range(draw(st.integers(0, 2))):
        pair = (draw(st.sampled_from(firsts)), draw(st.sampled_from(ends)))
        atoms = [
            (
                chain.name,
                draw(st.integers(1, len(chain.sequence) or len(chain.ccd))),
                draw(st.sampled_from(ATOMS)),
            )
            for chain in pair
        ]
        if atoms[0] != atoms[1]:
            made.append(Bond(*atoms))
    return tuple(made)


@st.composite
def boltz_complexes(draw: Any) -> Complex:
    """Whatever a Boltz YAML can say without files."""
    of = draw(chains(ANY_NAME, cyclic=True))
    polymers = [chain for chain in of if chain.sequence]
    pockets = []
    contacts = []
    if polymers:
        tokens = st.sampled_from(polymers).flatmap(
            lambda chain: st.tuples(st.just(chain.name), st.integers(1, len(chain.sequence)))
        )
        for force in draw(st.lists(st.booleans(), max_size=2)):
            touched = draw(st.lists(tokens, min_size=1, max_size=3))
            binders = [
                chain.name for chain in of if chain.name not in {name for name, _ in touched}
            ]
            if binders:
                binder = draw(st.sampled_from(binders))
                pockets.append(Pocket(binder, tuple(touched), draw(DISTANCES), force))
            ends = (draw(tokens), draw(tokens))
            if ends[0] != ends[1]:
                contacts.append(Contact(*ends, draw(DISTANCES), force))
    return Complex(
        "x",
        of,
        source="x.yaml",
        bonds=draw(bonds(of, to_ligands=False)),
        pockets=tuple(pockets),
        contacts=tuple(contacts),
    )


@st.composite
def alphafold3_complexes(draw: Any) -> Complex:
    """Whatever a JSON of AlphaFold 3 can say without files."""
    of = draw(chains(UPPER, cyclic=False))
    return Complex(draw(ANY_NAME), of, source="x.json", bonds=draw(bonds(of, to_ligands=True)))


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # a disk would set the pace
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def test_any_complex_is_the_same_in_boltz_yaml(folder: Path) -> None:
    path = folder / "x.yaml"

    @EXAMPLES
    @given(boltz_complexes())
    def check(complex: Complex) -> None:
        path.write_text(boltz_yaml(complex, "x").text)
        assert replace(read_one(path), notes=()) == complex

    check()


def test_any_complex_is_the_same_in_alphafold3_json(folder: Path) -> None:
    path = folder / "x.json"

    @EXAMPLES
    @given(alphafold3_complexes())
    def check(complex: Complex) -> None:
        path.write_text(alphafold3_json(complex).text)
        assert replace(read_one(path), notes=()) == complex

    check()
