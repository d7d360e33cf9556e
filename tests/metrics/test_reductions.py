"""Reductions of named values over rows and ranks: every field is reduced by itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues, to_host
from tests.support.distributed import run
from tests.support.metrics_reference import SPANS, noise

T = SPANS.num_tokens


@dataclass(frozen=True)
class Pair(RowValues):
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Several(RowValues):
    one: Pair
    others: tuple[Tensor, ...]


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
                "sum_by_chain": torch.stack([x.double().sum(0) for x in by_chain]),
            }
            for name, value in expected.items():
                torch.testing.assert_close(getattr(got[name], field.name), value)


def test_nested_row_values_reduce_as_their_tensors_do() -> None:
    cp = ContextParallel()
    rows = rows_of(cp)
    a, b, c, d = (whole(seed, T, 4) for seed in range(4))
    got = Several(Pair(a, b), (c, d)).sum_by_chain(rows, cp)
    for tensors, expected in (((got.one.first, got.one.second), (a, b)), (got.others, (c, d))):
        alone = Pair(*expected).sum_by_chain(rows, cp)
        torch.testing.assert_close(tensors, (alone.first, alone.second))


def test_to_host_keeps_values_and_structure_and_copies_each_type_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    single = whole(1, 3, 4)
    values = {
        "pair": Pair(single.T, single.double() + 1e-9),
        "others": (single[1, 2], None, single[:0], 7),
        "whole": single.double()[:, ::2],
    }
    copied = []
    to = Tensor.to

    def counting(x: Tensor, device: torch.device) -> Tensor:
        copied.append(x.dtype)
        return to(x, device)

    monkeypatch.setattr(Tensor, "to", counting)
    got = to_host(values)
    assert copied == [torch.float32, torch.float64]
    assert got["others"][1] is None and got["others"][3] == 7
    for x, expected in (
        (got["pair"].first, single.T),
        (got["pair"].second, single.double() + 1e-9),
        (got["others"][0], single[1, 2]),
        (got["others"][2], single[:0]),
        (got["whole"], single.double()[:, ::2]),
    ):
        torch.testing.assert_close(x, expected, rtol=0, atol=0)


def test_max_of_no_rows_is_zero() -> None:
    got = Pair(torch.zeros(0), torch.zeros(0)).max(ContextParallel())
    assert got.first == got.second == 0
