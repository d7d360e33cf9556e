"""The updates of the pair representation against their equations, on 1, 2 and 3 ranks, values
and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels.tf32_linear import LinearOps
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import Transition
from foldcp.model.trunk.msa import OuterProductMean, PairWeightedAveraging
from foldcp.model.trunk.pairformer import AttentionPairBias
from foldcp.model.trunk.triangle import TriangleAttention, TriangleMultiplication
from tests.support.distributed import run

# tokens, of which the last is padding; channels; alignment rows; their channels
N = 12
C = 6
S = 5
M = 4
MASK = torch.tensor([1.0] * (N - 1) + [0.0])


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
        )
    return module


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)


def multiplication(module: TriangleMultiplication, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    x = norm(z, module.norm_in)
    a, b = (module.p_in(x) * module.g_in(x).sigmoid() * (MASK[:, None] * MASK)[..., None]).chunk(
        2, -1
    )
    product = torch.einsum("kic,kjc->ijc" if module.incoming else "ikc,jkc->ijc", a, b)
    return z + module.p_out(norm(product, module.norm_out)) * module.g_out(x).sigmoid()


def attention(module: TriangleAttention, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    z = z.transpose(0, 1) if module.ending else z
    x = norm(z, module.layer_norm)
    mha = module.mha
    q, k, v = (
        f(x).unflatten(-1, (mha.num_heads, -1)) for f in (mha.linear_q, mha.linear_k, mha.linear_v)
    )
    scores = torch.einsum("iqhd,ikhd->ihqk", q, k) / q.shape[-1] ** 0.5
    scores = scores + module.linear(x).permute(2, 0, 1) - 1e9 * (1 - MASK)
    o = torch.einsum("ihqk,ikhd->iqhd", scores.softmax(-1), v).flatten(-2)
    z = z + mha.linear_o(o * mha.linear_g(x).sigmoid())
    return z.transpose(0, 1) if module.ending else z


def single_attention(module: AttentionPairBias, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    q, k, v = (
        f(s).unflatten(-1, (module.num_heads, -1))
        for f in (module.proj_q, module.proj_k, module.proj_v)
    )
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5 + module.proj_z(z).permute(
        2, 0, 1
    )
    o = torch.einsum("hqk,khd->qhd", (scores - 1e6 * (1 - MASK)).softmax(-1), v).flatten(-2)
    return module.proj_o(o * module.proj_g(s).sigmoid())


def averaging(module: PairWeightedAveraging, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    x = norm(m, module.norm_m)
    weights = (module.proj_z(norm(z, module.norm_z)).permute(2, 0, 1) - 1e6 * (1 - MASK)).softmax(
        -1
    )
    v = module.proj_m(x).unflatten(-1, (module.num_heads, -1))
    o = torch.einsum("hij,jshd->ishd", weights, v).flatten(-2)
    return m + module.proj_o(o * module.proj_g(x).sigmoid())


def msa_mask() -> Tensor:
    mask = torch.ones(N, S, dtype=torch.float64)
    mask[2, 1:], mask[-1] = 0, 0
    return mask


def outer_product(module: OuterProductMean, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    mask = msa_mask()
    x = norm(m, module.norm)
    a = module.proj_a(x) * mask[..., None]
    b = module.proj_b(x) * mask[..., None]
    count = (mask @ mask.T).clamp(min=1)[..., None]
    return z + module.proj_o(torch.einsum("isc,jsd->ijcd", a, b).flatten(2) / count)


def transition(module: Transition, z: Tensor, s: Tensor, m: Tensor) -> Tensor:
    x = norm(z, module.norm)
    return z + module.fc3(F.silu(module.fc1(x)) * module.fc2(x))


# name: how it is made, how it is called with a rank's shares of z, s and m, and its equation
Provenance = Callable[[ContextParallel, ChunkBudget], nn.Module]
CASES: dict[str, tuple[Provenance, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "multiplication out": (
        lambda cp, budget: TriangleMultiplication(C, cp, budget, incoming=False),
        lambda module, cp, z, s, m: module(z, MASK),
        multiplication,
    ),
    "multiplication in": (
        lambda cp, budget: TriangleMultiplication(C, cp, budget, incoming=True),
        lambda module, cp, z, s, m: module(z, MASK),
        multiplication,
    ),
    "attention start": (
        lambda cp, budget: TriangleAttention(C, 2, 4, cp, budget, ending=False),
        lambda module, cp, z, s, m: module(z, MASK),
        attention,
    ),
    "attention end": (
        lambda cp, budget: TriangleAttention(C, 2, 4, cp, budget, ending=True),
        lambda module, cp, z, s, m: module(z, MASK),
        attention,
    ),
    "single attention": (
        lambda cp, budget: AttentionPairBias(8, C, 2, cp, budget),
        lambda module, cp, z, s, m: module(s, z, MASK),
        single_attention,
    ),
    "weighted averaging": (
        lambda cp, budget: PairWeightedAveraging(M, C, 2, 3, cp, budget),
        lambda module, cp, z, s, m: module(m, z, MASK),
        averaging,
    ),
    "outer product mean": (
        lambda cp, budget: OuterProductMean(M, 3, C, cp, budget),
        lambda module, cp, z, s, m: module(z, m, cp.shard(msa_mask())),
        outer_product,
    ),
    "transition": (
        lambda cp, budget: Transition(C, 2 * C),
        lambda module, cp, z, s, m: module.add_to(z, ChunkBudget()),
        transition,
    ),
}


def inputs() -> list[Tensor]:
    """z, s and m."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((N, N, C), (N, 8), (N, S, M))
    ]


