"""Reductions of named values over rows and ranks: every field is reduced by itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues
from tests.support.distributed import run
from tests.support.metrics_reference import SPANS, noise

T = SPANS.num_tokens


@dataclass(frozen=True)
class Pair(RowValues):
    first: Tensor
    second: Tensor


def rows_of(cp: ContextParallel) -> ChainRows:
    """The rows of a rank when 16 tokens are padded to 24: the last of three ranks has none."""
    num_padded = 24 // cp.size
    start = cp.rank * num_padded
    return ChainRows(SPANS, start, max(0, min(num_padded, T - start)), torch.device("cpu"))


def whole(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(noise(seed, *shape)).float()


def reduce(cp: ContextParallel) -> dict[str, Pair]:
    rows = rows_of(cp)
    vectors = Pair(rows.own(whole(1, T)), rows.own(whole(2, T)))
    matrices = Pair(rows.own(whole(3, T, 4)), rows.own(whole(4, T, 4)))
    return {
        "max": vectors.max(cp),
        "sum": vectors.sum(cp),
        "max_by_chain": matrices.max_by_chain(rows, cp),
        "min_by_chain": matrices.min_by_chain(rows, cp),
        "sum_by_chain": matrices.sum_by_chain(rows, cp),
    }


@pytest.mark.parametrize("size", [1, 2, 3])
def test_row_values_reduce_each_field_over_rows_and_ranks(size: int) -> None:
    for got in run(reduce, size):
        for seed, field in enumerate(fields(Pair), 1):
            vector = whole(seed, T)
            by_chain = whole(seed + 2, T, 4).split(SPANS.lengths.tolist())
            expected = {
                "max": vector.max(),
                "sum": vector.double().sum(),
                "max_by_chain": torch.stack([x.amax(0) for x in by_chain]),
                "min_by_chain": torch.stack([x.amin(0) for x in by_chain]),
                "sum_by_chain": torch.stack([x.double().sum(0) for x in by_chain]),
            }
            for name, value in expected.items():
                torch.testing.assert_close(getattr(got[name], field.name), value)


def test_max_of_no_rows_is_zero() -> None:
    got = Pair(torch.zeros(0), torch.zeros(0)).max(ContextParallel())
    assert got.first == got.second == 0
