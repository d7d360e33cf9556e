"""ipSAE: its distance scales, and each row against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.metrics import ipsae as module
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.ipsae import (
    D0Tables,
    Ipsae,
    ipsae_d0,
    ipsae_d0_by_row,
    ipsae_floor,
    ipsae_rows,
)
from tests.support.metrics_reference import SPANS, noise

CPU = torch.device("cpu")


def test_ipsae_floor_is_2_for_nucleic_acids() -> None:
    floor = ipsae_floor(SPANS)
    np.testing.assert_array_equal(floor, [[1, 2, 1, 1], [2, 2, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]])


def test_ipsae_d0_has_the_floors_of_the_program() -> None:
    """At 27 residues the two versions differ."""
    sizes = np.array([[26, 27, 28, 79], [27, 28, 43, 79], [0, 27, 27, 28], [28, 79, 44, 27]])
    expected = [
        [1, 2, 1.115655, 3.16],
        [2, 2, 2, 3.16],
        [1, 2, 1, 1.115655],
        [1.115655, 3.16, 2.009673, 1],
    ]
    np.testing.assert_allclose(ipsae_d0(sizes, ipsae_floor(SPANS)), expected, rtol=1e-6)
    counts = torch.tensor([[0.0, 26, 27, 43, 79]])
    low = ipsae_d0_by_row(counts, torch.full_like(counts, 1.0))[0]
    high = ipsae_d0_by_row(counts, torch.full_like(counts, 2.0))[0]
    np.testing.assert_allclose(low, [1, 1, 1.038891, 1.96537, 3.16], rtol=1e-6)
    np.testing.assert_allclose(high, [2, 2, 2, 2, 3.16], rtol=1e-6)


def test_d0_tables_have_the_d0_of_every_number_of_residues() -> None:
    spans = ChainSpans((0, 40, 45), ("protein", "dna"))
    tables = D0Tables.of(spans)
    sizes = np.array([[80, 45], [30, 10]])
    got = torch.maximum(tables.of_size[torch.from_numpy(sizes)], tables.floor)
    expected = torch.from_numpy(ipsae_d0(sizes, ipsae_floor(spans))).float()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("chunk_pairs", [1, 50, 1 << 22])
def test_ipsae_rows_equals_the_formula_for_every_chunk_size(
    monkeypatch: pytest.MonkeyPatch, chunk_pairs: int
) -> None:
    monkeypatch.setattr(module, "CHUNK_PAIRS", chunk_pairs)
    rows = ChainRows(SPANS, 4, 9, CPU)
    pae = rows.own(torch.from_numpy(1 + 18 * noise(4, 16, 16)).float())
    floor = torch.from_numpy(ipsae_floor(SPANS)).float()
    chn, dom = torch.from_numpy(1 + 3 * noise(5, 2, 4, 4)).float()
    tables = D0Tables(floor, chn, of_size=torch.zeros(0))
    cutoffs = torch.tensor([10.0, 8.0]).view(2, 1, 1)
    doms = torch.stack([dom, dom + 1])
    for cutoff, d0_dom, got in zip(
        cutoffs, doms, ipsae_rows(pae, rows, tables, doms, cutoffs), strict=True
    ):
        _check_rows(got, pae, rows, cutoff, (floor, chn, d0_dom))


def _check_rows(
    got: Ipsae, pae: Tensor, rows: ChainRows, cutoff: Tensor, d0s: tuple[Tensor, ...]
) -> None:
    for row, a in enumerate(rows.row_chain.tolist()):
        for b in range(4):
            error = pae[row, SPANS.starts[b] : SPANS.starts[b + 1]]
            error = error[error < cutoff.item()]
            for values, d0 in zip((got.d0res, got.d0chn, got.d0dom), d0s, strict=True):
                tm = 1 / (1 + (error / d0[a, b]) ** 2)
                expected = tm.mean() if len(error) else torch.tensor(0.0)
                torch.testing.assert_close(values[row, b], expected)


def test_ipsae_rows_leaves_out_the_cutoff_itself() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    one = torch.ones(2, 2)
    pae = torch.tensor([[10.0, 10.0, 1.0]])
    tables = D0Tables(one, one, of_size=torch.zeros(0))
    rows = ChainRows(spans, 0, 1, CPU)
    (got,) = ipsae_rows(pae, rows, tables, one[None], torch.full((1, 1, 1), 10.0))
    np.testing.assert_array_equal(got.d0chn[0], [0, 0.5])
