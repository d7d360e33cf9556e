"""ipSAE: its distance scales, and each row against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foldcp.metrics import ipsae as module
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.ipsae import D0Tables, ipsae_d0, ipsae_d0_by_row, ipsae_floor, ipsae_rows
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


@pytest.mark.parametrize("chunk_pairs", [1, 50, 1 << 22])
def test_ipsae_rows_equals_the_formula_for_every_chunk_size(
    monkeypatch: pytest.MonkeyPatch, chunk_pairs: int
) -> None:
    monkeypatch.setattr(module, "CHUNK_PAIRS", chunk_pairs)
    rows = ChainRows(SPANS, 4, 9, CPU)
    pae = rows.own(torch.from_numpy(1 + 18 * noise(4, 16, 16)).float())
    floor = torch.from_numpy(ipsae_floor(SPANS)).float()
    chn, dom = torch.from_numpy(1 + 3 * noise(5, 2, 4, 4)).float()
    got = ipsae_rows(pae, rows, D0Tables(floor, chn, dom), 10)
    for row, a in enumerate(rows.row_chain.tolist()):
        for b in range(4):
            error = pae[row, SPANS.starts[b] : SPANS.starts[b + 1]]
            error = error[error < 10]
            for values, d0 in ((got.d0res, floor), (got.d0chn, chn), (got.d0dom, dom)):
                tm = 1 / (1 + (error / d0[a, b]) ** 2)
                expected = tm.mean() if len(error) else torch.tensor(0.0)
                torch.testing.assert_close(values[row, b], expected)


def test_ipsae_rows_leaves_out_the_cutoff_itself() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    one = torch.ones(2, 2)
    pae = torch.tensor([[10.0, 10.0, 1.0]])
    got = ipsae_rows(pae, ChainRows(spans, 0, 1, CPU), D0Tables(one, one, one), 10)
    np.testing.assert_array_equal(got.d0chn[0], [0, 0.5])
