"""Asynchronous exchanges between ranks: messages, or copy engines over symmetric memory.

An exchange sends different tensors to every other rank and receives theirs, while something else is
computed. Whoever starts one gets `wait`, which makes what is computed next wait for what it
receives.
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

MESSAGE_BYTES = 256 << 20  # sent in one exchange of messages

NUM_BUFFERS = 3
BUFFER_FRACTION = 512  # a staging buffer takes one part of so many of a GPU's memory
ALIGNMENT = 256  # bytes, of tensors in a staging buffer

T = TypeVar("T")

# To send, [s] goes to the rank s + 1 steps on; received, [s] is from the rank s + 1 steps back.
TensorsByPeer = list[list[Tensor]]


@runtime_checkable
class Transport(Protocol):
    """Exchanges tensors among the ranks of a group.

    All ranks must start the same exchanges in the same order.
    """

    rank: int
    size: int
    buffer_bytes: int  # that should be sent in one exchange, the same on all ranks
    reserved_bytes: int  # of the device, beside those that torch counts

    def exchange(self, send: TensorsByPeer, recv: TensorsByPeer) -> Callable[[], None]:
        """Start to send tensors of any strides, and to fill contiguous ones with what the others
        send; the `wait` of this exchange, to be called once. Until then, none may be written to.
        """
        ...

    def fence(self) -> None:
        """Part the exchanges before, all waited for, from those after, which then depend on none of
        them: a CUDA graph with exchanges begins and ends with a fence. Collective.
        """
        ...


class P2PTransport:
    """Point-to-point messages of NCCL or gloo.

    On a GPU they take multiprocessors, and wait until some are free.
    """

    buffer_bytes = MESSAGE_BYTES
    reserved_bytes = 0

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self.size = size
        self.group = group

    def exchange(self, send: TensorsByPeer, recv: TensorsByPeer) -> Callable[[], None]:
        packed = [[x.contiguous() for x in tensors] for tensors in send]
        operations: list[dist.P2POp] = []
        for step, (outgoing, incoming) in enumerate(zip(packed, recv, strict=True), 1):
            to = (self.rank + step) % self.size
            source = (self.rank - step) % self.size
            operations += [_message(dist.isend, x, to, self.group) for x in outgoing]
            operations += [_message(dist.irecv, x, source, self.group) for x in incoming]
        works = dist.batch_isend_irecv(operations)

        def wait() -> None:
            for work in works:
                work.wait()
            packed.clear()  # must be kept until here

        return wait

    def fence(self) -> None:
        """Messages share no buffers."""


def _message(
    send_or_receive: Callable[..., Any], x: Tensor, peer: int, group: dist.ProcessGroup | None
) -> dist.P2POp:
    """The sending or receiving of a tensor; the peer is counted within the group."""
    return dist.P2POp(send_or_receive, as_bytes(x), group=group, group_peer=peer)


class CopyEngineTransport:
    """Copies by the GPUs' copy engines, through staging buffers in symmetric memory.

    A rank packs what it sends into its buffer, which all ranks of the machine can read, and each
    copies its part from there, on a stream of its own: a matrix product that holds every
    multiprocessor does not delay copy engines.

    Three buffers take turns. A rank that starts exchange n has waited for its copies of n - 2, and
    waits until all ranks have started n; hence when it starts n + 1, in the buffer of n - 2, no
    rank reads that any more.

        compute stream  | pack n | barrier |  compute chunk n - 1  | wait n | compute chunk n
        copy stream                        | copy n from the peers |
    """

    def __init__(
        self,
        memory: Any,
        buffer_bytes: int,
        stream: torch.cuda.Stream,
        fallback: P2PTransport,
    ) -> None:
        """`memory` is torch's handle of symmetric memory: `NUM_BUFFERS` * `buffer_bytes` on every
        rank. Copies run on `stream`; tensors that do not fit a buffer use the `fallback`.
        """
        self.memory = memory
        self.rank = fallback.rank
        self.size = fallback.size
        self.stream = stream
        self.fallback = fallback
        self.buffer_bytes = buffer_bytes
        self.reserved_bytes = NUM_BUFFERS * buffer_bytes
        self.buffers = [
            memory.get_buffer(p, (NUM_BUFFERS, buffer_bytes), torch.uint8) for p in range(self.size)
        ]
        self.copy_events: list[torch.cuda.Event] = []  # of the last two exchanges
        self.num_exchanges = 0

    def exchange(self, send: TensorsByPeer, recv: TensorsByPeer) -> Callable[[], None]:
        sources, offsets, num_bytes = _pack_offsets(send)
        if num_bytes > self.buffer_bytes:
            return self.fallback.exchange(send, recv)
        turn = self.num_exchanges % NUM_BUFFERS
        self.num_exchanges += 1
        for offset, x in sources.items():
            _view_at(self.buffers[self.rank][turn], offset, x).copy_(x)
        if len(self.copy_events) == NUM_BUFFERS - 1:
            self.copy_events.pop(0).wait()
        self.memory.barrier()

        def copy_from_peers() -> None:
            for step, tensors in enumerate(recv, 1):
                buffer = self.buffers[(self.rank - step) % self.size][turn]
                for offset, x in zip(offsets[step - 1], tensors, strict=True):
                    x.copy_(_view_at(buffer, offset, x))

        self.copy_events.append(self._on_copy_stream(copy_from_peers))
        return self.copy_events[-1].wait

    def fence(self) -> None:
        self.copy_events.clear()
        self.memory.barrier()  # no rank reads any buffer now

    def _on_copy_stream(self, work: Callable[[], None]) -> torch.cuda.Event:
        """Run `work` on the copy stream, after the current stream's work; the event of its end."""
        done = torch.cuda.Event()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            work()
            done.record()
        return done