def real(x: Tensor) -> Tensor:
    """Without padding, whose contents mean nothing."""
    return x[: N - 1, : N - 1] if x.shape[1] == N else x[: N - 1]


def on_ranks(cp: ContextParallel, name: str, in_place: bool, chunk_bytes: int) -> dict[str, Tensor]:
    make, call, _ = CASES[name]
    module = randomise(make(cp, ChunkBudget(chunk_bytes)))
    shares = [cp.shard(x).clone().requires_grad_(not in_place) for x in inputs()]
    with torch.set_grad_enabled(not in_place):
        out = call(module, cp, *shares)
    if in_place:
        return {"out": cp.all_gather(out)}
    weights = (
        torch.linspace(-1, 1, out.numel() * cp.size, dtype=torch.float64)
        .view(N, *out.shape[1:])
        .clone()
    )
    weights[-1] = 0  # padding
    if out.shape[1] == N:
        weights[:, -1] = 0
    (out * cp.shard(weights)).sum().backward()
    grads = {
        f"input {i}": cp.all_gather(x.grad) for i, x in enumerate(shares) if x.grad is not None
    }
    grads |= {n: cp.all_reduce(p.grad) for n, p in module.named_parameters() if p.grad is not None}
    return {"out": cp.all_gather(out.detach()), **grads}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_pair_updates_follow_their_equations(name: str, size: int) -> None:
    make, _, equation = CASES[name]
    with torch.no_grad():
        expected = equation(randomise(make(ContextParallel(), ChunkBudget())), *inputs())
    for chunk_bytes in (1, 64 << 20):
        for got in run(on_ranks, size, name, True, chunk_bytes):
            torch.testing.assert_close(real(got["out"]), real(expected))


@pytest.mark.parametrize("name", CASES)
def test_gradients_do_not_depend_on_the_number_of_ranks(name: str) -> None:
    expected = run(on_ranks, 1, name, False, 64 << 20)[0]
    for got in run(on_ranks, 3, name, False, 1):
        assert got.keys() == expected.keys() and len(got) > 3
        for key in got:
            torch.testing.assert_close(
                got[key], expected[key], msg=lambda text, key=key: f"{key}: {text}"
            )


class Tf32(LinearOps):
    """As far from fp32 as can be seen."""

    def swiglu(self, x: Tensor, fc1: Tensor, fc2: Tensor) -> Tensor:
        return 2 * super().swiglu(x, fc1, fc2)

    def linear(self, *args: Any, **kwargs: Any) -> Tensor:
        return 2 * super().linear(*args, **kwargs)


def test_tf32_is_not_for_gradients() -> None:
    s = torch.randn(N, 8, dtype=torch.float64)
    z = torch.randn(N, N, C, dtype=torch.float64)
    layers = (
        (randomise(AttentionPairBias(8, C, 2, ContextParallel(), ChunkBudget())), (s, z, MASK)),
        (randomise(Transition(8, 16)), (s,)),
    )
    for layer, inputs in layers:
        with torch.no_grad():
            expected = layer(*inputs)
            layer.linear_ops = Tf32()
            assert not torch.allclose(layer(*inputs), expected)
        torch.testing.assert_close(layer(*inputs), expected)
