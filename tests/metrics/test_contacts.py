"""Numbers of contacts, against distances in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foldcp.metrics import contacts
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.contacts import contact_counts
from tests.support.metrics_reference import SPANS, noise

CPU = torch.device("cpu")


@pytest.mark.parametrize("chunk_pairs", [1, 50, 1 << 22])
def test_contact_counts_equals_the_count_for_every_chunk_size(
    monkeypatch: pytest.MonkeyPatch, chunk_pairs: int
) -> None:
    monkeypatch.setattr(contacts, "CHUNK_PAIRS", chunk_pairs)
    points = torch.from_numpy(14 * noise(3, 16, 3)).float() + 3000
    counts = contact_counts(points, ChainRows(SPANS, 4, 9, CPU))
    near = (points[4:13].double()[:, None] - points.double()).norm(dim=-1) < 8
    assert 0.2 < near.double().mean() < 0.8
    torch.testing.assert_close(counts, SPANS.sum_columns(near.float()))


def test_contact_counts_leaves_out_the_cutoff_itself() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    points = torch.tensor([[0.0, 0, 0], [8.0, 0, 0], [0, 7.9999, 0]])
    counts = contact_counts(points, ChainRows(spans, 0, 3, CPU))
    np.testing.assert_array_equal(counts, [[1, 1], [0, 1], [1, 1]])
