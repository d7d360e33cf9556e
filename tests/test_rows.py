"""The verbs of Rows against what they say, on 1, 2, 3 and 5 ranks, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch

from foldcp import rows as rows_module
from foldcp.rows import Rows
from tests.ranks import run

SIZES = [1, 2, 3, 5]


def whole(size: int, *tail: int) -> torch.Tensor:
    N = 7 * size
    return (
        torch.arange(N * N * max(1, int(torch.tensor(tail).prod())), dtype=torch.float64).view(
            N, N, *tail
        )
        ** 1.1
    )


def transposed(rows: Rows, z: torch.Tensor, tile_bytes: int) -> torch.Tensor:
    mine = rows.mine(z).clone()
    with patch.object(rows_module, "TILE_BYTES", tile_bytes):
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


def running_sums(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of rows in parts, in place."""
    sums = torch.cat(parts, 1).cumsum(1).split([part.shape[1] for part in parts], 1)
    return [part.copy_(new) for part, new in zip(parts, sums, strict=True)]


def updated_by_columns(
    rows: Rows, z: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Rows of z^T are told apart by a running sum along them."""
    mine = rows.mine(z).clone()
    sizes = []

    def update(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes.append(len(parts[0]))
        return running_sums(parts)

    with torch.no_grad():
        return rows.by_columns(mine, update, most), mine, sizes


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("tail", [(), (3,), (16,)])
@pytest.mark.parametrize("size", SIZES)
def test_by_columns_updates_the_rows_of_the_transpose_in_place(
    size: int, tail: tuple[int, ...], most: int
) -> None:
    z = whole(size, *tail).to(torch.float32)
    parts = run(updated_by_columns, size, z, most)
    torch.testing.assert_close(torch.cat([out for out, _, _ in parts]), z.cumsum(0))
    for out, mine, sizes in parts:
        assert torch.equal(out, mine)
        assert sum(sizes) == 7 and max(sizes) <= most


def gathered(rows: Rows, x: torch.Tensor, dim: int) -> torch.Tensor:
    return rows.gather(rows.mine(x, dim), dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_gather_returns_the_whole_on_every_rank(size: int, dim: int, dtype: torch.dtype) -> None:
    x = whole(size, 2).to(dtype)
    for got in run(gathered, size, x, dim):
        assert torch.equal(got, x)


def streamed(rows: Rows, x: torch.Tensor, room: int) -> list[tuple[slice, int, torch.Tensor]]:
    with patch.object(rows.carrier, "room", room):
        return [(lot, p, block.clone()) for lot, p, block in rows.stream(rows.mine(x, 1))]


def met(
    rows: Rows, x: torch.Tensor, room: int
) -> list[tuple[slice, int, torch.Tensor, torch.Tensor]]:
    mine = rows.mine(x, 1)
    with patch.object(rows.carrier, "room", room):
        return [
            (lot, p, part.clone(), block.clone())
            for lot, p, part, block in rows.across(mine, 2 * mine)
        ]


@pytest.mark.parametrize("room", [1, 1 << 30])
@pytest.mark.parametrize("size", SIZES)
def test_stream_and_across_visit_every_rank_for_every_lot(size: int, room: int) -> None:
    x = torch.arange(7 * 900, dtype=torch.float32).view(7, 30, 30)
    lots = [slice(0, 7)] if size == 1 or room > 1 else [slice(n, n + 1) for n in range(7)]
    for rank, (blocks, pairs) in enumerate(
        zip(run(streamed, size, x, room), run(met, size, x, room), strict=True)
    ):
        visits = [(lot, (rank + step) % size) for lot in lots for step in range(size)]
        assert [(lot, p) for lot, p, _ in blocks] == [(lot, p) for lot, p, *_ in pairs] == visits
        for (lot, p), (*_, alone), (*_, part, block) in zip(visits, blocks, pairs, strict=True):
            theirs = x.chunk(size, 1)[p][lot]
            assert torch.equal(alone, theirs) and torch.equal(block, 2 * theirs)
            assert torch.equal(part, theirs.chunk(size, 2)[rank])


def summed(rows: Rows) -> torch.Tensor:
    return rows.sum(torch.tensor([rows.rank + 1.0, 10.0]))


@pytest.mark.parametrize("size", SIZES)
def test_sum_adds_over_ranks(size: int) -> None:
    for got in run(summed, size):
        assert got.tolist() == [size * (size + 1) / 2, 10.0 * size]


def smallest(rows: Rows) -> int:
    return rows.least(10 - rows.rank, torch.device("cpu"))


@pytest.mark.parametrize("size", SIZES)
def test_least_is_the_smallest_of_the_ranks(size: int) -> None:
    assert run(smallest, size) == [11 - size] * size


def gradients(
    rows: Rows,
    layer: Callable[..., torch.Tensor],
    z: torch.Tensor,
    weight: torch.Tensor,
    dy: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Each rank differentiates the loss of its own rows."""
    mine = rows.mine(z).clone().requires_grad_()
    w = weight.clone().requires_grad_()
    with patch.object(rows.carrier, "room", 1):
        y = layer(mine, w, rows)
    (y * rows.mine(dy)).sum().backward()
    assert mine.grad is not None and w.grad is not None
    return {"y": y.detach(), "z": mine.grad, "w": w.grad}


def layer(z: torch.Tensor, w: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Made up to use every verb."""
    zt = rows.transpose(z * w)
    I = len(z)
    y = torch.empty_like(z)
    for lot, p, block in rows.stream(z * z):
        y[:, p * I + lot.start : p * I + lot.stop] = zt @ block.T
    token = rows.gather(y.mean(1))
    total = rows.sum((z * w).sum(0))
    z = rows.by_columns(
        z, lambda parts: [chunk + (chunk * w).cumsum(1).tanh() for chunk in parts], 4
    )
    fixed = torch.ones_like(z).cumsum(1) * 0.1
    for a, b in ((z * w, z), (fixed, z), (z, fixed)):
        for _, _, part, block in rows.across(torch.stack([a, 2 * a]), torch.stack([b, 10 * b])):
            y = y + (part.mT @ block).sum(0)
    return y * rows.mine(token)[:, None].tanh() + zt * token.sin() + total.tanh() * z


def plain_layer(z: torch.Tensor, w: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The same of a whole z."""
    zt = (z * w).T
    y = zt @ (z * z).T
    token = y.mean(1)
    total = (z * w).sum(0)
    z = z + (z * w[:, None]).cumsum(0).tanh()
    fixed = torch.ones_like(z).cumsum(1) * 0.1
    y = y + 21 * ((z * w).T @ z + fixed.T @ z + z.T @ fixed)
    return y * token[:, None].tanh() + zt * token.sin() + total.tanh() * z


@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_those_without_ranks(size: int) -> None:
    torch.manual_seed(0)
    N = 15 * 2
    z, dy = torch.randn(2, N, N, dtype=torch.float64)
    w = torch.randn(N, dtype=torch.float64)
    expected = gradients(Rows(), plain_layer, z, w, dy)
    parts = run(gradients, size, layer, z, w, dy)
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), expected["y"])
    torch.testing.assert_close(torch.cat([part["z"] for part in parts]), expected["z"])
    torch.testing.assert_close(sum(part["w"] for part in parts), expected["w"])
