"""Contacts between chains in the predicted structure, and the pLDDT of the tokens that have any."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.geometry import distances
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.reductions import RowValues

CONTACT_CUTOFF = 8.0  # Å between representative atoms, strictly below


@dataclass(frozen=True)
class Contacts(RowValues):
    """Contacts of each row with each other chain; 0 with its own."""

    contacts: Float[Tensor, "R C"]  # tokens of the chain that are in contact with the row
    touching: Float[Tensor, "R C"]  # 1 where there is any
    touching_plddt: Float[Tensor, "R C"]  # the row's pLDDT there, else 0


def chain_contacts(
    points: Float[Tensor, "T 3"], plddt: Float[Tensor, " T"], rows: ChainRows
) -> Contacts:
    """Contacts of this rank's rows; `points` are the representative atoms in Å."""
    counts = contact_counts(points, rows)
    counts.scatter_(1, rows.row_chain[:, None], 0.0)
    touching = (counts > 0).float()
    own_plddt = rows.own(plddt)[:, None]
    return Contacts(counts, touching, touching * own_plddt)


def contact_counts(points: Float[Tensor, "T 3"], rows: ChainRows) -> Float[Tensor, "R C"]:
    """Tokens of each chain nearer than 8 Å to each of this rank's rows; [row, own chain] counts the
    token itself. `points` are the representative atoms in Å.
    """
    spans = rows.spans
    own = rows.own(points)
    shape = (rows.num_rows, spans.num_chains)
    counts = points.new_zeros(shape, dtype=torch.float32)
    max_rows = CHUNK_PAIRS // spans.num_tokens
    for chunk in split_range(rows.num_rows, max_rows):
        near = distances(own[chunk], points) < CONTACT_CUTOFF
        counts[chunk] = spans.sum_columns(near.float())
    return counts
