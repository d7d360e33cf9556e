"""CUDA graphs give what eager execution gives, to the last bit.

On a GPU: python -m pytest tests/model/test_cuda_graph_gpu.py -m gpu
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.config import UNTRAINED
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion import sampler
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, new_pool
from foldcp.model.trunk import pairformer
from foldcp.predict import Prediction, Settings, fold
from tests.predict.test_predict import complex_of_31_tokens
from tests.support.distributed import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


# More layers than one graph holds.
DEEP = replace(UNTRAINED["tiny"], pairformer_blocks=6, confidence_blocks=6)


@pytest.fixture(autouse=True)
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNTRAINED, "deep", DEEP)


def rotated(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """z in place, s anew."""
    return z.add_(s.sum()), s.sin()


@torch.inference_mode()
def test_cuda_graph_wrapper_follows_its_arguments() -> None:
    calls = 0

    def counted(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return rotated(z, s)

    wrapper = CUDAGraphWrapper(counted, new_pool(), num_inplace_args=1)
    for index in range(12):
        size = 100 + index % 2
        z, s = torch.randn(2, size, device="cuda").unbind()
        before = s.clone()
        expected = rotated(z.clone(), s)
        got = wrapper(z, s)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        assert torch.equal(s, before), "an argument that is not updated in place was written to"
    assert calls == 4, "once as warmup and once captured, for each of two sizes"


def predicted(
    model: Boltz2 | None = None,
    num_tokens: int = 31,
    cp: ContextParallel | None = None,
    parallel_samples: int = 2,
) -> Prediction:
    """The complex, or its last tokens, by a new network unless one is given."""
    device = torch.device("cuda", cp.rank if cp else 0)
    model = model or load("untrained:deep", precision="mixed", device=device, cp=cp)
    settings = Settings(
        recycling=3,
        steps=5,
        samples=4,
        parallel_samples=parallel_samples,
        precision="mixed",
        keep_pairs=True,
        seed=7,
    )
    whole = complex_of_31_tokens()
    first = replace(whole.chains[0], sequence=whole.chains[0].sequence[31 - num_tokens :])
    return fold(
        model,
        featurize(replace(whole, chains=(first, *whole.chains[1:])), seed=7),
        settings,
    )


def test_fold_of_the_next_complex_of_a_size_is_not_that_of_the_one_before() -> None:
    model = load("untrained:deep", precision="mixed", device="cuda")
    for num_tokens in (31, 29, 31):  # 32 with padding
        got = predicted(model, num_tokens)
        expected = predicted(None, num_tokens)
        assert got.coords.shape == expected.coords.shape
        assert np.array_equal(got.coords, expected.coords)
        assert np.array_equal(np.stack(got.pae), np.stack(expected.pae))


def test_fold_is_the_same_without_cuda_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got = predicted()
    for module in (pairformer, sampler):
        monkeypatch.setattr(module, "can_capture", lambda _: False)
    expected = predicted()
    assert np.array_equal(predicted().coords, expected.coords), (
        "a prediction depends on its inputs alone"
    )
    assert np.array_equal(got.coords, expected.coords)
    assert np.array_equal(np.stack(got.pae), np.stack(expected.pae))
    assert [x.confidence_score for x in got.scores] == [x.confidence_score for x in expected.scores]


def with_and_without_graphs(cp: ContextParallel) -> bool:
    """Whether a rank's predictions, the second of which replays the first one's graphs, are those
    without graphs: where it has samples of its own, and where they are drawn one at a time and all
    ranks share them.
    """
    UNTRAINED["deep"] = DEEP
    model = load("untrained:deep", precision="mixed", device=f"cuda:{cp.rank}", cp=cp)
    drawn = (2, 2, 1, 1, 2)
    found = [predicted(model, cp=cp, parallel_samples=number) for number in drawn]
    for module in (pairformer, sampler):
        module.can_capture = lambda _: False  # type: ignore[attr-defined]
    expected = {number: predicted(cp=cp, parallel_samples=number) for number in (1, 2)}
    return all(
        np.array_equal(got.coords, expected[number].coords)
        and np.array_equal(np.stack(got.pae), np.stack(expected[number].pae))
        for number, got in zip(drawn, found, strict=True)
    )


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_fold_on_several_gpus_is_the_same_without_cuda_graphs() -> None:
    size = torch.cuda.device_count()
    assert run(with_and_without_graphs, size, kind="cuda") == [True] * size
