"""Probability of a contact, from the distogram."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

CONTACT_BINS = 20  # of 64: distances up to about 8 Å


def contact_probability(
    distogram_logits: Float[Tensor, "R N 64"],
) -> Float[Tensor, "R N"]:
    """Probability that two representative atoms are within about 8 Å: the first 20 of the 64 bins
    (Boltz, `ConfidenceHeads`).
    """
    return torch.softmax(distogram_logits, -1, dtype=torch.float32)[..., :CONTACT_BINS].sum(-1)
