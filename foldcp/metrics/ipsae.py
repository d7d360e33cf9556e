"""ipSAE: the TM-score of pairs of tokens with a low predicted error (DunbrackLab/IPSAE, ipsae.py
v4; Dunbrack 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows, ChainSpans
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class Ipsae(RowValues):
    """ipSAE of each row against each chain, in the three choices of d0."""

    d0res: Float[Tensor, "R C"]  # of the pairs of the row
    d0chn: Float[Tensor, "R C"]  # of the two chains
    d0dom: Float[Tensor, "R C"]  # of the residues of the two chains that have any such pair


@dataclass(frozen=True, eq=False)
class D0Tables:
    """d0 in Å, [chain of the row, other chain]."""

    floor: Float[Tensor, "C C"]  # the least d0 of d0res
    chn: Float[Tensor, "C C"]
    of_size: Float[Tensor, " n"]  # for so many residues, without a floor

    @classmethod
    def of(cls, spans: ChainSpans) -> D0Tables:
        """The tables of a complex, in host memory."""
        floor = ipsae_floor(spans)
        sizes = np.arange(2 * spans.num_tokens + 1)  # a chain is its own partner, too
        tables = (
            floor,
            ipsae_d0(spans.pair_lengths, floor),
            ipsae_d0(sizes, np.zeros(len(sizes))),
        )
        return cls(*(torch.from_numpy(x).float() for x in tables))


def ipsae(
    pae: Float[Tensor, "R T"],
    least_of_row: Float[Tensor, "R C"],
    least_of_column: Float[Tensor, "C T"],
    rows: ChainRows,
    cutoffs: Float[Tensor, "K 1 1"],
    d0: D0Tables,
    cp: ContextParallel,
) -> tuple[Ipsae, ...]:
    """ipSAE of each of this rank's rows with each cutoff, from the expected PAE in Å and the least
    one of each row and chain, and of each chain and column; pairs strictly below the cutoff in Å
    count. Collective, as d0dom needs the rows of all ranks.
    """
    sizes = domain_sizes(least_of_row, least_of_column, rows, cutoffs, cp)
    dom = torch.maximum(d0.of_size[sizes], d0.floor)
    return ipsae_rows(pae, rows, d0, dom, cutoffs)


def ipsae_rows(
    pae: Float[Tensor, "R T"],
    rows: ChainRows,
    d0: D0Tables,
    dom: Float[Tensor, "K C C"],
    cutoffs: Float[Tensor, "K 1 1"],
) -> tuple[Ipsae, ...]:
    """ipSAE of each row i against each chain b with each cutoff, for d0res, d0chn and d0dom.

    Mean over the j of b with PAE[i, j] < cutoff of 1 / (1 + (PAE[i, j] / d0)^2), 0 without such j.
    """
    spans = rows.spans
    R, T = pae.shape
    C = spans.num_chains
    K = len(cutoffs)
    scores = pae.new_zeros((3, K, R, C))
    for chunk in split_range(R, CHUNK_PAIRS // (3 * T)):
        error = pae[chunk]
        chain = rows.row_chain[chunk]
        near = (error < cutoffs).float()
        count = spans.sum_columns(near.flatten(0, 1)).view(K, -1, C)
        floor = d0.floor[chain]
        # One by one: on a CPU the last bit of a power depends on the place in the tensor.
        of_row = torch.stack([ipsae_d0_by_row(of_cutoff, floor) for of_cutoff in count])
        scales = torch.stack([of_row, d0.chn[chain].expand_as(of_row), dom[:, chain]])
        relative = error / scales[..., rows.column_chain]
        tm = near / relative.square_().add_(1)
        sums = spans.sum_columns(tm.flatten(0, 2)).view(scales.shape)
        scores[:, :, chunk] = sums / count.clamp(min=1)
    return tuple(Ipsae(*of_cutoff) for of_cutoff in scores.unbind(1))


def domain_sizes(
    least_of_row: Float[Tensor, "R C"],
    least_of_column: Float[Tensor, "C T"],
    rows: ChainRows,
    cutoffs: Float[Tensor, "K 1 1"],
    cp: ContextParallel,
) -> Int[Tensor, "K C C"]:
    """[cutoff, a, b]: how many rows of a and columns of b have any error below the cutoff between a
    and b; of all ranks. Collective.
    """
    spans = rows.spans
    limits = cutoffs.flatten()
    near_rows = rows.sum((least_of_row[..., None] < limits).double()).int()
    near_columns = (least_of_column[..., None] < limits).int()
    both = cp.all_reduce(torch.cat([near_rows, near_columns], 1))
    near_rows, near_columns = both.split([spans.num_chains, spans.num_tokens], 1)
    num_columns = spans.sum_columns((near_columns > 0).int())
    return (near_rows + num_columns).movedim(-1, 0)


def ipsae_floor(spans: ChainSpans) -> Float[np.ndarray, "C C"]:
    """Least d0 of ipSAE in Å: 2 if either chain is a nucleic acid, else 1 (ipsae.py, `calc_d0`)."""
    nucleic = spans.mask("dna", "rna")
    return np.where(nucleic[:, None] | nucleic[None, :], 2.0, 1.0)


def ipsae_d0(
    num_residues: Int[np.ndarray, "*S"], floor: Float[np.ndarray, "*S"]
) -> Float[np.ndarray, "*S"]:
    """d0 of ipSAE for one number of residues per chain pair: the floor up to 27 (ipsae.py,
    `calc_d0`).
    """
    n = np.maximum(num_residues, 27.0)
    d0 = 1.24 * np.cbrt(n - 15.0) - 1.8
    return np.where(num_residues > 27, np.maximum(d0, floor), floor)


def ipsae_d0_by_row(
    num_partners: Float[Tensor, "R C"], floor: Float[Tensor, "R C"]
) -> Float[Tensor, "R C"]:
    """d0 of ipSAE for a number of residues per row: n at least 26, so 27 gives 1.04 and not the 1.0
    that `ipsae_d0` gives (ipsae.py, `calc_d0_array`).
    """
    n = num_partners.clamp(min=26.0)
    d0 = 1.24 * (n - 15.0) ** (1 / 3) - 1.8
    return torch.maximum(d0, floor)
