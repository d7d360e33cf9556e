"""Contact probability, against the sum over bins in double precision."""

from __future__ import annotations

import numpy as np
import torch

from foldcp.model.distogram import contact_probability
from tests.support.metrics_reference import softmax


def test_contact_probability_sums_the_first_twenty_bins() -> None:
    logits = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    expected = softmax(logits.double().numpy())[..., :20].sum(-1)
    np.testing.assert_allclose(contact_probability(logits), expected, rtol=1e-5)
