"""MSAs of chains from two files, keys from headers, and alignments of longer sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foldcp.chemistry.vocabulary import TOKEN_IDS
from foldcp.complex import Chain, Complex
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msa
from foldcp.features.msa.read import FIRST_NUMBER

WORDS = {"A": "ALA", "G": "GLY", "W": "TRP", "M": "MET", "K": "LYS", "-": "-", "X": "UNK"}
CASES = Path(__file__).parents[3] / "shared" / "cases"


def chain(folder: Path, sequence: str, paired: str = "", unpaired: str = "") -> Chain:
    """A protein with an a3m of rows to be paired and one of others."""
    files = {}
    for field, text in (("paired_msa", paired), ("msa", unpaired)):
        if text:
            files[field] = folder / f"{field}_{sequence}.a3m"
            files[field].write_text(text)
    return Chain(sequence[0], "protein", sequence, **files)


def letters(rows: np.ndarray) -> list[str]:
    names = {TOKEN_IDS[word]: letter for letter, word in WORDS.items()}
    return ["".join(names[int(residue)] for residue in row) for row in rows]


def read(chain: Chain, **settings: object) -> tuple[list[str], list[int]]:
    msa = read_chain_msa(chain, MsaSettings(**settings))  # type: ignore[arg-type]
    return letters(msa.residues), msa.keys.tolist()


def test_paired_rows_come_first_with_the_keys_of_their_species(tmp_path: Path) -> None:
    one = chain(
        tmp_path,
        "MKA",
        ">q\nMKA\n>x OX=9606\nMK-\n>gap OX=9\n---\n>none\n-KA\n>y TaxID=10090 z\nM-aA\n",
        ">q OX=9606\nMKA\n>x OX=9606\nMWA\n>again\nMK-\n",
    )
    assert read(one) == (["MKA", "MK-", "-KA", "M-A", "MWA"], [-1, 9606, -1, 10090, -1])
    assert read(one, pairing="taxonomy")[1] == [-1, 9606, -1, 10090, 9606]
    assert read(one, max_paired=2)[0] == ["MKA", "MK-", "MWA"]
    assert read(one, max_file_rows=1)[0] == ["MKA", "MWA"]
    only = replace(one, msa=None)
    assert read(only)[0] == ["MKA", "MK-", "-KA", "M-A"]
    msa = read_chain_msa(one, MsaSettings())
    assert msa.deletions.tolist() == [[3, 2, 1]]
    assert set(msa.digests) == {one.paired_msa, one.msa}


def test_paired_rows_without_species_are_paired_by_their_numbers(tmp_path: Path) -> None:
    one = chain(tmp_path, "MKA", ">101\nMKA\n>a\nMK-\n>b\n---\n>c\n-KA\n", ">q\nMKA\n>d\nMWA\n")
    two = chain(tmp_path, "GW", ">102\nGW\n>e\nGA\n>f\nAW\n>g\n-W\n")
    keys = [-1, FIRST_NUMBER + 2, FIRST_NUMBER + 4, -1]
    assert read(one) == (["MKA", "MK-", "-KA", "MWA"], keys)
    features = featurize(Complex("x", (one, two)), msa=MsaSettings(corrected=True))
    assert letters(features.msa.numpy()) == ["MKAGW", "MK-GA", "-KA-W", "MWAAW"]
    assert features.paired[:, 0].tolist() == [True, True, True, False]


def test_columns_of_a_chain_are_taken_from_a_paired_alignment_of_a_complex(tmp_path: Path) -> None:
    text = "#3,2\t1,1\n>101\t102\nMKAGW\n>a\tb\nMK-GA\n>101\nMKA--\n>c\nMWA--\n>102\n---GW\n"
    one = chain(tmp_path, "MKA", text)
    two = chain(tmp_path, "GW", text)
    assert read(one) == (["MKA", "MK-", "MWA"], [-1, FIRST_NUMBER + 2, -1])
    assert read(two) == (["GW", "GA"], [-1, FIRST_NUMBER + 2])


def test_taxonomy_pairs_rows_of_plain_alignments(tmp_path: Path) -> None:
    one = chain(tmp_path, "MKA", "", ">q\nMKA\n>sp|P1|X_HUMAN\nMK-\n>n\nM--\n>u OX=7\nMWA\n")
    two = chain(tmp_path, "GW", "", ">q\nGW\n>v OX=7\nGA\n>sp|P2|Y_HUMAN\n-W\n")
    complex = Complex("x", (one, two))
    settings = MsaSettings(corrected=True)
    unpaired = featurize(complex, msa=settings)
    assert not unpaired.paired[1:].any()
    features = featurize(complex, msa=replace(settings, pairing="taxonomy"))
    assert letters(features.msa.numpy()) == ["MKAGW", "MK--W", "MWAGA", "M----"]
    assert features.paired.all(1).tolist() == [True, True, True, False]


def test_an_alignment_of_a_longer_sequence_is_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    text = ">q\nAAMKAGW\n>x\nA-amMwaK-g-W\n>outside\nGA---GW\n>y\n--gM--GW\n"
    one = chain(tmp_path, "MKA", "", text)
    with pytest.raises(ValueError, match=r"has 7 residues, but the chain 3; residues 3 to 5 of it"):
        read(one)
    assert read(one, cut_to_range=True)[0] == ["MKA", "MK-", "M--"]
    msa = read_chain_msa(one, MsaSettings(cut_to_range=True))
    assert msa.deletions.tolist() == [[1, 1, 2]]
    twice = replace(one, sequence="A")
    with pytest.raises(ValueError, match="has 7 residues, but the chain 1; 3 stretches of it"):
        read(twice, cut_to_range=True)
    with pytest.raises(ValueError, match=r"has 7 residues, but the chain 3$"):
        read(replace(one, sequence="MKW"), cut_to_range=True)
    with pytest.raises(ValueError, match=r"sequence 2 has 2 columns, but the query 3"):
        read(chain(tmp_path, "MKA", "", ">q\nAAMKAGW\n>x\nMK\n"), cut_to_range=True)


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_the_case_of_a_full_length_alignment(tmp_path: Path) -> None:
    folder = CASES / "04_alignment_of_the_full_length_protein" / "in"
    text = (folder / "batch" / "full.yaml").read_text()
    sequence = text.split("sequence:")[1].split()[0].strip(",}")
    one = Chain("A", "protein", sequence, msa=folder / "full.a3m")
    with pytest.raises(ValueError, match="31 residues, but the chain 20"):
        read_chain_msa(one, MsaSettings())
    cut = read_chain_msa(one, MsaSettings(cut_to_range=True))
    assert cut.residues.shape[1] == 20
    mutant = replace(one, msa=folder / "mutant.a3m")
    with pytest.raises(ValueError, match="its query is another sequence"):
        read_chain_msa(mutant, MsaSettings(cut_to_range=True))


@pytest.mark.parametrize(
    ("settings", "once", "keeps_partners", "keeps_deletions"),
    [
        (MsaSettings(), False, False, False),
        (MsaSettings(compat="community"), True, True, False),
        (MsaSettings(compat="corrected"), True, True, True),
        (MsaSettings(corrected=True), True, True, True),
        (MsaSettings(corrected=True, compat="community"), True, True, True),
    ],
)
def test_compat_says_which_faults_are_followed(
    tmp_path: Path, settings: MsaSettings, once: bool, keeps_partners: bool, keeps_deletions: bool
) -> None:
    tables = {
        "MKA": "key,sequence\n-1,MKA\n7,MK-\n8,wM-A\n",
        "GW": "key,sequence\n-1,GW\n7,G-\n8,G-\n",  # one sequence of two organisms
    }
    chains = []
    for sequence, table in tables.items():
        path = tmp_path / f"{sequence}.csv"
        path.write_text(table)
        chains.append(Chain(sequence[0], "protein", sequence, msa=path))
    features = featurize(Complex("x", tuple(chains)), msa=settings)
    rows = letters(features.msa.numpy())
    assert rows.count("MK-G-") == (1 if once else 2)
    assert ("M-AG-" in rows) is keeps_partners
    assert bool(features.has_deletion.any()) is keeps_deletions
