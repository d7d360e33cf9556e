"""Spans of chains, and reductions over the columns and rows of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from foldcp.metrics.chains import ChainRows, ChainSpans
from tests.support.metrics_reference import SPANS, noise, synthetic_case


def test_spans_reduce_columns_by_chain() -> None:
    assert SPANS.starts == (0, 5, 6, 13, 16) and SPANS.num_tokens == 16 and SPANS.num_chains == 4
    x = torch.from_numpy(noise(1, 3, 16))
    for chain, columns in enumerate((slice(0, 5), slice(5, 6), slice(6, 13), slice(13, 16))):
        torch.testing.assert_close(SPANS.sum_columns(x)[:, chain], x[:, columns].sum(1))
        torch.testing.assert_close(SPANS.min_columns(x)[:, chain], x[:, columns].amin(1))
    np.testing.assert_array_equal(SPANS.pair_lengths[0], [5, 6, 12, 8])


def test_spans_cut_rows_by_chain() -> None:
    assert list(SPANS.rows(4, 5)) == [
        (0, slice(0, 1)),
        (1, slice(1, 2)),
        (2, slice(2, 5)),
    ]
    assert list(SPANS.rows(14, 9)) == [(3, slice(0, 2))]
    assert list(SPANS.rows(16, 4)) == []


def test_rows_leave_absent_chains_neutral() -> None:
    """Rows 9 .. 14: four of chain 2, two of chain 3."""
    x = torch.from_numpy(noise(2, 6, 4))
    rows = ChainRows(SPANS, 9, 6, x.device)
    assert rows.row_chain.tolist() == [2, 2, 2, 2, 3, 3]
    largest = rows.max(x)
    total = rows.sum(x.float())
    assert torch.isinf(largest[:2]).all() and not total[:2].any() and total.dtype == torch.float64
    torch.testing.assert_close(largest[2:], torch.stack([x[:4].amax(0), x[4:].amax(0)]))
    sums = torch.stack([x[:4].sum(0), x[4:].sum(0)])
    torch.testing.assert_close(total[2:], sums, rtol=1e-6, atol=0)


def test_spans_need_tokens_ordered_by_chain() -> None:
    layout = synthetic_case([("protein", 5), ("dna", 1)]).layout
    with pytest.raises(AssertionError, match="ordered by chain"):
        ChainSpans.of(replace(layout, token_chain=layout.token_chain[::-1]))
    with pytest.raises(AssertionError, match="no tokens"):
        ChainSpans.of(replace(layout, chain_kinds=[*layout.chain_kinds, "protein"]))
