"""actifpTM: ipTM over the residues that likely touch the other chain (ColabFold, `extra_ptm.py`,
`get_actifptm_contacts`).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows


def actifptm(
    tm: Float[Tensor, "I N"],
    likely: Bool[Tensor, "R C"],
    valid: Bool[Tensor, " R"],
    rows: ChainRows,
    cp: ContextParallel,
) -> Float[Tensor, "R C"]:
    """The mean E[TM] over the tokens of each chain that likely touch the row's chain; 0 for a row
    that does not likely touch it or has no valid frame. Their maxima are actifpTM.

    From E[TM] with d0 of all tokens (padded), and which rows likely touch which chains. Collective.
    """
    spans = rows.spans
    padded = tm.new_zeros((len(tm), spans.num_chains))
    padded[: rows.num_rows] = likely
    touches = cp.all_gather(padded)[: spans.num_tokens]
    partners = touches.T.contiguous()  # [a, j]: whether token j likely touches chain a
    counts = spans.sum_columns(partners)
    values = tm.new_zeros((rows.num_rows, spans.num_chains))
    max_rows = CHUNK_PAIRS // spans.num_tokens
    for chunk in split_range(rows.num_rows, max_rows):
        chain = rows.row_chain[chunk]
        terms = tm[chunk, : spans.num_tokens] * partners[chain]
        values[chunk] = spans.sum_columns(terms) / counts[chain].clamp(min=1)
    counted = likely & valid[:, None]
    counted.scatter_(1, rows.row_chain[:, None], False)
    return torch.where(counted, values, 0)
