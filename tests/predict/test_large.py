"""Predictions of complexes whose sampler has no memory for its biases, and whose pair
representation is copied to host memory, as on a GPU that hardly holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch

from foldcp import predict
from foldcp.checkpoint.load import load
from foldcp.complex import Chain, Complex
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion import conditioning
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group
from tests.support.distributed import run

# Both ranks share each sample.
SETTINGS = Settings(recycling=0, steps=3, samples=2, parallel_samples=1, keep_pairs=True)
FEATURES = featurize(
    Complex("two", tuple(Chain(name, "protein", "MKTAYIAKQRQIS") for name in "AB"))
)


def folded(cp: ContextParallel, fold: Callable[[Boltz2], Prediction], large: bool) -> Prediction:
    model = load("untrained:tiny", cp=cp)
    if not large:
        return fold(model)
    with (
        patch.object(conditioning, "available_bytes", lambda device: 0),
        patch.object(predict, "goes_to_host", lambda z: True),
    ):
        return fold(model)


def alone(model: Boltz2) -> Prediction:
    return fold(model, FEATURES, SETTINGS)


def in_a_group(model: Boltz2) -> Prediction:
    return fold_group(model, [FEATURES], SETTINGS)[0]


@pytest.mark.parametrize(("size", "way"), [(1, alone), (2, alone), (1, in_a_group)])
def test_too_little_memory_changes_no_prediction(
    size: int, way: Callable[[Boltz2], Prediction]
) -> None:
    expected = folded(ContextParallel(), alone, large=False)
    for got in run(folded, size, way, True):
        for name in ("coords", "plddt", "pae", "pde"):
            np.testing.assert_allclose(
                getattr(got, name), getattr(expected, name), rtol=1e-3, atol=1e-3, err_msg=name
            )


def test_the_pairs_of_the_trunk_outlive_the_sampler() -> None:
    """As a copy, or, where a gradient may be wanted, as they are."""
    model = load("untrained:tiny")
    with torch.inference_mode():
        trunk = model.trunk(FEATURES, 0)
    arguments = (trunk.s, trunk.z.clone(), model.rel_pos, FEATURES)
    with patch.object(conditioning, "available_bytes", lambda device: 0):
        compute = partial(model.diffusion_conditioning, *arguments)
        with torch.inference_mode():
            found = compute()
        assert not torch.equal(arguments[1], trunk.z)
        found.restore_z()
        assert torch.equal(arguments[1], trunk.z)
        compute()
        assert torch.equal(arguments[1], trunk.z)
