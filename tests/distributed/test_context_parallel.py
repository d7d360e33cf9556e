"""The collectives of ContextParallel on 1, 2, 3 and 5 ranks, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch

from foldcp.distributed import pipelining
from foldcp.distributed.context_parallel import ContextParallel
from tests.support.distributed import run

SIZES = [1, 2, 3, 5]


def whole(size: int, *tail: int) -> torch.Tensor:
    N = 7 * size
    return (
        torch.arange(N * N * max(1, int(torch.tensor(tail).prod())), dtype=torch.float64).view(
            N, N, *tail
        )
        ** 1.1
    )


def transposed(cp: ContextParallel, z: torch.Tensor, tile_bytes: int) -> torch.Tensor:
    rows = cp.shard(z).clone()
    with patch.object(pipelining, "TILE_BYTES", tile_bytes):
        return cp.transpose(rows).clone()


@pytest.mark.parametrize("tile_bytes", [1, 3000, 1 << 30])
@pytest.mark.parametrize("size", SIZES)
def test_transpose_gives_the_rows_of_the_transpose(size: int, tile_bytes: int) -> None:
    z = whole(size, 3)
    assert torch.equal(torch.cat(run(transposed, size, z, tile_bytes)), z.transpose(0, 1))


def transposed_twice(cp: ContextParallel, z: torch.Tensor) -> torch.Tensor:
    rows = cp.shard(z).clone()
    turned = cp.transpose(rows)
    turned += 1
    cp.transpose(turned)
    return rows


@pytest.mark.parametrize("size", SIZES)
def test_transpose_works_in_place(size: int) -> None:
    z = whole(size)
    assert torch.equal(torch.cat(run(transposed_twice, size, z)), z + 1)


def rows_of_transpose(
    cp: ContextParallel, z: torch.Tensor, max_rows: int, grad: bool
) -> tuple[torch.Tensor, bool, int]:
    """The rows, whether z is as it was, and the longest chunk."""
    rows = cp.shard(z).clone()
    with torch.set_grad_enabled(grad):
        chunks = [(chunk, x.clone()) for chunk, x in cp.transposed_rows(rows, max_rows)]
    found = torch.full_like(rows, torch.nan)
    for chunk, x in chunks:
        found[chunk] = x
    return found, torch.equal(rows, cp.shard(z)), max(len(x) for _, x in chunks)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("max_rows", [1, 3, 100])
@pytest.mark.parametrize("size", SIZES)
def test_transposed_rows_come_in_chunks(size: int, max_rows: int, grad: bool) -> None:
    z = whole(size, 3)
    found, unchanged, longest = zip(*run(rows_of_transpose, size, z, max_rows, grad), strict=True)
    assert torch.equal(torch.cat(found), z.transpose(0, 1))
    assert all(unchanged)
    assert set(longest) == {min(max_rows, 7)}


def running_sums(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of rows in parts, in place."""
    sums = torch.cat(parts, 1).cumsum(1).split([part.shape[1] for part in parts], 1)
    return [part.copy_(new) for part, new in zip(parts, sums, strict=True)]


