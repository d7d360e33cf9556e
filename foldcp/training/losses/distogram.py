"""Distogram loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.example import Truth
from foldcp.training.losses.partial import chunked_sum, precise

# Å
MIN_DISTANCE = 2.0
MAX_DISTANCE = 22.0


def distogram_loss(
    head: nn.Linear,
    z: Float[Tensor, "I N Z"],
    truth: Truth,
    features: Features,
    cp: ContextParallel,
    budget: ChunkBudget,
) -> Float[Tensor, ""]:
    """This rank's part of the cross-entropy of the distances between representative atoms.

    The mean over pairs of different tokens that are resolved, of the head's logits of z + z^T; the
    target is the mean over conformers. Source: AlphaFold 3, section 4.4; Boltz, `distogram_loss`.
    """
    I, N, Z = z.shape
    first = cp.first_row(N)
    transposed = cp.transpose(z.clone())
    known = truth.resolved[features.rep_atom] * features.token_mask
    points = truth.conformers[:, features.rep_atom]
    num_bins = head.out_features
    bounds = torch.linspace(MIN_DISTANCE, MAX_DISTANCE, num_bins - 1, device=z.device)
    columns = torch.arange(N, device=z.device)

    def of_rows(rows: slice) -> Float[Tensor, ""]:
        tokens = slice(first + rows.start, first + rows.stop)
        mask = known[tokens, None] * known * (columns[tokens, None] != columns)
        log_prob = F.log_softmax(precise(head(z[rows] + transposed[rows])), -1)
        bins = torch.bucketize(distances(points[:, tokens], points), bounds.to(points))
        errors = -log_prob.gather(-1, bins.movedim(0, -1)).mean(-1)
        return (errors * mask).sum()

    bytes_per_row = N * (4 * Z + 6 * num_bins + 8 * len(points)) * 4
    error = chunked_sum(
        of_rows, budget.chunks(I, bytes_per_row, z.device), precise(z.new_zeros(()))
    )
    num_known = known.sum()
    num_pairs = num_known.square() - known.square().sum()
    return error / (num_pairs + 1e-5)
