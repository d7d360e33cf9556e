"""Chains as spans of tokens, and sums, minima and maxima over the tokens of each chain.

Shapes: T tokens without padding, C chains, R rows of this rank without padding, K any number of
values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from foldcp.features.layout import Layout

# Loops over rows compute this many pairs of tokens at a time, of 4 to 12 bytes each.
CHUNK_PAIRS = 1 << 22


@dataclass(frozen=True)
class ChainSpans:
    """The chains as spans of tokens: plain numbers, so cutting a tensor by chain never waits for
    its device.

    Padding follows the last span, so results by chain never include it.
    """

    starts: tuple[int, ...]  # [C + 1]: first token of each chain, then T
    kinds: tuple[str, ...]  # [C] protein, dna, rna or ligand

    @classmethod
    def of(cls, layout: Layout) -> ChainSpans:
        """The spans of a layout, whose tokens are ordered by chain."""
        chain = layout.token_chain
        assert np.all(np.diff(chain) >= 0), "tokens must be ordered by chain"
        lengths = np.bincount(chain, minlength=len(layout.chain_kinds))
        assert np.all(lengths > 0), "a chain has no tokens"
        starts = np.cumsum([0, *lengths])
        return cls(tuple(starts.tolist()), tuple(layout.chain_kinds))

    @property
    def num_tokens(self) -> int:
        """T, without padding."""
        return self.starts[-1]

    @property
    def num_chains(self) -> int:
        """C."""
        return len(self.kinds)

    @property
    def lengths(self) -> Int[np.ndarray, " C"]:
        """Number of tokens of each chain."""
        return np.diff(self.starts)

    @property
    def pair_lengths(self) -> Int[np.ndarray, "C C"]:
        """Number of tokens of each pair of chains; on the diagonal, of the one chain."""
        lengths = self.lengths
        pairs = np.add.outer(lengths, lengths)
        np.fill_diagonal(pairs, lengths)
        return pairs

    def mask(self, *kinds: str) -> Bool[np.ndarray, " C"]:
        """A mask of the chains of these kinds."""
        return np.array([kind in kinds for kind in self.kinds])

    def token_chain(self, device: torch.device) -> Int[Tensor, " T"]:
        """The chain of each token."""
        chain = np.repeat(np.arange(self.num_chains), self.lengths)
        return torch.from_numpy(chain).to(device)

    def sum_columns(self, x: Shaped[Tensor, "R T *K"]) -> Shaped[Tensor, "R C *K"]:
        """Sums over the columns of each chain: one kernel a chain, and the same order of
        summation every time.
        """
        sums = [x[:, columns].sum(1) for columns in self._slices()]
        return torch.stack(sums, 1)

    def min_columns(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R C"]:
        """Minima over the columns of each chain."""
        minima = [x[:, columns].amin(1) for columns in self._slices()]
        return torch.stack(minima, 1)

    def rows(self, first: int, num_rows: int) -> Iterator[tuple[int, slice]]:
        """(chain, its rows) among the rows first .. first + num_rows - 1, counted from `first`."""
        for chain, tokens in enumerate(self._slices()):
            start = max(tokens.start, first)
            stop = min(tokens.stop, first + num_rows)
            if start < stop:
                yield chain, slice(start - first, stop - first)

    def _slices(self) -> list[slice]:
        return list(map(slice, self.starts[:-1], self.starts[1:]))


class ChainRows:
    """This rank's rows of the N x N arrays without padding, by chain.

    Rows are numbered from `first`; a rank may hold rows of no, some or all chains, and R = 0 where
    it holds nothing but padding.
    """

    def __init__(self, spans: ChainSpans, first: int, num_rows: int, device: torch.device) -> None:
        self.spans = spans
        self.first = first
        self.num_rows = num_rows  # R
        self.column_chain: Int[Tensor, " T"] = spans.token_chain(device)
        self.row_chain: Int[Tensor, " R"] = self.own(self.column_chain)
        chains = torch.arange(spans.num_chains, device=device)
        # 1 at the rows of each chain
        self.row_masks: Float[Tensor, "C R"] = (chains[:, None] == self.row_chain).double()

    def own(self, x: Shaped[Tensor, "T *K"]) -> Shaped[Tensor, "R *K"]:
        """This rank's rows of a tensor that is whole on every rank; a view."""
        return x[self.first : self.first + self.num_rows]

    def slices(self) -> Iterator[tuple[int, slice]]:
        """(chain, its rows) of every chain that has rows here."""
        return self.spans.rows(self.first, self.num_rows)

    def max(self, x: Float[Tensor, "R C *K"]) -> Float[Tensor, "C C *K"]:
        """Maxima over the rows of each chain; -inf for chains without rows here."""
        shape = (self.spans.num_chains, *x.shape[1:])
        chain = self.row_chain.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
        return x.new_full(shape, -torch.inf).scatter_reduce_(0, chain, x, "amax")

    def sum(self, x: Float[Tensor, "R C *K"]) -> Float[Tensor, "C C *K"]:
        """Sums in double precision over the rows of each chain; 0 for chains without rows here.

        As a matrix product: one kernel for all chains, and the same order every time. A value that
        is not finite is in the sums of all chains.
        """
        return (self.row_masks @ x.double().flatten(1)).unflatten(1, x.shape[1:])

    def min_rows(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "C T"]:
        """Minima over the rows of each chain; inf for chains without rows here."""
        least = x.new_full((self.spans.num_chains, x.shape[1]), torch.inf)
        for chain, rows in self.slices():
            least[chain] = x[rows].amin(0)
        return least
