"""AF2Complex's piTM and interface-score: E[TM] over the residues of an interface
(FreshAirTonight/af2complex, `src/alphafold/common/confidence.py`; Gao 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.pae import BIN_CENTERS
from foldcp.metrics.ptm import tm_d0
from foldcp.metrics.reductions import RowValues

MIN_D0 = 0.5  # Å; below it, d0 is 0.02 Å for each residue
MAX_PAIRS = 1 << 19  # of tokens that are computed at a time, with 64 numbers each


@dataclass(frozen=True)
class InterfaceTm(RowValues):
    """Sums of E[TM] over the residues of the interface with each chain, divided by their number on
    both sides; 0 for rows that are not part of it or have no valid frame.
    """

    both: Float[Tensor, "R C"]  # over both sides
    other: Float[Tensor, "R C"]  # over the side of the other chain


@dataclass(frozen=True)
class _PairInterface:
    """The interface of a directed pair of chains, and E[TM] there."""

    rows: Int[np.ndarray, " r"]  # tokens of the first chain on this rank, ascending
    columns: Int[Tensor, " n"]  # tokens of the first chain, then of the second
    num_own: int  # of the first chain
    bins: Float[Tensor, " 64"]


class InterfaceTmSums:
    """E[TM] of this rank's rows at the interfaces with each chain."""

    def __init__(
        self, touching: Bool[np.ndarray, "T C"], rows: ChainRows, device: torch.device
    ) -> None:
        """`touching` are the tokens with an atom near one of each chain; whole on every rank."""
        self.rows = rows
        self.pairs: dict[tuple[int, int], _PairInterface] = {}
        shape = (rows.num_rows, rows.spans.num_chains)
        self.values = InterfaceTm(*torch.zeros((2, *shape), dtype=torch.float32, device=device))
        starts = rows.spans.starts
        members = {
            (a, int(b)): starts[a] + np.flatnonzero(touching[starts[a] : starts[a + 1], b])
            for a in range(rows.spans.num_chains)
            for b in np.flatnonzero(touching[starts[a] : starts[a + 1]].any(0))
        }
        for (a, b), own in members.items():
            columns = np.concatenate([own, members[b, a]])
            here = own[(own >= rows.first) & (own < rows.first + rows.num_rows)]
            self.pairs[a, b] = _PairInterface(
                rows=here,
                columns=torch.from_numpy(columns).to(device),
                num_own=len(own),
                bins=tm_of_interface(len(columns)).to(device),
            )

    def update(self, chunk: slice, probability: Float[Tensor, "r T 64"]) -> None:
        """Add the PAE distribution of a chunk of this rank's rows."""
        first = self.rows.first + chunk.start
        last = self.rows.first + chunk.stop
        for a, _ in self.rows.spans.rows(first, last - first):
            for b in range(self.rows.spans.num_chains):
                if (a, b) in self.pairs:
                    self._update_pair(first, last, (a, b), probability)

    def _update_pair(
        self, first: int, last: int, pair: tuple[int, int], probability: Float[Tensor, "r T 64"]
    ) -> None:
        interface = self.pairs[pair]
        start, stop = np.searchsorted(interface.rows, (first, last)).tolist()
        tokens = interface.rows[start:stop]
        num_residues = len(interface.columns)
        for part in split_range(len(tokens), MAX_PAIRS // num_residues):
            row = torch.from_numpy(tokens[part]).to(probability.device)
            tm = probability[row[:, None] - first, interface.columns] @ interface.bins
            own = row - self.rows.first
            other = tm[:, interface.num_own :].sum(1) / num_residues
            self.values.other[own, pair[1]] = other
            self.values.both[own, pair[1]] = tm.sum(1) / num_residues

    def of_frames(self, valid: Bool[Tensor, " R"]) -> InterfaceTm:
        """The values whose maxima are the scores."""
        mask = valid[:, None].float()
        return InterfaceTm(self.values.both * mask, self.values.other * mask)


def tm_of_interface(num_residues: int) -> Float[Tensor, " 64"]:
    """1 / (1 + (x / d0)^2) at the centre x of every PAE bin, with AF2Complex's d0 of so many
    residues: 0.02 Å each where the TM-score's falls below 0.5 Å, as it does up to 21.
    """
    d0 = float(tm_d0(num_residues))
    if d0 < MIN_D0:
        d0 = 0.02 * num_residues
    return torch.tensor(1 / (1 + (BIN_CENTERS / d0) ** 2), dtype=torch.float32)
