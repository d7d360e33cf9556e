"""How arrays travel from rank to rank beside what is computed: as messages, or fetched by copy
engines.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

MESSAGE_BYTES = 256 << 20  # that leave at a time, as messages

SHELVES = 3
SHARE = 512  # a shelf takes one part of so many of a GPU's memory
ALIGNMENT = 256  # bytes, of arrays on a shelf

T = TypeVar("T")
Parcels = list[
    list[Tensor]
]  # number s leaves for the rank s + 1 steps on, or arrives from that s + 1 steps back
Land = Callable[[], None]  # makes what is computed next wait for what arrives; to be called once


@runtime_checkable
class Carrier(Protocol):
    """Takes arrays between the ranks of a group, all of which begin the same journeys in the
    same order.
    """

    room: int  # bytes that should leave at a time, the same on all ranks
    held: int  # bytes of the device, beside those that torch counts

    def start(self, leaving: Parcels, arriving: Parcels) -> Land:
        """Send arrays of any strides to the other ranks, and fill contiguous ones with what these
        send. Neither may be written to before they land.
        """
        ...


class Messages:
    """Point-to-point messages of NCCL or gloo. On a GPU they take multiprocessors, and wait
    until some are free.
    """

    room = MESSAGE_BYTES
    held = 0

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self.size = size
        self.group = group

    def start(self, leaving: Parcels, arriving: Parcels) -> Land:
        packed = [[x.contiguous() for x in out] for out in leaving]
        steps: list[dist.P2POp] = []
        for s, (out, into) in enumerate(zip(packed, arriving, strict=True), 1):
            steps += [
                dist.P2POp(dist.isend, as_bytes(x), (self.rank + s) % self.size, self.group)
                for x in out
            ]
            steps += [
                dist.P2POp(dist.irecv, as_bytes(x), (self.rank - s) % self.size, self.group)
                for x in into
            ]
        works = dist.batch_isend_irecv(steps)

        def land() -> None:
            for work in works:
                work.wait()
            packed.clear()  # somebody has to hold it until here

        return land


class Fetches:
    """What leaves is laid on a shelf that all ranks of a machine can reach, and they fetch it from
    there. Copy engines do so on a stream of their own: a matrix product that holds every
    multiprocessor does not hold them up.

    A shelf serves every third journey. Whoever begins journey n has waited for what it fetched on n
    - 2, and waits for all to begin n; hence who begins n + 1 knows that nobody reads any more where
    it lays over the parcels of n - 2.
    """

    def __init__(
        self, memory: Any, room: int, stream: torch.cuda.Stream, otherwise: Carrier
    ) -> None:
        """`memory` is torch's handle of symmetric memory, `SHELVES` * room bytes on every rank;
        they are fetched on `stream`. What has no room on a shelf goes `otherwise`.
        """
        self.memory = memory
        self.stream = stream
        self.otherwise = otherwise
        self.room = room
        self.held = SHELVES * room
        self.shelves = [
            memory.get_buffer(p, (SHELVES, room), torch.uint8) for p in range(memory.world_size)
        ]
        self.fetched: list[torch.cuda.Event] = []  # on the last two journeys
        self.journeys = 0

    def start(self, leaving: Parcels, arriving: Parcels) -> Land:
        laid, places, end = _layout(leaving)
        if end > self.room:
            return self.otherwise.start(leaving, arriving)
        rank = self.memory.rank
        P = self.memory.world_size
        shelves = [shelf[self.journeys % SHELVES] for shelf in self.shelves]
        self.journeys += 1
        for place, x in laid.items():
            _at(shelves[rank], place, x).copy_(x)
        if len(self.fetched) == SHELVES - 1:
            self.fetched.pop(0).wait()
        self.memory.barrier()

        def fetch() -> None:
            for s, into in enumerate(arriving):
                for place, x in zip(places[s], into, strict=True):
                    x.copy_(_at(shelves[(rank - s - 1) % P], place, x))

        self.fetched.append(self._beside(fetch))
        return self.fetched[-1].wait

    def _beside(self, work: Callable[[], None]) -> torch.cuda.Event:
        """Do this while the present stream goes on; the event that it is done."""
        done = torch.cuda.Event()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
            done.record()
        return done


@dataclass(frozen=True)
class Seat:
    """Where a rank computes."""

    host: str
    index: int  # of its GPU, among those that it sees
    gpu: str  # which one that is, whoever looks
    room: int  # bytes of its shelf
    aloof: bool  # its memory is not to be reached


def together(seats: list[Seat]) -> bool:
    """Are all ranks on one machine, each on a GPU of its own and by the same list of GPUs?"""
    size = len(seats)
    return (
        len({seat.host for seat in seats}) == 1
        and len({seat.index for seat in seats}) == size
        and len({seat.gpu for seat in seats}) == size
        and not any(seat.aloof for seat in seats)
    )


def carrier(rank: int, size: int, group: dist.ProcessGroup, device: torch.device) -> Carrier:
    """Fetches where all ranks are on one machine and reach each other's memory; messages elsewhere,
    and where NCCL_P2P_DISABLE is set. All ranks call this together.
    """
    messages = Messages(rank, size, group)
    if device.type != "cuda":
        return messages
    properties = torch.cuda.get_device_properties(device)
    room = properties.total_memory // SHARE // ALIGNMENT * ALIGNMENT
    aloof = os.environ.get("NCCL_P2P_DISABLE", "0") != "0"
    seats = _told(
        Seat(socket.gethostname(), device.index, str(properties.uuid), room, aloof),
        size,
        group,
    )
    others = [seat.index for seat in seats if seat.index != device.index]
    reached = together(seats) and all(
        torch.cuda.can_device_access_peer(device, other) for other in others
    )
    if not all(_told(reached, size, group)):
        return messages
    import torch.distributed._symmetric_memory as symmetric

    room = min(seat.room for seat in seats)
    memory = symmetric.empty((SHELVES, room), dtype=torch.uint8, device=device)
    handle = symmetric.rendezvous(memory, group)
    stream = torch.cuda.Stream(device, priority=-1)
    return Fetches(handle, room, stream, messages)


def _told(own: T, size: int, group: dist.ProcessGroup) -> list[T]:
    """What every rank says, on every rank."""
    said: list[Any] = [None] * size
    dist.all_gather_object(said, own, group)
    return said


def as_bytes(x: Tensor) -> Tensor:
    """Memory of a contiguous tensor: what travels has no type, so every backend moves every
    type.
    """
    return x.reshape(-1).view(torch.uint8)


def _layout(leaving: Parcels) -> tuple[dict[int, Tensor], list[list[int]], int]:
    """What lies on a shelf, by where it begins; where each of the arrays is found; where the last
    one ends. What goes to several ranks lies there once.
    """
    laid: dict[int, Tensor] = {}
    known: dict[tuple[object, ...], int] = {}
    places: list[list[int]] = []
    end = 0
    for out in leaving:
        places.append([])
        for x in out:
            same = (x.data_ptr(), x.shape, x.stride())
            if same not in known:
                known[same], laid[end] = end, x
                end += -(-x.nbytes // ALIGNMENT) * ALIGNMENT
            places[-1].append(known[same])
    return laid, places, end


def _at(shelf: Tensor, place: int, x: Tensor) -> Tensor:
    """The part of a shelf that begins at `place`, as an array like x."""
    return shelf[place : place + x.nbytes].view(x.dtype).view(x.shape)