@dataclass(frozen=True)
class RankDevice:
    """The device of a rank."""

    host: str
    index: int  # of its GPU, among those that it sees
    uuid: str  # of its GPU, the same for every process
    buffer_bytes: int  # of its staging buffer
    p2p_disabled: bool  # by the user


def same_node_p2p(devices: list[RankDevice]) -> bool:
    """Whether all ranks are on one machine, each on its own GPU, and see the same list of GPUs."""
    size = len(devices)
    return (
        len({device.host for device in devices}) == 1
        and len({device.index for device in devices}) == size
        and len({device.uuid for device in devices}) == size
        and not any(device.p2p_disabled for device in devices)
    )


def make_transport(
    rank: int, size: int, group: dist.ProcessGroup, device: torch.device
) -> Transport:
    """Copy engines where all ranks are on one machine and reach each other's memory.

    Messages elsewhere, and where NCCL_P2P_DISABLE is set. Collective.
    """
    messages = P2PTransport(rank, size, group)
    if device.type != "cuda":
        return messages
    properties = torch.cuda.get_device_properties(device)
    own = RankDevice(
        host=socket.gethostname(),
        index=device.index,
        uuid=str(properties.uuid),
        buffer_bytes=properties.total_memory // BUFFER_FRACTION // ALIGNMENT * ALIGNMENT,
        p2p_disabled=os.environ.get("NCCL_P2P_DISABLE", "0") != "0",
    )
    devices = _all_gather_object(own, size, group)
    others = [other.index for other in devices if other.index != device.index]
    reachable = same_node_p2p(devices) and all(
        torch.cuda.can_device_access_peer(device, other) for other in others
    )
    if not all(_all_gather_object(reachable, size, group)):
        return messages
    import torch.distributed._symmetric_memory as symmetric

    buffer_bytes = min(other.buffer_bytes for other in devices)
    memory = symmetric.empty((NUM_BUFFERS, buffer_bytes), dtype=torch.uint8, device=device)
    handle = symmetric.rendezvous(memory, group)
    stream = torch.cuda.Stream(device, priority=-1)
    return CopyEngineTransport(handle, buffer_bytes, stream, messages)


def _all_gather_object(own: T, size: int, group: dist.ProcessGroup) -> list[T]:
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, own, group)
    return everyone


def as_bytes(x: Tensor) -> Tensor:
    """The memory of a contiguous tensor: bytes are sent, so every backend sends every dtype."""
    return x.reshape(-1).view(torch.uint8)


def _pack_offsets(
    send: TensorsByPeer,
) -> tuple[dict[int, Tensor], list[list[int]], int]:
    """The tensors of a staging buffer by their offsets; the offsets of what each peer reads; the
    bytes of all. What several peers read is packed once.
    """
    sources: dict[int, Tensor] = {}
    known: dict[tuple[object, ...], int] = {}
    offsets: list[list[int]] = []
    num_bytes = 0
    for tensors in send:
        offsets.append([])
        for x in tensors:
            identity = (x.data_ptr(), x.shape, x.stride())
            if identity not in known:
                known[identity] = num_bytes
                sources[num_bytes] = x
                num_bytes += -(-x.nbytes // ALIGNMENT) * ALIGNMENT
            offsets[-1].append(known[identity])
    return sources, offsets, num_bytes


def _view_at(buffer: Tensor, offset: int, x: Tensor) -> Tensor:
    """The part of a buffer that begins at `offset`, as a tensor like x."""
    return buffer[offset : offset + x.nbytes].view(x.dtype).view(x.shape)
