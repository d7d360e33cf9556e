"""The demo: its sequences are residues of the UniProt entries that they name."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from foldcp.complex import Complex
from foldcp.datasets.sequences import read_sequences
from tests.support.inputs import read_input

DEMO = Path(__file__).parents[2] / "datasets" / "demo"
HUMAN = Path(__file__).parents[3] / "shared" / "data" / "inputs" / "human_proteins_uniprot.fasta.gz"


def _complexes() -> list[Complex]:
    records = list(read_input(DEMO / "complexes.tsv", DEMO / "sequences.fasta"))
    complexes = [record for record in records if isinstance(record, Complex)]
    assert len(complexes) == len(records)
    return complexes


def test_demo_is_small_and_various() -> None:
    complexes = _complexes()
    assert 6 <= len(complexes) <= 10
    assert all(2 <= len(job.chains) <= 6 and 40 <= job.num_residues <= 400 for job in complexes)
    assert {len(job.chains) for job in complexes} == {2, 4, 6}
    sizes = [job.num_residues for job in complexes]
    assert all(
        a < b for a, b in pairwise(sizes)
    )  # the smallest first, so that --limit gives the quickest
    assert sum(size**2 for size in sizes) < 200_000
    assert all(job.title and job.organism for job in complexes)
    assert not any(note.startswith("stoichiometry") for job in complexes for note in job.notes)


def test_demo_sequences_have_the_length_of_their_range_and_are_used() -> None:
    entries = read_sequences([DEMO / "sequences.fasta"]).by_accession
    for accession, sequence in entries.items():
        _, first, last = re.fullmatch(r"(\w+):(\d+)-(\d+)", accession).groups()  # pyright: ignore
        assert len(sequence) == int(last) - int(first) + 1, accession
    assert {chain.accession for job in _complexes() for chain in job.chains} == set(entries)


@pytest.mark.skipif(not HUMAN.is_file(), reason="the human proteins of UniProt are not here")
def test_demo_sequences_are_those_of_uniprot() -> None:
    human = read_sequences([HUMAN])
    entries = read_sequences([DEMO / "sequences.fasta"]).by_accession
    checked = 0
    for accession, sequence in entries.items():
        if found := human.find(accession):
            assert found.sequence == sequence, accession
            checked += 1
    assert checked == 13
