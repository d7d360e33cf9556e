"""Exchanges by messages and by copy engines deliver what is sent, on 1, 2, 3 and 5 ranks; also when
buffers are used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.transport import (
    NUM_BUFFERS,
    CopyEngineTransport,
    P2PTransport,
    RankDevice,
    Transport,
    _pack_offsets,
    same_node_p2p,
)
from tests.distributed.test_context_parallel import running_sums
from tests.support.distributed import device_of, run

SIZES = [2, 3, 5]


class SharedFiles:
    """Stands in for torch's handle of symmetric memory: a file for each rank, which all map."""

    def __init__(self, cp: ContextParallel, folder: str) -> None:
        self.rank = cp.rank
        self.world_size = cp.size
        self.folder = Path(folder)

    def get_buffer(self, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = torch.Size(shape).numel()
        return torch.from_file(
            str(self.folder / str(rank)), shared=True, size=size, dtype=dtype
        ).view(shape)

    def barrier(self) -> None:
        dist.barrier()


class LastMoment:
    """A stream that does nothing before somebody waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = [work]

    def wait(self) -> None:
        while self.work:
            self.work.pop()()


def messages(cp: ContextParallel) -> Transport:
    return P2PTransport(cp.rank, cp.size, cp.group)


class LateCopies(CopyEngineTransport):
    def _on_copy_stream(self, work: Callable[[], None]) -> Any:
        return LastMoment(work)


def make_buffers(folder: Path, size: int, buffer_bytes: int) -> str:
    for rank in range(size):
        (folder / str(rank)).write_bytes(bytes(NUM_BUFFERS * buffer_bytes))
    return str(folder)


def copy_engines(folder: str, buffer_bytes: int, cp: ContextParallel) -> Transport:
    memory = SharedFiles(cp, folder)
    return LateCopies(memory, buffer_bytes, None, messages(cp))  # type: ignore[arg-type]


def arrays_sent(step: int, source: int, to: int) -> list[torch.Tensor]:
    """Arrays that a rank sends to another, none contiguous: two for it alone, between them one for
    all.
    """
    generator = torch.Generator().manual_seed(1000 * step + source)
    own = torch.randn(3, 5, 5, 2, generator=generator)
    for_all = torch.randint(0, 99, (4 + step, 7), generator=generator)
    return [own[:, to].transpose(0, 1), for_all.T, own[0, to, ::2].to(torch.bfloat16)]


def all_arrived(
    cp: ContextParallel,
    make: Callable[[ContextParallel], Transport],
    max_in_flight: int,
    kind: str = "cpu",
) -> list[bool]:
    """Of ten exchanges, `max_in_flight` of them under way at a time."""
    by = make(cp)
    rank = cp.rank
    P = cp.size
    device = device_of(cp, kind)
    running: list[tuple[Any, ...]] = []
    correct: list[bool] = []

    def finish_oldest() -> None:
        recv, expected, end = running.pop(0)
        end()
        pairs = (
            pair for xs, ys in zip(recv, expected, strict=True) for pair in zip(xs, ys, strict=True)
        )
        correct.append(all(torch.equal(x, y) for x, y in pairs))

    for step in range(10):
        send = [
            [x.to(device) for x in arrays_sent(step, rank, (rank + s) % P)] for s in range(1, P)
        ]
        for arrays in send:
            arrays[1] = send[0][1]  # one in memory, too
        expected = [
            [x.to(device) for x in arrays_sent(step, (rank - s) % P, rank)] for s in range(1, P)
        ]
        recv = [
            [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in xs]
            for xs in expected
        ]
        running.append((recv, expected, by.exchange(send, recv)))
        if len(running) == max_in_flight:
            finish_oldest()
    while running:
        finish_oldest()
    return correct


@pytest.mark.parametrize("max_in_flight", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("buffer_bytes", [None, 1 << 16, 2600])
def test_exchange_delivers_what_is_sent(
    size: int, buffer_bytes: int | None, max_in_flight: int, tmp_path: Path
) -> None:
    """As messages, and by copy engines with buffers that some exchanges overflow or none."""
    make = (
        messages
        if buffer_bytes is None
        else partial(copy_engines, make_buffers(tmp_path, size, buffer_bytes), buffer_bytes)
    )
    assert run(all_arrived, size, make, max_in_flight) == [[True] * 10] * size


def collectives(cp: ContextParallel, z: torch.Tensor) -> list[torch.Tensor]:
    """Results of every collective that sends something, without gradients."""
    rows = cp.shard(z)
    with torch.no_grad():
        found = [
            cp.transpose(rows.clone()).clone(),
            cp.map_columns(rows.clone(), running_sums, 2),
        ]
        found += [chunk.clone() for _, chunk in cp.transposed_rows(rows, 3)]
        found += [block.clone() for _, _, block in cp.pipelined_all_gather(rows)]
        a = rows[..., 0].expand(3, -1, -1) + torch.arange(3)[:, None, None]
        found += [
            x.clone()
            for _, _, part, block in cp.pipelined_all_to_all(a, 2 * a)
            for x in (part, block)
        ]
    return found


def collectives_by_both(
    cp: ContextParallel, folder: str, buffer_bytes: int, z: torch.Tensor
) -> bool:
    outcomes = []
    for by in (messages(cp), copy_engines(folder, buffer_bytes, cp)):
        cp.transport = by
        by.buffer_bytes = buffer_bytes
        outcomes.append(collectives(cp, z))
    return all(torch.equal(x, y) for x, y in zip(*outcomes, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("buffer_bytes", [2048, 1 << 16])
def test_context_parallel_is_the_same_with_copy_engines(
    size: int, buffer_bytes: int, tmp_path: Path
) -> None:
    z = torch.randn(7 * size, 7 * size, 4, generator=torch.Generator().manual_seed(0))
    assert (
        run(collectives_by_both, size, make_buffers(tmp_path, size, buffer_bytes), buffer_bytes, z)
        == [True] * size
    )


class LateRank(LateCopies):
    """The last rank copies when the others have gone on."""

    def _on_copy_stream(self, work: Callable[[], None]) -> Any:
        def late() -> None:
            if self.rank == self.size - 1:
                time.sleep(0.1)
            work()

        return LastMoment(late)


def replayed(cp: ContextParallel, folder: str, buffer_bytes: int) -> list[bool]:
    """Of exchanges that all use the same buffer, as those of a graph do whenever it is replayed."""
    memory = SharedFiles(cp, folder)
    by = LateRank(memory, buffer_bytes, None, messages(cp))  # type: ignore[arg-type]
    correct = []
    for step in range(3):
        by.fence()
        by.num_exchanges = 0
        send = [[torch.full((5,), 10 * step + cp.rank)] for _ in range(1, cp.size)]
        recv = [[torch.zeros(5, dtype=torch.int64)] for _ in range(1, cp.size)]
        by.exchange(send, recv)()
        correct += [
            bool((x == 10 * step + (cp.rank - s) % cp.size).all()) for s, (x,) in enumerate(recv, 1)
        ]
    return correct


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_may_begin_after_a_fence(size: int, tmp_path: Path) -> None:
    folder = make_buffers(tmp_path, size, 4096)
    assert run(replayed, size, folder, 4096) == [[True] * 3 * (size - 1)] * size


def by_copy_engines(cp: ContextParallel) -> Transport:
    assert isinstance(cp.transport, CopyEngineTransport)
    return cp.transport


@pytest.mark.gpu
@pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="needs two CUDA devices that reach each other's memory",
)
@pytest.mark.parametrize("max_in_flight", [1, 2, 4])
def test_gpus_receive_what_is_sent(max_in_flight: int) -> None:
    size = torch.cuda.device_count()
    assert (
        run(all_arrived, size, by_copy_engines, max_in_flight, "cuda", kind="cuda")
        == [[True] * 10] * size
    )


@pytest.mark.parametrize(
    ("what", "others", "expected"),
    [
        ("each on a GPU of one machine", {}, True),
        ("on two machines", {"host": "b"}, False),
        ("on one GPU", {"uuid": "GPU-0"}, False),
        ("each sees its own GPU alone", {"index": 0}, False),
        ("one has it disabled", {"p2p_disabled": True}, False),
    ],
)
def test_same_node_p2p_needs_one_machine_and_a_gpu_each(
    what: str, others: dict[str, Any], expected: bool
) -> None:
    devices = [RankDevice("a", index, f"GPU-{index}", 1 << 20, False) for index in range(3)]
    assert same_node_p2p([*devices[:2], replace(devices[2], **others)]) is expected, what


def test_pack_offsets_packs_once_what_several_peers_read() -> None:
    one = torch.zeros(3)
    for_all = torch.zeros(100)
    sources, offsets, num_bytes = _pack_offsets([[one, for_all], [torch.zeros(3), for_all]])
    assert [x.shape[0] for x in sources.values()] == [3, 100, 3]
    assert offsets == [[0, 256], [768, 256]] and num_bytes == 1024
