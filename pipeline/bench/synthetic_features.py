"""Features of synthetic complexes."""

from __future__ import annotations

from dataclasses import replace

import torch

from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.pipeline.bench.measurements import synthetic_complex


def synthetic_features(num_tokens: int, msa_rows: int) -> Features:
    """Features of a synthetic complex with a random MSA."""
    features = featurize(synthetic_complex(num_tokens))
    shape = (msa_rows, num_tokens)
    generator = torch.Generator().manual_seed(0)
    msa = torch.randint(2, 22, shape, generator=generator).to(torch.int8)
    msa[0] = features.res_type
    deleted = torch.rand(shape, generator=generator) < 0.02
    return replace(
        features,
        msa=msa,
        has_deletion=deleted,
        deletion_value=0.3 * deleted,
        paired=torch.rand(shape, generator=generator) < 0.5,
        msa_mask=torch.ones(1, 1).expand(shape),
    )
