"""What travels arrives, by messages and from shelves, on 1, 2, 3 and 5 ranks; also when shelves
are used again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from foldcp.carriers import SHELVES, Carrier, Fetches, Messages, Seat, _layout, together
from foldcp.rows import Rows
from tests.ranks import device_of, run
from tests.test_rows import running_sums

SIZES = [2, 3, 5]


class SharedFiles:
    """Stands in for torch's handle of symmetric memory: a file for each rank, which all map."""

    def __init__(self, rows: Rows, folder: str) -> None:
        self.rank = rows.rank
        self.world_size = rows.size
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


def messages(rows: Rows) -> Carrier:
    return Messages(rows.rank, rows.size, rows.group)


class LateFetches(Fetches):
    def _beside(self, work: Callable[[], None]) -> Any:
        return LastMoment(work)


def put_up_shelves(folder: Path, size: int, room: int) -> str:
    for rank in range(size):
        (folder / str(rank)).write_bytes(bytes(SHELVES * room))
    return str(folder)


def from_shelves(folder: str, room: int, rows: Rows) -> Carrier:
    memory = SharedFiles(rows, folder)
    # type: ignore[arg-type]  (the stream is not used)
    return LateFetches(memory, room, None, messages(rows))


def numbers(journey: int, source: int, to: int) -> list[torch.Tensor]:
    """What a rank sends to another, none of it packed: two arrays for it alone, between them one
    for all.
    """
    generator = torch.Generator().manual_seed(1000 * journey + source)
    own = torch.randn(3, 5, 5, 2, generator=generator)
    for_all = torch.randint(0, 99, (4 + journey, 7), generator=generator)
    return [own[:, to].transpose(0, 1), for_all.T, own[0, to, ::2].to(torch.bfloat16)]


def all_arrived(
    rows: Rows, how: Callable[[Rows], Carrier], at_once: int, kind: str = "cpu"
) -> list[bool]:
    """Of ten journeys, `at_once` of them under way at a time."""
    by = how(rows)
    rank = rows.rank
    P = rows.size
    device = device_of(rows, kind)
    flying: list[tuple[Any, ...]] = []
    right: list[bool] = []

    def land() -> None:
        arriving, expected, end = flying.pop(0)
        end()
        pairs = (
            pair
            for xs, ys in zip(arriving, expected, strict=True)
            for pair in zip(xs, ys, strict=True)
        )
        right.append(all(torch.equal(x, y) for x, y in pairs))

    for journey in range(10):
        leaving = [
            [x.to(device) for x in numbers(journey, rank, (rank + s) % P)] for s in range(1, P)
        ]
        for arrays in leaving:
            arrays[1] = leaving[0][1]  # one in memory, too
        expected = [
            [x.to(device) for x in numbers(journey, (rank - s) % P, rank)] for s in range(1, P)
        ]
        arriving = [
            [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in xs]
            for xs in expected
        ]
        flying.append((arriving, expected, by.start(leaving, arriving)))
        if len(flying) == at_once:
            land()
    while flying:
        land()
    return right


@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", [None, 1 << 16, 2600])
def test_what_leaves_arrives(size: int, room: int | None, at_once: int, tmp_path: Path) -> None:
    """As messages; from shelves; and from shelves of which some journeys need more."""
    how = (
        messages
        if room is None
        else partial(from_shelves, put_up_shelves(tmp_path, size, room), room)
    )
    assert run(all_arrived, size, how, at_once) == [[True] * 10] * size


def verbs(rows: Rows, z: torch.Tensor) -> list[torch.Tensor]:
    """What every verb that sends something gives without gradients."""
    mine = rows.mine(z)
    with torch.no_grad():
        found = [
            rows.transpose(mine.clone()).clone(),
            rows.by_columns(mine.clone(), running_sums, 2),
        ]
        found += [block.clone() for _, _, block in rows.stream(mine)]
        a = mine[..., 0].expand(3, -1, -1) + torch.arange(3)[:, None, None]
        found += [x.clone() for _, _, part, block in rows.across(a, 2 * a) for x in (part, block)]
    return found


def verbs_by_both(rows: Rows, folder: str, room: int, z: torch.Tensor) -> bool:
    outcomes = []
    for by in (messages(rows), from_shelves(folder, room, rows)):
        rows.carrier = by
        by.room = room
        outcomes.append(verbs(rows, z))
    return all(torch.equal(x, y) for x, y in zip(*outcomes, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", [2048, 1 << 16])
def test_rows_are_the_same_from_shelves(size: int, room: int, tmp_path: Path) -> None:
    z = torch.randn(7 * size, 7 * size, 4, generator=torch.Generator().manual_seed(0))
    assert run(verbs_by_both, size, put_up_shelves(tmp_path, size, room), room, z) == [True] * size


def fetches(rows: Rows) -> Carrier:
    assert isinstance(rows.carrier, Fetches)
    return rows.carrier


@pytest.mark.gpu
@pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="needs two CUDA devices that reach each other's memory",
)
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_gpus_fetch_what_leaves(at_once: int) -> None:
    size = torch.cuda.device_count()
    assert run(all_arrived, size, fetches, at_once, "cuda", kind="cuda") == [[True] * 10] * size


@pytest.mark.parametrize(
    ("what", "others", "expected"),
    [
        ("each on a GPU of one machine", {}, True),
        ("on two machines", {"host": "b"}, False),
        ("on one GPU", {"gpu": "GPU-0"}, False),
        ("each sees its own GPU alone", {"index": 0}, False),
        ("one wants no part in it", {"aloof": True}, False),
    ],
)
def test_ranks_fetch_where_they_reach_each_other(
    what: str, others: dict[str, Any], expected: bool
) -> None:
    seats = [Seat("a", index, f"GPU-{index}", 1 << 20, False) for index in range(3)]
    assert together([*seats[:2], replace(seats[2], **others)]) is expected, what


def test_what_goes_to_several_ranks_is_laid_out_once() -> None:
    one = torch.zeros(3)
    for_all = torch.zeros(100)
    laid, places, end = _layout([[one, for_all], [torch.zeros(3), for_all]])
    assert [x.shape[0] for x in laid.values()] == [3, 100, 3]
    assert places == [[0, 256], [768, 256]] and end == 1024
