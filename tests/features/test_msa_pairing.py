"""Pairing of MSA rows, against a slow and literal implementation of the rules."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldcp.chemistry.vocabulary import TOKEN_IDS
from foldcp.complex import Chain, Complex
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import Compat, MsaSettings
from foldcp.features.msa.pairing import count_keys, num_paired_rows, pair_rows, without_keys
from foldcp.features.msa.parse import UNPAIRED
from foldcp.features.msa.read import read_msa


def reference(
    keys: list[list[int]], settings: MsaSettings
) -> tuple[list[list[int]], list[list[bool]]]:
    """The rules one row at a time: sequence of each chain or -1, and whether its key brought it."""
    members: dict[int, list[tuple[int, int]]] = {}
    for chain, of_chain in enumerate(keys):
        for sequence, key in enumerate(of_chain):
            if key != UNPAIRED:
                members.setdefault(key, []).append((chain, sequence))
    shared = [group for group in members.values() if len(group) > 1]
    shared.sort(key=lambda group: len({chain for chain, _ in group}), reverse=True)
    queues = []
    for chain, of_chain in enumerate(keys):
        used = (
            {s for group in shared for c, s in group if c == chain} if settings.corrected else set()
        )
        queues.append([s for s in range(1, len(of_chain)) if s not in used])

    rows = [[0] * len(keys)]
    by_key = [[True] * len(keys)]
    for group in shared:
        has = {chain: [s for c, s in group if c == chain] for chain in range(len(keys))}
        for turn in range(max(map(len, has.values()))):
            if len(rows) < settings.max_paired:
                row = [
                    has[c][turn % len(has[c])]
                    if has[c]
                    else (queues[c].pop(0) if queues[c] else -1)
                    for c in has
                ]
                rows.append(row)
                by_key.append([bool(has[c]) for c in has])
    while any(queues):
        rows.append([queue.pop(0) if queue else -1 for queue in queues])
        by_key.append([False] * len(keys))
    return rows[: settings.max_rows], by_key[: settings.max_rows]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("corrected", [False, True])
def test_pair_rows_follows_the_rules(seed: int, corrected: bool) -> None:
    rng = random.Random(seed)
    num_rows = rng.choice([4, 30, 400])
    keys = [
        [rng.choice([-1, rng.randint(0, num_rows)]) for _ in range(rng.choice([1, 7, 60, 130]))]
        for _ in range(rng.randint(1, 5))
    ]
    settings = MsaSettings(
        max_paired=rng.choice([1, 23, 999]),
        max_rows=rng.choice([1, 41, 999]),
        corrected=corrected,
    )
    pairing = pair_rows([np.array(k) for k in keys], settings)
    rows, by_key = reference(keys, settings)
    assert pairing.sequence.tolist() == rows
    assert pairing.by_key.tolist() == by_key


def test_msa_settings_default_to_those_of_boltz() -> None:
    keys = [np.arange(10_000), np.arange(10_000)[::-1]]
    pairing = pair_rows(keys, MsaSettings())
    assert len(pairing.sequence) == 16384
    assert pairing.by_key[:8192].all() and not pairing.by_key[8192:].any()
    assert MsaSettings().max_file_rows == 8192


# The fourth row of B is the second again, under another key.
A = "key,sequence\n5,AGW\n,A-W\n8,wAG-\n7,-GW\n"
B = "key,sequence\n,MX\n7,MK\n7,kM-\n8,MK\n,--\n"


@pytest.fixture
def pair(tmp_path: Path) -> Complex:
    (tmp_path / "A.csv").write_text(A)
    (tmp_path / "B.csv").write_text(B)
    chains = (
        Chain("A", "protein", "AGW", msa=tmp_path / "A.csv"),
        Chain("D", "dna", "T"),
        Chain("B", "protein", "MU", msa=tmp_path / "B.csv"),
    )
    return Complex("two", chains)


def ids(text: str) -> list[int]:
    words = {
        "A": "ALA",
        "G": "GLY",
        "W": "TRP",
        "M": "MET",
        "K": "LYS",
        "T": "DT",
        "-": "-",
        "X": "UNK",
    }
    return [TOKEN_IDS[words[letter]] for letter in text]


def test_pair_msas_gives_the_rows_of_boltz_worked_out_by_hand(pair: Complex) -> None:
    features = featurize(pair)
    rows = ["AGWTMX", "-GW-MK", "-GW-M-", "A-W-MK", "AG--M-", "-GW---"]
    assert features.msa.tolist() == [ids(row) for row in rows]
    paired = ["111111", "111011", "111011", "000000", "000000", "000000"]
    assert features.paired.tolist() == [[c == "1" for c in row] for row in paired]
    assert (
        not features.has_deletion.any()
        and not features.deletion_value.any()
        and not features.deletion_mean.any()
    )
    assert features.msa_mask.all() and features.msa_mask.shape == (6, 6)
    one_hot = torch.nn.functional.one_hot(features.msa.long(), 33).float()
    torch.testing.assert_close(features.profile, one_hot.mean(0))


def test_pair_msas_corrected_gives_the_rows_worked_out_by_hand(pair: Complex) -> None:
    features = featurize(pair, msa=MsaSettings(corrected=True))
    rows = ["AGWTMX", "AG--MK", "-GW-MK", "-GW-M-", "A-W---"]
    assert features.msa.tolist() == [ids(row) for row in rows]
    paired = ["111111", "111011", "111011", "111011", "000000"]
    assert features.paired.tolist() == [[c == "1" for c in row] for row in paired]
    assert features.has_deletion.nonzero().tolist() == [[1, 0], [3, 4]]
    value = np.pi / 2 * np.arctan(1 / 3)
    expected = torch.zeros(5, 6)
    expected[1, 0] = expected[3, 4] = value
    torch.testing.assert_close(features.deletion_value, expected)
    torch.testing.assert_close(features.deletion_mean, expected.mean(0))


def test_pair_msas_uses_only_the_deletions_of_the_query(tmp_path: Path) -> None:
    (tmp_path / "x.a3m").write_text(">q\nAkkGW\n>a\nAG-\n>b\nwwwA-W\n")
    chain = Chain("A", "protein", "AGW", msa=tmp_path / "x.a3m")
    features = featurize(Complex("x", (chain, Chain("B", "protein", "AG"))))
    assert features.has_deletion.nonzero().tolist() == [[0, 1]]
    torch.testing.assert_close(float(features.deletion_value[0, 1]), np.pi / 2 * np.arctan(2 / 3))
    corrected = featurize(Complex("x", (chain,)), msa=MsaSettings(corrected=True))
    assert corrected.has_deletion.nonzero().tolist() == [[0, 1], [2, 0]]


def test_pair_msas_keeps_deletions_beyond_two_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.a3m").write_text(f">q\nA{'k' * 40_000}GW\n>a\nAG-\n")
    features = featurize(Complex("x", (Chain("A", "protein", "AGW", msa=tmp_path / "x.a3m"),)))
    assert features.has_deletion.tolist() == [[False, True, False], [False] * 3]
    torch.testing.assert_close(
        float(features.deletion_value[0, 1]), np.pi / 2 * np.arctan(40_000 / 3)
    )


def test_pair_msas_keeps_the_pairs_of_a_colabfold_complex(tmp_path: Path) -> None:
    path = tmp_path / "x.a3m"
    path.write_text(
        "#3,2\t1,1\n>101\t102\nAGWMK\n>a\tb\nAG-M-\n>101\nAGW--\n>c\nA-W--\n>102\n---MK\n>d\n----K\n"
    )
    chains = (
        Chain("A", "protein", "AGW", msa=path),
        Chain("B", "protein", "MK", msa=path),
    )
    features = featurize(Complex("x", chains), msa=MsaSettings(corrected=True))
    assert features.msa.tolist() == [ids(row) for row in ("AGWMK", "AG-M-", "A-W-K")]
    assert features.paired.tolist() == [[True] * 5, [True] * 5, [False] * 5]


@pytest.mark.parametrize(("corrected", "depths"), [(False, [4, 1, 4]), (True, [4, 1, 5])])
def test_pair_msas_counts_the_rows_of_each_chain(
    pair: Complex, corrected: bool, depths: list[int]
) -> None:
    features = featurize(pair, msa=MsaSettings(corrected=corrected))
    assert features.layout.chain_msa_depth.tolist() == depths
    fewer_rows = featurize(pair, msa=MsaSettings(max_file_rows=2, corrected=corrected))
    assert fewer_rows.layout.chain_msa_depth.tolist() == [2, 1, 2]
    one = featurize(pair, msa=MsaSettings(max_rows=1, corrected=corrected))
    assert one.layout.chain_msa_depth.tolist() == [1, 1, 1]


def test_pair_msas_counts_the_rows_with_a_residue_at_each_residue(tmp_path: Path) -> None:
    path = tmp_path / "x.a3m"
    path.write_text(">q\nAkkMW\n>a\nAM-\n>b\nA-W\n>c\n--W\n")
    modifications = ((2, "MSE"),)
    chains = (
        Chain("A", "protein", "AMW", msa=path),
        Chain("B", "protein", "AM"),
        Chain("L", "ligand", ccd=("ATP",)),
    )
    complex = Complex("x", chains)
    coverage = [found.tolist() for found in featurize(complex).layout.chain_coverage]
    assert coverage == [[3, 2, 3], [], []]
    two = featurize(complex, msa=MsaSettings(max_rows=2)).layout.chain_coverage
    assert [found.tolist() for found in two] == [[2, 2, 1], [], []]
    modified = Complex("x", (replace(chains[0], modifications=modifications),))
    assert featurize(modified).layout.chain_coverage[0].tolist() == [3, 2, 3]


def test_featurize_refuses_an_msa_that_has_changed(pair: Complex, tmp_path: Path) -> None:
    path = tmp_path / "A.csv"
    planned = replace(pair, digests=read_msa(path, 9).digests)
    assert torch.equal(featurize(planned).msa, featurize(pair).msa)
    path.write_text(A + ",AAA\n")
    with pytest.raises(
        ValueError,
        match=r"chain A of complex two: alignment .*A\.csv: its content has changed",
    ):
        featurize(planned)


def test_features_pad_the_msa(pair: Complex) -> None:
    features = featurize(pair, msa=MsaSettings(corrected=True)).pad(4)
    assert features.msa[:, 6:].tolist() == [[TOKEN_IDS["-"]] * 2] * 5
    assert (
        features.msa_mask[:, 6:].sum()
        == features.paired[:, 6:].sum()
        == features.deletion_value[:, 6:].sum()
        == 0
    )
    assert features.msa_mask[:, :6].all()


def test_msa_features_expand_constants(pair: Complex) -> None:
    features = featurize(pair).pad(4)
    for name, largest in (
        ("msa_mask", 8 * 4),
        ("has_deletion", 1),
        ("deletion_value", 4),
    ):
        assert getattr(features, name).untyped_storage().nbytes() <= largest
        assert getattr(features.to("cpu"), name).shape == (6, 8)


def test_pair_rows_of_copies_show_the_same_rows(pair: Complex, tmp_path: Path) -> None:
    chains = (pair.chains[0], Chain("C", "protein", "AGW", msa=tmp_path / "A.csv"))
    msa = featurize(Complex("copies", chains)).msa
    assert torch.equal(msa[:, :3], msa[:, 3:])


@pytest.mark.parametrize("row", ["max_file_rows", "max_rows"])
def test_msa_settings_limits(pair: Complex, row: str) -> None:
    assert featurize(pair, msa=MsaSettings(**{row: 2})).num_msa_rows == 2
    with pytest.raises(ValueError, match=f"{row} must be at least 1, not 0"):
        MsaSettings(**{row: 0})


def chain_with(tmp_path: Path, query: str, sequence: str, **settings: object) -> Complex:
    (tmp_path / "q.a3m").write_text(f">q\n{query}\n>a\n{query[::-1]}\n")
    return Complex("x", (Chain("Q", "protein", sequence, msa=tmp_path / "q.a3m", **settings),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "sequence", "message"),
    [
        ("AGW", "AGWK", "its query has 3 residues, but the chain 4"),
        (
            "AGW",
            "AKW",
            "its query is another sequence; residue 2 is GLY, but LYS in the chain",
        ),
        ("AXW", "AKW", "residue 2 is UNK, but LYS in the chain"),
    ],
)
def test_read_chain_msa_refuses_a_query_that_is_not_the_chain(
    tmp_path: Path, query: str, sequence: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        featurize(chain_with(tmp_path, query, sequence))
    assert str(tmp_path / "q.a3m") in str(caught.value) and "chain Q of complex x" in str(
        caught.value
    )


def test_read_chain_msa_accepts_and_keeps_unknown_residues(tmp_path: Path) -> None:
    features = featurize(chain_with(tmp_path, "AKXW", "AXMW"))
    assert features.msa[0].tolist() == ids("AXMW")
    assert features.msa[1].tolist() == ids("WXKA")


def test_read_chain_msa_refuses_chains_other_than_proteins(tmp_path: Path) -> None:
    (tmp_path / "r.a3m").write_text(">q\nACG\n")
    with pytest.raises(ValueError, match=r"chain R of complex x: .*r\.a3m: .* not of rna"):
        featurize(Complex("x", (Chain("R", "rna", "ACG", msa=tmp_path / "r.a3m"),)))


def test_read_msa_of_real_paired_msas() -> None:
    data = Path(__file__).parents[3] / "shared" / "data" / "complexes" / "3g5o"
    if not data.is_dir():
        pytest.skip("the deep alignments of 3g5o are not here")
    for name, letters in (("A", 93), ("B", 87)):
        rows = read_msa(data / f"{name}.csv", 8192)
        assert rows.residues.shape[1] == letters and 1000 < len(rows.keys) <= 8192
        assert (rows.residues >= 1).all() and (rows.residues < 23).all()
        assert len(np.unique(rows.keys)) > 10 and len(rows.deletions) > 100


@pytest.mark.parametrize("compat", ["boltz", "corrected"])
def test_num_paired_rows_is_the_number_of_rows_that_pair_rows_makes(compat: Compat) -> None:
    draw = np.random.default_rng(5)
    num_cut = 0
    for _ in range(500):
        limits = draw.integers(1, 25, 2)
        settings = MsaSettings(
            max_paired=int(limits.min()), max_rows=int(limits.max()), compat=compat
        )
        highest = draw.integers(1, 12)
        lengths = draw.integers(1, 15, draw.integers(1, 5))
        keys = [draw.integers(UNPAIRED, highest, length) for length in lengths]
        rows = pair_rows(keys, settings)
        assert num_paired_rows([count_keys(k) for k in keys], settings) == len(rows.sequence)
        num_cut += rows.by_key.any(axis=1).sum() >= settings.max_paired - 1
    assert 50 < num_cut < 450


def test_num_paired_rows_of_chains_without_keys() -> None:
    settings = MsaSettings()
    keyed = np.array([7, 8, 8])
    rows = pair_rows([keyed, np.full(9, UNPAIRED)], settings)
    assert num_paired_rows([count_keys(keyed), without_keys(9)], settings) == len(rows.sequence)
