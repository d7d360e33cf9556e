"""What is recorded gives what is not, to the last bit: python -m pytest tests/test_replay_gpu.py -m gpu"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.checkpoint import load
from foldcp.features import featurize
from foldcp.model import pairformer, sampler
from foldcp.model.replay import Recorded, new_pool
from foldcp.predict import Prediction, Settings, fold
from tests.test_predict import complex_of_31_tokens

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def turned(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """z in place, s anew."""
    return z.add_(s.sum()), s.sin()


@torch.inference_mode()
def test_a_recording_follows_its_arguments() -> None:
    calls = 0

    def counted(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return turned(z, s)

    recorded = Recorded(counted, new_pool(), updated=1)
    for index in range(12):
        size = 100 + index % 2
        z, s = torch.randn(2, size, device="cuda").unbind()
        given = s.clone()
        expected = turned(z.clone(), s)
        got = recorded(z, s)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        assert torch.equal(s, given), "an argument that is not updated was written to"
    assert calls == 4, "once as written and once recorded for each of two sizes"


def predicted() -> Prediction:
    model = load("untrained:tiny", precision="mixed", device="cuda")
    settings = Settings(recycling=3, steps=5, samples=4, parallel_samples=2, precision="mixed", keep_pairs=True, seed=7)
    return fold(model, featurize(complex_of_31_tokens(), seed=7), settings)


def test_a_prediction_is_the_same_without_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    got = predicted()
    for module in (pairformer, sampler):
        monkeypatch.setattr(module, "recordable", lambda _: False)
    expected = predicted()
    assert np.array_equal(predicted().coords, expected.coords), "a prediction depends on its inputs alone"
    assert np.array_equal(got.coords, expected.coords)
    assert np.array_equal(np.stack(got.pae), np.stack(expected.pae))
    assert [x.confidence_score for x in got.scores] == [x.confidence_score for x in expected.scores]
