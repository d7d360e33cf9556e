"""Screens: all against all, and baits against a library."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets.formats.screens import screen
from tests.support.inputs import read_input

LIBRARY = ">P00001 one\nMKTAY\n>sp|P00002|TWO\nGSHW\n>P00003\nCCWK\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def names(path: Path, sequences: Path | None = None, **options: Any) -> list[str]:
    found = list(read_input(path, sequences, **options))
    assert [record.index for record in found] == list(range(len(found)))
    return [record.name for record in found]


def test_all_against_all_is_every_pair_once(tmp_path: Path) -> None:
    library = write(tmp_path, "l.fasta", LIBRARY)
    assert names(library, all_against_all=True) == [
        "P00001_P00001",
        "P00001_P00002",
        "P00001_P00003",
        "P00002_P00002",
        "P00002_P00003",
        "P00003_P00003",
    ]
    assert names(library, all_against_all=True, homodimers=False) == [
        "P00001_P00002",
        "P00001_P00003",
        "P00002_P00003",
    ]


@pytest.mark.parametrize("number", [1, 2, 7, 40])
def test_all_against_all_counts(tmp_path: Path, number: int) -> None:
    library = write(tmp_path, "l.fa", "".join(f">q{n}\nMKTAY{'A' * n}\n" for n in range(number)))
    every = list(read_input(library, all_against_all=True))
    assert len({record.name for record in every}) == len(every) == number * (number + 1) // 2
    assert all(isinstance(record, Complex) for record in every)
    pairs = list(read_input(library, all_against_all=True, homodimers=False))
    assert len(pairs) == number * (number - 1) // 2


def test_baits_meet_the_library_and_two_baits_meet_once(tmp_path: Path) -> None:
    library = write(tmp_path, "l.fasta", LIBRARY)
    baits = write(tmp_path, "b.fasta", ">P00002\nGSHW\n>P00001\nMKTAY\n>Q00009\nMKK\n")
    expected = [
        "P00002_P00001",
        "P00002_P00002",
        "P00002_P00003",
        "P00001_P00001",
        "P00001_P00003",
        "Q00009_P00001",
        "Q00009_P00002",
        "Q00009_P00003",
    ]
    assert names(library, baits=baits) == expected
    assert names(library, baits=baits, homodimers=False) == [
        name for name in expected if name not in ("P00001_P00001", "P00002_P00002")
    ]


def test_lists_of_accessions_make_a_screen_with_sequences(tmp_path: Path) -> None:
    sequences = write(tmp_path, "s.fasta", LIBRARY)
    library = write(tmp_path, "l.txt", "Accession\nP00001\n\nP00002\nP00001\n")
    assert names(library, sequences, all_against_all=True, homodimers=False) == ["P00001_P00002"]
    baits = write(tmp_path, "b.txt", "P00003\n")
    assert names(library, sequences, baits=baits) == ["P00003_P00001", "P00003_P00002"]
    # Accessions of one file may have their sequences in the other.
    assert names(sequences, baits=baits) == ["P00003_P00001", "P00003_P00002", "P00003_P00003"]


def test_proteins_that_cannot_be_folded_are_invalid_once(tmp_path: Path) -> None:
    text = LIBRARY.replace("CCWK", "CC7K") + ">dna\n" + "ACGT" * 10 + "\n"
    library = write(tmp_path, "l.fasta", text)
    found = list(read_input(library, all_against_all=True))
    assert [record.name for record in found if isinstance(record, InvalidComplex)] == [
        "P00003",
        "dna",
    ]
    assert isinstance(found[0], InvalidComplex)
    assert found[0].reason == "P00003: chain A: invalid letters '7' in the protein sequence"
    assert [record.name for record in found[2:]] == [
        "P00001_P00001",
        "P00001_P00002",
        "P00002_P00002",
    ]


def test_screens_share_the_chains_of_a_protein(tmp_path: Path) -> None:
    found = list(read_input(write(tmp_path, "l.fasta", LIBRARY), all_against_all=True))
    chains = {id(chain) for record in found for chain in getattr(record, "chains", ())}
    assert len(chains) == 6  # three proteins, as A and as B


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("P00001 P00002\n", {}, "line 1: 'P00001 P00002'; a screen takes a FASTA file or a list"),
        ("P00001\nP00002,P00003\n", {}, "line 2: 'P00002,P00003'; a screen takes"),
        ("P00001\nP00002\n", {}, "names proteins by accession; give a file that has them with"),
        (">a\nMK:GS\n", {}, "'a' has several chains; a screen takes single proteins"),
        (">a\nMK\n>a\nMKK\n", {}, "two different sequences have the accession 'a'"),
        (">a\nMK\n", {"baits": Path("b.fasta")}, "give either --all-against-all or --baits"),
        (">a\nMK\n>b\nMKK\n>c\nMKT\n>d\nMKA\n", {}, "10 pairs exceed the maximum of 9"),
    ],
)
def test_screens_refuse_what_is_no_library(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    options: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.setattr(screen, "MAX_PAIRS", 9)
    with pytest.raises(ValueError) as error:
        list(read_input(write(tmp_path, "l.txt", text), all_against_all=True, **options))
    assert expected in str(error.value)


def test_screens_refuse_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder; a screen takes"):
        list(read_input(tmp_path, all_against_all=True))


def test_the_pairs_of_a_screen_are_made_one_by_one(tmp_path: Path) -> None:
    number = 4_000  # eight million pairs
    library = write(
        tmp_path, "l.fasta", "".join(f">q{n}\nMKTAY{'AC' * (n % 99)}\n" for n in range(number))
    )
    tracemalloc.start()
    found = read_input(library, all_against_all=True)
    first = list(islice(found, 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.name for record in first] == ["q0_q0", "q0_q1", "q0_q2"]
    assert peak < 4_000 * number
