"""Scores of pairs of chains from PAE and contacts, of this rank's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.interface.contact_pairs import contact_pairs
from foldcp.metrics.interface.lis import (
    ContactInteraction,
    LocalInteraction,
    contact_interaction,
    local_interaction,
)
from foldcp.metrics.interface.scores import CutoffScores
from foldcp.metrics.ipsae import Ipsae, ipsae


def cutoff_scores(
    points: Float[Tensor, "T 3"],
    pae: Float[Tensor, "R T"],
    least_pae: Float[Tensor, "R C"],
    rows: ChainRows,
    cutoffs: Sequence[int],
    cp: ContextParallel,
) -> dict[int, CutoffScores]:
    """The scores of each PAE cutoff in Å. Collective."""
    chunks: dict[int, list[ContactInteraction]] = {cutoff: [] for cutoff in cutoffs}
    for pairs in contact_pairs(points, pae, rows):
        for cutoff in cutoffs:
            chunks[cutoff].append(contact_interaction(pairs, cutoff))
    scores = {}
    for cutoff in cutoffs:
        in_contact = ContactInteraction.cat(chunks[cutoff], rows.spans.num_chains, pae.device)
        scores[cutoff] = _cutoff_scores(
            rows.spans,
            ipsae(pae, least_pae, rows, cutoff, cp).max_by_chain(rows, cp),
            local_interaction(pae, rows, cutoff).sum_by_chain(rows, cp),
            in_contact.sum_by_chain(rows, cp),
        )
    return scores


def _cutoff_scores(
    spans: ChainSpans, ipsae: Ipsae, all_pairs: LocalInteraction, in_contact: ContactInteraction
) -> CutoffScores:
    """The scores of one cutoff, from maxima and sums over all rows."""
    polymer = ~spans.mask("ligand")
    has_score = np.logical_and.outer(polymer, polymer) & ~np.eye(spans.num_chains, dtype=bool)

    def defined(x: Float[np.ndarray, "C C"]) -> Float[np.ndarray, "C C"]:
        return np.where(has_score, x, np.nan)

    lia = all_pairs.lia.numpy()
    clia = in_contact.clia.numpy()
    lis = all_pairs.lis.numpy() / np.maximum(lia, 1)
    clis = in_contact.clis.numpy() / np.maximum(clia, 1)
    return CutoffScores(
        ipsae_d0res=defined(ipsae.d0res.numpy()).astype(np.float32),
        ipsae_d0chn=defined(ipsae.d0chn.numpy()).astype(np.float32),
        ipsae_d0dom=defined(ipsae.d0dom.numpy()).astype(np.float32),
        lis=defined(lis).astype(np.float32),
        lia=defined(lia),
        clis=defined(clis).astype(np.float32),
        clia=defined(clia),
        ilis=defined(np.sqrt(lis * clis)).astype(np.float32),
    )
