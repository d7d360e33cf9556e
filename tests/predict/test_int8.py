"""Triangle multiplications whose products are kept in 8 bits, and whole predictions with them, on
1, 2 and 3 ranks.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.checkpoint.precision import set_precision
from foldcp.complex import Chain, Complex
from foldcp.config import TINY, Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import set_compute_dtype
from foldcp.model.trunk.triangle import TriangleMultiplication
from foldcp.predict import Prediction, Settings, fold
from tests.model.test_pairs import norm
from tests.support.distributed import run
from tests.support.memory import LiveBytes

# tokens, of which the last 7 are padding; channels
N = 138
C = 24
MASK = torch.tensor([1.0] * (N - 7) + [0.0] * 7)
bf16 = torch.bfloat16


def multiplication(cp: ContextParallel, incoming: bool, chunk_bytes: int) -> TriangleMultiplication:
    generator = torch.Generator().manual_seed(3)
    module = TriangleMultiplication(C, cp, ChunkBudget(chunk_bytes), incoming)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module


def pairs() -> Tensor:
    return torch.randn(N, N, C, generator=torch.Generator().manual_seed(7)).to(bf16)


def update(cp: ContextParallel, incoming: bool, keep_int8: bool, chunk_bytes: int = 0) -> Tensor:
    """What a multiplication adds to this rank's rows, in bf16."""
    module = multiplication(cp, incoming, chunk_bytes)
    set_compute_dtype(module, bf16)
    module.keep_int8 = keep_int8
    z = cp.shard(pairs())
    with torch.inference_mode():
        return module(z.clone(), MASK).float() - z.float()


@cache
def expected(incoming: bool) -> Tensor:
    """By the equation, in float64."""
    module = multiplication(ContextParallel(), incoming, 0).double()
    with torch.inference_mode():
        z = pairs().double()
        x = norm(z, module.norm_in)
        mask = (MASK[:, None] * MASK)[..., None]
        a, b = (module.p_in(x) * module.g_in(x).sigmoid() * mask).chunk(2, -1)
        product = torch.einsum("kic,kjc->ijc" if incoming else "ikc,jkc->ijc", a, b)
        gate = module.g_out(x).sigmoid()
        return module.p_out(norm(product, module.norm_out)) * gate


def error(got: Tensor, expected: Tensor) -> float:
    """Of the pairs of tokens."""
    real = slice(0, N - 7)
    got, expected = got[real, real].double(), expected[real, real]
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("incoming", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_products_in_8_bits_are_nearly_as_exact(size: int, incoming: bool) -> None:
    exact = expected(incoming)
    in_bf16 = error(update(ContextParallel(), incoming, keep_int8=False), exact)
    got = torch.cat(run(update, size, incoming, True))
    assert in_bf16 < error(got, exact) < 1.1 * in_bf16


def test_chunks_of_channels_change_nothing() -> None:
    whole, parts = (update(ContextParallel(), False, True, size) for size in (1 << 30, 1 << 20))
    assert error(parts, whole.double()) < 1e-3


def test_nothing_as_large_as_the_pairs_is_in_memory_beside_them() -> None:
    module = multiplication(ContextParallel(), False, chunk_bytes=1 << 17)
    set_compute_dtype(module, bf16)
    peaks = {}
    for keep_int8 in (False, True):
        module.keep_int8 = keep_int8
        z = pairs()
        with torch.inference_mode(), LiveBytes() as counted:
            module(z, MASK)
        peaks[keep_int8] = counted.peak / z.nbytes
    assert peaks[False] > 2
    assert peaks[True] < 1.9  # z, half of it in 8 bits, and chunks


def test_where_a_gradient_is_wanted_products_stay_as_they_are() -> None:
    grads = []
    for keep_int8 in (False, True):
        module = multiplication(ContextParallel(), False, 0)
        module.keep_int8 = keep_int8
        z = pairs().float().requires_grad_()
        module(z, MASK).square().sum().backward()
        assert z.grad is not None
        grads.append(z.grad)
    assert torch.equal(*grads)


def test_set_precision_keeps_the_products_of_all_multiplications() -> None:
    model = Boltz2(TINY, ContextParallel())
    parts = [part for part in model.modules() if isinstance(part, TriangleMultiplication)]
    assert len(parts) == 2 * (1 + 1 + 1 + 1)  # of templates, MSA module, trunk and confidence
    set_precision(model, "bf16-int8")
    assert all(part.keep_int8 for part in parts)
    set_precision(model, "bf16")
    assert not any(part.keep_int8 for part in parts)


def predict(cp: ContextParallel, precision: Precision) -> Prediction:
    model = load("untrained:tiny", cp=cp, precision=precision)
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
    complex = Complex(
        "two", (Chain("A", "protein", sequence), Chain("B", "protein", sequence[:19]))
    )
    settings = Settings(recycling=1, steps=5, precision=precision, keep_pairs=True)
    return fold(model, featurize(complex), settings)


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_predictions_differ_from_exact_ones_by_rounding(size: int) -> None:
    exact = predict(ContextParallel(), "fp32")
    for got in run(predict, size, "bf16-int8"):
        assert 0 < relative(got.coords, exact.coords) < 0.03
        assert relative(got.plddt, exact.plddt) < 0.03
        assert relative(np.stack(got.pae), np.stack(exact.pae)) < 0.03
