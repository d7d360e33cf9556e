"""Sums over the pairs of tokens in contact, by chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.geometry import distances
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.contacts import CONTACT_CUTOFF

MAX_NUMBERS = 2 * CHUNK_PAIRS  # at a time: a pair has one for each sum
PAE_SCALE = 10.0  # Å, of pDockQ2


@dataclass(frozen=True, eq=False)
class ContactSums:
    """[a, b]: sums over the pairs of a token of chain a and one of chain b that are in contact; and
    for each cutoff of PAE over those of them below it.
    """

    contacts: Float[np.ndarray, "C C"]  # number
    plddt: Float[np.ndarray, "C C"]  # of the token of a, 0..1
    pae: Float[np.ndarray, "C C"]  # Å
    tm: Float[np.ndarray, "C C"]  # 1 / (1 + (PAE / 10 Å)^2)
    clis: Float[np.ndarray, "K C C"]  # (cutoff - PAE) / cutoff
    clia: Float[np.ndarray, "K C C"]  # number


def contact_sums(
    points: Float[Tensor, "T 3"],
    pae: Float[Tensor, "R T"],
    plddt: Float[Tensor, " T"],
    rows: ChainRows,
    cutoffs: Sequence[int],
    cp: ContextParallel,
) -> ContactSums:
    """The sums over the pairs of different chains whose points are nearer than 8 Å, from the
    expected PAE of this rank's rows and the cutoffs in Å; equal on every rank. Collective.

    In single precision over the columns of each row, and in double precision over the rows. A token
    whose point is not finite is in contact with none; a PAE that is not, in contact or not, makes
    the sums of PAE with its column's chain NaN.
    """
    spans = rows.spans
    own = rows.own(points)
    own_plddt = rows.own(plddt)[:, None]
    num_sums = 4 + 2 * len(cutoffs)
    shape = (-1, num_sums, spans.num_chains)
    sums = pae.new_zeros((rows.num_rows, spans.num_chains, num_sums))
    for chunk in split_range(rows.num_rows, MAX_NUMBERS // (num_sums * spans.num_tokens)):
        near = distances(own[chunk], points) < CONTACT_CUTOFF
        near &= rows.row_chain[chunk, None] != rows.column_chain
        terms = torch.stack(_terms(near.float(), pae[chunk], own_plddt[chunk], cutoffs), 1)
        sums[chunk] = spans.sum_columns(terms.flatten(0, 1)).view(shape).transpose(1, 2)
    by_rank = cp.all_gather(rows.sum(sums)[None])
    whole = by_rank.sum(0).movedim(-1, 0).cpu().numpy()
    return ContactSums(*whole[:4], clis=whole[4::2], clia=whole[5::2])


def _terms(
    near: Float[Tensor, "r T"],
    pae: Float[Tensor, "r T"],
    plddt: Float[Tensor, "r 1"],
    cutoffs: Sequence[int],
) -> list[Float[Tensor, "r T"]]:
    """The terms of the sums, in the order of `ContactSums`, cutoff by cutoff; `near` is 1 for pairs
    in contact, else 0.
    """
    terms = [near, near * plddt, near * pae, near / (1 + (pae / PAE_SCALE) ** 2)]
    for cutoff in cutoffs:
        below = cutoff - pae
        terms += [near * below.clamp(min=0) / cutoff, near * (below > 0)]
    return terms
