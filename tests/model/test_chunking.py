"""The chunk budget, and arrays worked through a few rows at a time."""

import pytest
import torch

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.layers import chunking
from foldcp.model.layers.chunking import ChunkBudget, add_rows_, map_rows_

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def test_chunks_cover_all_rows_within_the_budget() -> None:
    budget = ChunkBudget(100)
    assert budget.chunks(7, 33, CPU) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert budget.chunks(3, 1000, CPU) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert budget.chunks(7, 0, CPU) == [slice(0, 7)]


def test_at_most_lowers_a_budget_but_not_below_256_mib() -> None:
    assert ChunkBudget(1 << 30).at_most(1 << 29, CPU).max_bytes(CUDA) == 1 << 29
    assert ChunkBudget(1 << 30).at_most(1 << 20, CPU).max_bytes(CUDA) == 256 << 20
    assert ChunkBudget(1000).at_most(1 << 29, CPU).max_bytes(CUDA) == 1000


def test_resize_follows_the_memory_that_is_free_on_a_gpu(monkeypatch) -> None:
    budget = ChunkBudget()
    assert budget.max_bytes(CPU) == 64 << 20
    assert budget.max_bytes(CUDA) == 1 << 30
    for free, expected in ((80 << 30, 8 << 30), (16 << 30, 2 << 30), (1 << 30, 256 << 20)):
        monkeypatch.setattr(chunking, "available_bytes", lambda device, free=free: free)
        budget.resize(CUDA, ContextParallel())
        assert budget.max_bytes(CUDA) == expected
        assert budget.max_bytes(CPU) == 64 << 20


def test_resize_leaves_a_fixed_budget_alone(monkeypatch) -> None:
    monkeypatch.setattr(chunking, "available_bytes", lambda device: 80 << 30)
    budget = ChunkBudget(5000)
    budget.resize(CUDA, ContextParallel())
    assert budget.max_bytes(CUDA) == budget.max_bytes(CPU) == 5000


def test_two_budgets_are_independent(monkeypatch) -> None:
    monkeypatch.setattr(chunking, "available_bytes", lambda device: 16 << 30)
    first = ChunkBudget()
    second = ChunkBudget()
    first.resize(CUDA, ContextParallel())
    assert (first.max_bytes(CUDA), second.max_bytes(CUDA)) == (2 << 30, 1 << 30)


@pytest.mark.parametrize("in_place", [True, False])
def test_map_rows_and_add_rows_cut_rows_and_keep_x_with_gradients(in_place) -> None:
    x = torch.arange(12.0).view(6, 2)
    before = x.clone()
    seen = []

    def doubled(rows: slice) -> torch.Tensor:
        seen.append(rows)
        return x[rows].mul_(2) if in_place else x[rows] * 2

    with torch.set_grad_enabled(not in_place):
        out = map_rows_(x, doubled, 10, ChunkBudget(40))
        assert torch.equal(out, 2 * before)
        assert (out is x) == in_place
        assert seen == [slice(0, 4), slice(4, 6)]
        start = out.clone()
        added = add_rows_(out, lambda rows: before[rows], 10, ChunkBudget(40))
        assert torch.equal(added, start + before)
        assert (added is out) == in_place
