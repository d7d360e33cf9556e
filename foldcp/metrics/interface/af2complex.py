"""AF2Complex's piTM and interface-score: E[TM] over the residues of an interface
(FreshAirTonight/af2complex, `src/alphafold/common/confidence.py`; Gao 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.metrics.chains import ChainRows
from foldcp.metrics.pae import BIN_CENTERS
from foldcp.metrics.ptm import tm_d0
from foldcp.metrics.reductions import RowValues, to_device

MIN_D0 = 0.5  # Å; below it, d0 is 0.02 Å for each residue
MAX_PAIRS = 1 << 19  # of tokens that are computed at a time, with 64 numbers each


@dataclass(frozen=True)
class InterfaceTm(RowValues):
    """Sums of E[TM] over the residues of the interface with each chain, divided by their number on
    both sides; 0 for rows that are not part of it.
    """

    both: Float[Tensor, "R C"]  # over both sides
    other: Float[Tensor, "R C"]  # over the side of the other chain

    def of_frames(self, valid: Bool[Tensor, " R"]) -> InterfaceTm:
        """The same, 0 for rows without a valid frame."""
        mask = valid[:, None].float()
        return InterfaceTm(self.both * mask, self.other * mask)


@dataclass(frozen=True)
class _Interfaces:
    """The K interfaces of directed pairs of chains, and their rows on this rank, which are I items
    in the order of their tokens.
    """

    columns: Int[Tensor, " L"]  # of all: tokens of the first chain, then of the second
    start: Int[Tensor, " K"]  # where those of each begin
    num_columns: Int[Tensor, " K"]
    num_own: Int[Tensor, " K"]  # of the first chain
    other: Int[Tensor, " K"]  # the second chain
    bins: Float[Tensor, "K 64"]
    token: Int[Tensor, " I"]
    interface: Int[Tensor, " I"]
    token_on_host: Int[np.ndarray, " I"]
    end_on_host: Int[np.ndarray, " I"]  # how many columns the items up to each have


class InterfaceTmSums:
    """E[TM] of this rank's rows at the interfaces with each chain."""

    def __init__(
        self, touching: Bool[np.ndarray, "T C"], rows: ChainRows, device: torch.device
    ) -> None:
        """`touching` are the tokens with an atom near one of each chain; whole on every rank."""
        self.rows = rows
        shape = (rows.num_rows, rows.spans.num_chains)
        self.values = InterfaceTm(*torch.zeros((2, *shape), dtype=torch.float32, device=device))
        self.interfaces = _interfaces(touching, rows, device)

    def update(self, chunk: slice, probability: Float[Tensor, "r T 64"]) -> None:
        """Add the PAE distribution of a chunk of this rank's rows."""
        found = self.interfaces
        if found is None:
            return
        first = self.rows.first + chunk.start
        last = self.rows.first + chunk.stop
        start, stop = np.searchsorted(found.token_on_host, (first, last)).tolist()
        while start < stop:
            before = int(found.end_on_host[start - 1]) if start else 0
            fitting = np.searchsorted(found.end_on_host, before + MAX_PAIRS, side="right")
            end = min(stop, max(start + 1, int(fitting)))
            number = int(found.end_on_host[end - 1]) - before
            self._update_items(found, slice(start, end), number, first, probability)
            start = end

    def _update_items(
        self,
        found: _Interfaces,
        items: slice,
        number: int,
        first: int,
        probability: Float[Tensor, "r T 64"],
    ) -> None:
        """The values of some items, which have so many columns in all.

        E[TM] is linear in the probabilities: they are added up over each side of an interface, in
        the same order every time.
        """
        token = found.token[items]
        interface = found.interface[items]
        num_columns = found.num_columns[interface]
        item = torch.repeat_interleave(num_columns, output_size=number)
        shift = found.start[interface] - (num_columns.cumsum(0) - num_columns)
        column = found.columns[torch.arange(number, device=token.device) + shift[item]]
        of_pairs = probability[token[item] - first, column]
        num_own = found.num_own[interface]
        lengths = torch.stack([num_own, num_columns - num_own], 1).flatten()
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        sums = torch.segment_reduce(of_pairs, "sum", offsets=offsets, unsafe=True)
        tm = (sums.unflatten(0, (-1, 2)) * found.bins[interface, None]).sum(-1)
        own, other = (tm / num_columns[:, None]).unbind(1)
        where = (token - self.rows.first, found.other[interface])
        self.values.both[where] = own + other
        self.values.other[where] = other


def _interfaces(
    touching: Bool[np.ndarray, "T C"], rows: ChainRows, device: torch.device
) -> _Interfaces | None:
    """All interfaces; None without any."""
    starts = rows.spans.starts
    members = {
        (a, int(b)): starts[a] + np.flatnonzero(touching[starts[a] : starts[a + 1], b])
        for a in range(rows.spans.num_chains)
        for b in np.flatnonzero(touching[starts[a] : starts[a + 1]].any(0))
    }
    if not members:
        return None
    columns = [np.concatenate([own, members[b, a]]) for (a, b), own in members.items()]
    num_columns = np.array([len(of_both) for of_both in columns])
    last_row = rows.first + rows.num_rows
    here = [own[(own >= rows.first) & (own < last_row)] for own in members.values()]
    token = np.concatenate(here)
    interface = np.repeat(np.arange(len(here)), [len(of_rank) for of_rank in here])
    order = np.argsort(token, kind="stable")
    token, interface = token[order], interface[order]
    found = _Interfaces(
        columns=torch.from_numpy(np.concatenate(columns)),
        start=torch.from_numpy(np.cumsum(num_columns) - num_columns),
        num_columns=torch.from_numpy(num_columns),
        num_own=torch.tensor([len(own) for own in members.values()]),
        other=torch.tensor([b for _, b in members]),
        bins=torch.stack([tm_of_interface(size) for size in num_columns.tolist()]),
        token=torch.from_numpy(token),
        interface=torch.from_numpy(interface),
        token_on_host=token,
        end_on_host=np.cumsum(num_columns[interface]),
    )
    return to_device(found, device)


def tm_of_interface(num_residues: int) -> Float[Tensor, " 64"]:
    """1 / (1 + (x / d0)^2) at the centre x of every PAE bin, with AF2Complex's d0 of so many
    residues: 0.02 Å each where the TM-score's falls below 0.5 Å, as it does up to 21.
    """
    d0 = float(tm_d0(num_residues))
    if d0 < MIN_D0:
        d0 = 0.02 * num_residues
    return torch.tensor(1 / (1 + (BIN_CENTERS / d0) ** 2), dtype=torch.float32)