def mapped_columns(
    cp: ContextParallel, z: torch.Tensor, max_columns: int
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Rows of z^T are told apart by a running sum along them."""
    rows = cp.shard(z).clone()
    sizes = []

    def update(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes.append(len(parts[0]))
        return running_sums(parts)

    with torch.no_grad():
        return cp.map_columns(rows, update, max_columns), rows, sizes


@pytest.mark.parametrize("max_columns", [1, 3, 100])
@pytest.mark.parametrize("tail", [(), (3,), (16,)])
@pytest.mark.parametrize("size", SIZES)
def test_map_columns_updates_the_rows_of_the_transpose_in_place(
    size: int, tail: tuple[int, ...], max_columns: int
) -> None:
    z = whole(size, *tail).to(torch.float32)
    parts = run(mapped_columns, size, z, max_columns)
    torch.testing.assert_close(torch.cat([out for out, _, _ in parts]), z.cumsum(0))
    for out, rows, sizes in parts:
        assert torch.equal(out, rows)
        assert sum(sizes) == 7 and max(sizes) <= max_columns


def gathered(cp: ContextParallel, x: torch.Tensor, dim: int) -> torch.Tensor:
    return cp.all_gather(cp.shard(x, dim), dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_all_gather_returns_the_whole_on_every_rank(
    size: int, dim: int, dtype: torch.dtype
) -> None:
    x = whole(size, 2).to(dtype)
    for got in run(gathered, size, x, dim):
        assert torch.equal(got, x)


def gathered_by_chunks(
    cp: ContextParallel, x: torch.Tensor, buffer_bytes: int
) -> list[tuple[slice, int, torch.Tensor]]:
    with patch.object(cp.transport, "buffer_bytes", buffer_bytes):
        return [
            (chunk, p, block.clone()) for chunk, p, block in cp.pipelined_all_gather(cp.shard(x, 1))
        ]


def exchanged_by_chunks(
    cp: ContextParallel, x: torch.Tensor, buffer_bytes: int
) -> list[tuple[slice, int, torch.Tensor, torch.Tensor]]:
    rows = cp.shard(x, 1)
    with patch.object(cp.transport, "buffer_bytes", buffer_bytes):
        return [
            (chunk, p, part.clone(), block.clone())
            for chunk, p, part, block in cp.pipelined_all_to_all(rows, 2 * rows)
        ]


@pytest.mark.parametrize("buffer_bytes", [1, 1 << 30])
@pytest.mark.parametrize("size", SIZES)
def test_pipelined_exchanges_yield_every_chunk_of_every_rank(size: int, buffer_bytes: int) -> None:
    x = torch.arange(7 * 900, dtype=torch.float32).view(7, 30, 30)
    chunks = [slice(0, 7)] if size == 1 or buffer_bytes > 1 else [slice(n, n + 1) for n in range(7)]
    for rank, (blocks, pairs) in enumerate(
        zip(
            run(gathered_by_chunks, size, x, buffer_bytes),
            run(exchanged_by_chunks, size, x, buffer_bytes),
            strict=True,
        )
    ):
        visits = [(chunk, (rank + step) % size) for chunk in chunks for step in range(size)]
        assert (
            [(chunk, p) for chunk, p, _ in blocks]
            == [(chunk, p) for chunk, p, *_ in pairs]
            == visits
        )
        for (chunk, p), (*_, alone), (*_, part, block) in zip(visits, blocks, pairs, strict=True):
            theirs = x.chunk(size, 1)[p][chunk]
            assert torch.equal(alone, theirs) and torch.equal(block, 2 * theirs)
            assert torch.equal(part, theirs.chunk(size, 2)[rank])


def summed(cp: ContextParallel) -> torch.Tensor:
    return cp.all_reduce(torch.tensor([cp.rank + 1.0, 10.0]))


@pytest.mark.parametrize("size", SIZES)
def test_all_reduce_adds_over_ranks(size: int) -> None:
    for got in run(summed, size):
        assert got.tolist() == [size * (size + 1) / 2, 10.0 * size]


def smallest(cp: ContextParallel) -> int:
    return cp.all_reduce_min(10 - cp.rank, torch.device("cpu"))


@pytest.mark.parametrize("size", SIZES)
def test_all_reduce_min_is_the_smallest_of_the_ranks(size: int) -> None:
    assert run(smallest, size) == [11 - size] * size


def gradients(
    cp: ContextParallel,
    layer: Callable[..., torch.Tensor],
    z: torch.Tensor,
    weight: torch.Tensor,
    dy: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Each rank differentiates the loss of its own rows."""
    rows = cp.shard(z).clone().requires_grad_()
    w = weight.clone().requires_grad_()
    with patch.object(cp.transport, "buffer_bytes", 1):
        y = layer(rows, w, cp)
    (y * cp.shard(dy)).sum().backward()
    assert rows.grad is not None and w.grad is not None
    return {"y": y.detach(), "z": rows.grad, "w": w.grad}


def layer(z: torch.Tensor, w: torch.Tensor, cp: ContextParallel) -> torch.Tensor:
    """Made up to use every verb."""
    zt = cp.transpose(z * w)
    I = len(z)
    y = torch.empty_like(z)
    for chunk, p, block in cp.pipelined_all_gather(z * z):
        y[:, p * I + chunk.start : p * I + chunk.stop] = zt @ block.T
    token = cp.all_gather(y.mean(1))
    total = cp.all_reduce((z * w).sum(0))
    z = cp.map_columns(
        z, lambda parts: [chunk + (chunk * w).cumsum(1).tanh() for chunk in parts], 4
    )
    fixed = torch.ones_like(z).cumsum(1) * 0.1
    for a, b in ((z * w, z), (fixed, z), (z, fixed)):
        for _, _, part, block in cp.pipelined_all_to_all(
            torch.stack([a, 2 * a]), torch.stack([b, 10 * b])
        ):
            y = y + (part.mT @ block).sum(0)
    return y * cp.shard(token)[:, None].tanh() + zt * token.sin() + total.tanh() * z


def plain_layer(z: torch.Tensor, w: torch.Tensor, cp: ContextParallel) -> torch.Tensor:
    """`layer` for a whole z."""
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
    expected = gradients(ContextParallel(), plain_layer, z, w, dy)
    parts = run(gradients, size, layer, z, w, dy)
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), expected["y"])
    torch.testing.assert_close(torch.cat([part["z"] for part in parts]), expected["z"])
    torch.testing.assert_close(sum(part["w"] for part in parts), expected["w"])
