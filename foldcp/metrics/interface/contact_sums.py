"""Sums over the pairs of tokens in contact, by chain."""

from __future__ import annotations

from collections.abc import Callable
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

MAX_NUMBERS = 2 * CHUNK_PAIRS  # at a time: a pair has one for each term


@dataclass(frozen=True)
class ContactRows:
    """Some of this rank's rows, and which tokens of other chains each is in contact with."""

    near: Float[Tensor, "r T"]  # 1 in contact, else 0
    pae: Float[Tensor, "r T"]  # Å
    plddt: Float[Tensor, "r 1"]  # of the row, 0..1


Terms = Callable[[ContactRows], list[Tensor]]


def sum_over_contacts(
    points: Float[Tensor, "T 3"],
    pae: Float[Tensor, "R T"],
    plddt: Float[Tensor, " T"],
    rows: ChainRows,
    num_terms: int,
    terms: Terms,
    cp: ContextParallel,
) -> Float[np.ndarray, "K C C"]:
    """[term, chain of the row, of the column]: sums of the K `terms`, which are 0 where `near` is,
    over the pairs whose points are nearer than 8 Å; equal on every rank. Collective.

    In single precision over the columns of each row, and in double precision over the rows. A token
    whose point is not finite is in contact with none; a PAE that is not, in contact or not, makes
    the sums of PAE with its column's chain NaN.
    """
    spans = rows.spans
    own = rows.own(points)
    own_plddt = rows.own(plddt)[:, None]
    shape = (-1, num_terms, spans.num_chains)
    sums = pae.new_zeros((rows.num_rows, spans.num_chains, num_terms))
    max_rows = MAX_NUMBERS // (num_terms * spans.num_tokens)
    for chunk in split_range(rows.num_rows, max_rows):
        near = distances(own[chunk], points) < CONTACT_CUTOFF
        near &= rows.row_chain[chunk, None] != rows.column_chain
        found = torch.stack(terms(ContactRows(near.float(), pae[chunk], own_plddt[chunk])), 1)
        sums[chunk] = spans.sum_columns(found.flatten(0, 1)).view(shape).transpose(1, 2)
    by_rank = cp.all_gather(rows.sum(sums)[None])
    return by_rank.sum(0).movedim(-1, 0).cpu().numpy()
