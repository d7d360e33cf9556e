"""Blocks of PAE that are kept, on any rows of any rank."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch

from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.interface.pae_blocks import kept_chain_pairs, pae_blocks
from foldcp.metrics.scores import Scores
from tests.support.synthetic import synthetic_layout, synthetic_scores

NUM_CHAINS = 4


def scores_with(ipsae: dict[tuple[int, int], float], iptm: dict[tuple[int, int], float]) -> Scores:
    """Scores of four chains; the last is a ligand, whose ipSAE is not defined."""
    layout = synthetic_layout([("protein", ["ALA"] * 3)] * 3 + [("ligand", ["ATP"])])
    arrays = []
    for values in (ipsae, iptm):
        array = np.zeros((NUM_CHAINS, NUM_CHAINS), np.float32)
        for pair, value in values.items():
            array[pair] = value
        arrays.append(array)
    arrays[0][3] = arrays[0][:, 3] = np.nan
    scores = synthetic_scores(layout, np.random.default_rng(0))
    return replace(scores, ipsae_d0res=arrays[0], pair_iptm=arrays[1])


@pytest.mark.parametrize(
    ("num_best", "expected"),
    [
        (0.0, []),
        (1.0, [(1, 2)]),
        (2.0, [(1, 2), (0, 1)]),
        (3.0, [(1, 2), (0, 1), (0, 2)]),
        (99.0, None),
    ],
)
def test_best_pairs_are_those_of_the_larger_ipsae_then_iptm(
    num_best: float, expected: list[tuple[int, int]] | None
) -> None:
    """The better direction counts, as in (2, 1); ligands, without ipSAE, come last."""
    scores = scores_with({(2, 1): 0.5, (1, 2): 0.1}, {(0, 1): 0.9, (0, 2): 0.4, (0, 3): 0.95})
    kept = kept_chain_pairs(num_best, scores)
    if expected is None:
        assert kept.all()
        return
    chains = {(a, b) for pair in expected for a in pair for b in pair}
    assert set(zip(*np.nonzero(kept), strict=True)) == chains - (
        {(0, 2), (2, 0)} if num_best == 2 else set()
    )


def test_all_pairs_and_a_single_chain_are_kept_whole() -> None:
    assert kept_chain_pairs(inf, scores_with({}, {})).all()
    layout = synthetic_layout([("protein", ["ALA"] * 3)])
    single = synthetic_scores(layout, np.random.default_rng(0))
    assert kept_chain_pairs(1.0, single).all()
    assert not kept_chain_pairs(0.0, single).any()


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_blocks_of_all_ranks_cover_what_is_kept_once(num_ranks: int, whole: bool) -> None:
    """Chains of 300, 1, 7 and 250 tokens: rows of several blocks, and runs of columns."""
    spans = ChainSpans((0, 300, 301, 308, 558), ("protein",) * 4)
    kept = np.ones((4, 4), bool)
    if not whole:
        kept = np.zeros((4, 4), bool)
        kept[np.ix_([0, 3], [0, 3])] = True
        kept[np.ix_([1, 3], [1, 3])] = True
    rng = np.random.default_rng(num_ranks)
    pae = torch.from_numpy(rng.uniform(0.25, 31.75, (558, 558)).astype(np.float32))
    steps = np.full((558, 558), -1)
    size = -(-558 // num_ranks)
    for first in range(0, num_ranks * size, size):
        own = pae[first : first + size]
        for block in pae_blocks(own, first, spans, kept, sample=3):
            assert block.sample == 3
            assert len(block.steps) <= 256
            rows = slice(block.first_row, block.first_row + len(block.steps))
            columns = slice(block.first_column, block.first_column + block.steps.shape[1])
            assert (steps[rows, columns] == -1).all()
            steps[rows, columns] = block.steps
    chain = np.repeat(np.arange(4), spans.lengths)
    is_kept = kept[np.ix_(chain, chain)]
    np.testing.assert_array_equal(steps > 0, is_kept)
    assert np.abs(steps * 0.25 - pae.numpy())[is_kept].max() <= 0.125


def test_a_rank_without_rows_has_no_blocks() -> None:
    spans = ChainSpans((0, 3), ("protein",))
    assert pae_blocks(torch.zeros(0, 3), 4, spans, np.ones((1, 1), bool), 0) == []
