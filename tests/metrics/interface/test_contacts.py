"""Contacts of rows with chains, against distances in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.interface import contacts
from foldcp.metrics.interface.contacts import Contacts, chain_contacts
from foldcp.metrics.interface.lis import local_interaction
from tests.support.metrics_reference import SPANS, noise

CPU = torch.device("cpu")


def contacts_of(points: Tensor, rows: ChainRows) -> tuple[Contacts, Tensor]:
    T = points.shape[1]
    pae = rows.own(torch.from_numpy(20 * noise(8, T, T)).float())
    plddt = torch.from_numpy(noise(9, T)).float()
    return chain_contacts(points, pae, plddt, rows, torch.tensor([8.0, 12.0]).view(2, 1, 1))


@pytest.mark.parametrize("max_numbers", [1, 800, 1 << 22])
def test_chain_contacts_counts_each_kind_of_points_for_every_chunk_size(
    monkeypatch: pytest.MonkeyPatch, max_numbers: int
) -> None:
    monkeypatch.setattr(contacts, "MAX_NUMBERS", max_numbers)
    points = torch.from_numpy(14 * noise(3, 3, 16, 3)).float() + 3000
    rows = ChainRows(SPANS, 4, 9, CPU)
    got, others = contacts_of(points, rows)
    kinds = (got.of_alphas.contacts, got.of_tokens.contacts, others)
    for of_kind, counts in zip(points.double(), kinds, strict=True):
        near = (of_kind[4:13, None] - of_kind).norm(dim=-1) < 8
        near &= rows.row_chain[:, None] != rows.column_chain
        assert 0.2 < near.double().mean() < 0.6
        torch.testing.assert_close(counts, SPANS.sum_columns(near.float()))
    torch.testing.assert_close(got.touching, (got.of_tokens.contacts > 0).float())


def test_chain_contacts_leaves_out_the_cutoff_itself() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    points = torch.tensor([[0.0, 0, 0], [8.0, 0, 0], [0, 7.9999, 0]])
    got, _ = contacts_of(points.expand(2, 3, 3), ChainRows(spans, 0, 3, CPU))
    np.testing.assert_array_equal(got.of_tokens.contacts, [[0, 1], [0, 0], [1, 0]])


def test_lia_and_clia_leave_out_the_cutoff_itself() -> None:
    spans = ChainSpans((0, 1, 3), ("protein", "protein"))
    rows = ChainRows(spans, 0, 1, CPU)
    pae = torch.tensor([[0.0, 12.0, 11.0]])
    cutoffs = torch.tensor([12.0, 20.0]).view(2, 1, 1)
    got, _ = chain_contacts(torch.zeros(2, 3, 3), pae, torch.ones(3), rows, cutoffs)
    assert [clia[0, 1] for clia in got.clia] == [1, 2]
    assert [one.lia[0, 1] for one in local_interaction(pae, rows, cutoffs)] == [1, 2]
