"""Contacts of the rows with each chain in the predicted structure, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.geometry import distances
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.reductions import RowValues

CONTACT_CUTOFF = 8.0  # Å, strictly below
MAX_NUMBERS = 2 * CHUNK_PAIRS  # at a time: a pair has one for each sum
PAE_SCALE = 10.0  # Å, of pDockQ2


@dataclass(frozen=True)
class ContactSums(RowValues):
    """Sums over the tokens of each other chain that are in contact with the row."""

    contacts: Float[Tensor, "R C"]  # number
    plddt: Float[Tensor, "R C"]  # of the row, 0..1
    tm: Float[Tensor, "R C"]  # 1 / (1 + (PAE / 10 Å)^2)


@dataclass(frozen=True)
class Contacts(RowValues):
    """Contacts of each row with each other chain; 0 with its own."""

    of_alphas: ContactSums  # between CA
    of_tokens: ContactSums
    # of the contacts of tokens
    pae: Float[Tensor, "R C"]  # Å
    clis: tuple[Float[Tensor, "R C"], ...]  # for each cutoff, (cutoff - PAE) / cutoff of those
    clia: tuple[Float[Tensor, "R C"], ...]  # with a lower PAE, and their number
    touching: Float[Tensor, "R C"]  # 1 where there is any
    touching_plddt: Float[Tensor, "R C"]  # the row's pLDDT there, else 0


def chain_contacts(
    points: Float[Tensor, "S T 3"],
    pae: Float[Tensor, "R T"],
    plddt: Float[Tensor, " T"],
    rows: ChainRows,
    cutoffs: Float[Tensor, "K 1 1"],
) -> tuple[Contacts, Float[Tensor, "R C"]]:
    """Contacts of this rank's rows, pairs of tokens of different chains whose points are nearer
    than 8 Å; and the number of contacts between the last of the points.

    `points` in Å are CA, those of tokens, and others if they differ; the expected PAE and its
    cutoffs are in Å. Sums are in single precision. A token whose point is not finite is in contact
    with none; a PAE that is not, in contact or not, makes the sums of PAE with its column's chain
    NaN.
    """
    spans = rows.spans
    own = points[:, rows.first : rows.first + rows.num_rows]
    own_plddt = rows.own(plddt)[:, None]
    num_counts = len(points)
    num_sums = num_counts + 5 + 2 * len(cutoffs)
    shape = (num_sums, -1, spans.num_chains)
    sums = pae.new_zeros((num_sums, rows.num_rows, spans.num_chains))
    for chunk in split_range(rows.num_rows, MAX_NUMBERS // (num_sums * spans.num_tokens)):
        near = distances(own[:, chunk], points) < CONTACT_CUTOFF
        near &= rows.row_chain[chunk, None] != rows.column_chain
        terms = torch.cat(_terms(near.float(), pae[chunk], own_plddt[chunk], cutoffs))
        sums[:, chunk] = spans.sum_columns(terms.flatten(0, 1)).view(shape)
    counts = sums[:num_counts]
    alpha_plddts, plddts, alpha_tms, tms, pae_sums = sums[num_counts : num_counts + 5]
    clis, clia = sums[num_counts + 5 :].split(len(cutoffs))
    touching = (counts[1] > 0).float()
    contacts = Contacts(
        of_alphas=ContactSums(counts[0], alpha_plddts, alpha_tms),
        of_tokens=ContactSums(counts[1], plddts, tms),
        pae=pae_sums,
        clis=clis.unbind(),
        clia=clia.unbind(),
        touching=touching,
        touching_plddt=touching * own_plddt,
    )
    return contacts, counts[-1]


def _terms(
    near: Float[Tensor, "S r T"],
    pae: Float[Tensor, "r T"],
    plddt: Float[Tensor, "r 1"],
    cutoffs: Float[Tensor, "K 1 1"],
) -> list[Float[Tensor, "n r T"]]:
    """The terms of the sums: of all points, of CA and tokens, of tokens, and of tokens for each
    cutoff; `near` is 1 for pairs in contact, else 0.
    """
    both = near[:2]
    tokens = near[1:2]
    tm = 1 / (1 + (pae / PAE_SCALE) ** 2)
    below = cutoffs - pae
    return [
        near,
        both * plddt,
        both * tm,
        tokens * pae,
        tokens * below.clamp(min=0) / cutoffs,
        tokens * (below > 0),
    ]
