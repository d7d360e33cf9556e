"""B-factor loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.training.example import Truth
from foldcp.training.losses.partial import precise

MAX_BFACTOR = 100.0  # Å², of the last bin's lower bound
KNOWN = 1e-5  # Å²; no B-factor is smaller


def bfactor_loss(
    own_logits: Float[Tensor, "I B"],
    truth: Truth,
    features: Features,
    cp: ContextParallel,
) -> Float[Tensor, ""]:
    """This rank's part of the cross-entropy of the B-factors of representative atoms.

    The mean over the tokens that have one; `own_logits` are of this rank's tokens. Source: Boltz,
    `bfactor_loss_fn`.
    """
    num_bins = own_logits.shape[-1]
    bounds = torch.linspace(0, MAX_BFACTOR, num_bins - 1, device=own_logits.device)
    bfactors = truth.bfactors[features.rep_atom] * features.token_mask
    known = (bfactors > KNOWN).to(precise(own_logits))
    bins = torch.bucketize(bfactors, bounds.to(bfactors))
    log_prob = F.log_softmax(precise(own_logits), -1)
    errors = -log_prob.gather(-1, cp.shard(bins)[:, None])[:, 0]
    return (errors * cp.shard(known)).sum() / (known.sum() + 1e-5)
