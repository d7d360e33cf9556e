"""The verbs of Rows against what they say, on 1, 2, 3 and 5 ranks, forward and backward."""

from __future__ import annotations

import pytest
import torch

from foldcp import rows as rows_module
from foldcp.rows import Rows
from tests.ranks import run

SIZES = [1, 2, 3, 5]


def whole(size: int, *tail: int) -> torch.Tensor:
    N = 7 * size
    return torch.arange(N * N * max(1, int(torch.tensor(tail).prod())), dtype=torch.float64).view(N, N, *tail) ** 1.1


def transposed(rows: Rows, z: torch.Tensor, tile_bytes: int) -> torch.Tensor:
    rows_module.TILE_BYTES = tile_bytes
    mine = rows.mine(z).clone()
    return rows.transpose(mine).clone()


@pytest.mark.parametrize("tile_bytes", [1, 3000, 1 << 30])
@pytest.mark.parametrize("size", SIZES)
def test_transpose_gives_the_rows_of_the_transpose(size: int, tile_bytes: int) -> None:
    z = whole(size, 3)
    assert torch.equal(torch.cat(run(transposed, size, z, tile_bytes)), z.transpose(0, 1))


def transposed_twice(rows: Rows, z: torch.Tensor) -> torch.Tensor:
    mine = rows.mine(z).clone()
    turned = rows.transpose(mine)
    turned += 1
    rows.transpose(turned)
    return mine


@pytest.mark.parametrize("size", SIZES)
def test_transpose_works_in_place(size: int) -> None:
    z = whole(size)
    assert torch.equal(torch.cat(run(transposed_twice, size, z)), z + 1)


def gathered(rows: Rows, x: torch.Tensor, dim: int) -> torch.Tensor:
    return rows.gather(rows.mine(x, dim), dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_gather_returns_the_whole_on_every_rank(size: int, dim: int, dtype: torch.dtype) -> None:
    x = whole(size, 2).to(dtype)
    for got in run(gathered, size, x, dim):
        assert torch.equal(got, x)


def streamed(rows: Rows, x: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    return [(owner, block.clone()) for owner, block in rows.stream(rows.mine(x))]


@pytest.mark.parametrize("size", SIZES)
def test_stream_visits_every_rank_once_its_own_first(size: int) -> None:
    x = whole(size)
    for rank, blocks in enumerate(run(streamed, size, x)):
        assert [owner for owner, _ in blocks] == [(rank + step) % size for step in range(size)]
        for owner, block in blocks:
            assert torch.equal(block, x.chunk(size)[owner])


def summed(rows: Rows) -> torch.Tensor:
    return rows.sum(torch.tensor([rows.rank + 1.0, 10.0]))


@pytest.mark.parametrize("size", SIZES)
def test_sum_adds_over_ranks(size: int) -> None:
    for got in run(summed, size):
        assert got.tolist() == [size * (size + 1) / 2, 10.0 * size]


def gradients(rows: Rows, z: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    """A made-up layer that uses every verb; each rank differentiates the loss of its own rows."""
    mine = rows.mine(z).clone().requires_grad_()
    w = weight.clone().requires_grad_()
    y = layer(mine, w, rows)
    (y * rows.mine(dy)).sum().backward()
    assert mine.grad is not None and w.grad is not None
    return {"y": y.detach(), "z": mine.grad, "w": w.grad}


def layer(z: torch.Tensor, w: torch.Tensor, rows: Rows) -> torch.Tensor:
    zt = rows.transpose(z * w)
    y = torch.cat([zt @ block.T for _, block in sorted(rows.stream(z * z), key=lambda item: item[0])], dim=1)
    token = rows.gather(y.mean(1))
    total = rows.sum((z * w).sum(0))
    return y * rows.mine(token)[:, None].tanh() + zt * token.sin() + total.tanh() * z


@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_those_of_one_rank(size: int) -> None:
    torch.manual_seed(0)
    N = 15 * 2
    z, dy = torch.randn(2, N, N, dtype=torch.float64)
    w = torch.randn(N, dtype=torch.float64)
    expected = gradients(Rows(), z, w, dy)
    parts = run(gradients, size, z, w, dy)
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), expected["y"])
    torch.testing.assert_close(torch.cat([part["z"] for part in parts]), expected["z"])
    torch.testing.assert_close(sum(part["w"] for part in parts), expected["w"])
