"""The LayerNorm that is trained on a GPU against float64: its result, and the gradients of input,
weight and bias.

Run on a machine with one:  python -m pytest tests/kernels/test_layer_norm_gpu.py -m gpu
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foldcp.kernels.layer_norm import layer_norm
from foldcp.model.layers.layers import LayerNorm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
bf16 = torch.bfloat16
RESULTS = ("out", "dx", "dweight", "dbias")


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def error(got: Tensor, expected: Tensor) -> float:
    """Of the whole array; absolute where nothing is expected."""
    size = expected.norm()
    return ((got.double() - expected).norm() / (size if size > 1e-9 else 1)).item()


def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-5)


def results(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor
) -> list[Tensor]:
    """What RESULTS names, where dy is the gradient of the result."""
    leaves = [a.detach().requires_grad_() for a in (x, weight, bias)]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, dy)]


def arguments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias, and a gradient of the result."""
    channels = x.shape[-1]
    return draw(channels) + 1, draw(channels), draw(*x.shape)


def check(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> list[Tensor]:
    """That all results are exact up to their rounding; returns them."""
    got = results(layer_norm, x, weight, bias, dy)
    expected = results(exact, *(a.double() for a in (x, weight, bias, dy)))
    assert [a.dtype for a in got] == [torch.float32, x.dtype, torch.float32, torch.float32]
    for name, a, b in zip(RESULTS, got, expected, strict=True):
        assert a.shape == b.shape, name
        assert error(a, b) < (4e-3 if a.dtype == bf16 else 2e-6), name
    return got


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@pytest.mark.parametrize("channels", [16, 32, 64, 128, 384, 768])
@pytest.mark.parametrize("num_rows", [1, 7, 1000, 4099])
def test_results_are_exact(num_rows: int, channels: int, dtype: torch.dtype) -> None:
    x = (2 * draw(num_rows, channels) + 0.3).to(dtype)
    check(x, *arguments(x))


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_only_training_takes_the_kernels(dtype: torch.dtype) -> None:
    x = draw(50, 128, dtype=dtype)
    layer = LayerNorm(128).cuda()
    assert type(layer(x).grad_fn).__name__ == "LayerNormTritonBackward"
    layer.out_dtype = bf16
    assert layer(x).dtype == bf16
    with torch.no_grad():
        assert torch.equal(layer(x), exact(x.float(), layer.weight, layer.bias).bfloat16())


STRIDED: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: draw(61, 203, 128).transpose(0, 1),
    "transposed bf16": lambda: draw(61, 203, 128, dtype=bf16).transpose(0, 1),
    "columns": lambda: draw(61, 203, 64)[:, 5:38],
    "some channels": lambda: draw(203, 96)[:, 1:65],
    "channels first": lambda: draw(32, 61, 47).movedim(0, -1),
    "four dimensions": lambda: draw(3, 5, 70, 32).permute(2, 0, 1, 3),
    "repeated": lambda: draw(61, 1, 64).expand(61, 20, 64),
    "not aligned": lambda: draw(61 * 64 + 1)[1:].view(61, 64),
}


@pytest.mark.parametrize("name", STRIDED)
def test_strides_of_the_input(name: str) -> None:
    x = STRIDED[name]()
    check(x, *arguments(x))


def test_strides_of_the_gradient_and_the_weights() -> None:
    x = draw(61, 203, 64)
    weight, bias, dy = arguments(x)
    check(x, weight, bias, draw(203, 61, 64).transpose(0, 1))
    check(x, weight, bias, dy[:1, :1].expand(x.shape))
    check(x, weight, bias, dy[0, 0, 0].expand(x.shape))
    check(x, draw(65)[1:], draw(64, 2)[:, 0], dy)


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@pytest.mark.parametrize("channels", [128, 384])
def test_a_large_mean_costs_no_precision(channels: int, dtype: torch.dtype) -> None:
    x = (draw(1000, channels) + 1e3).to(dtype)
    check(x, *arguments(x))


@pytest.mark.parametrize("channels", [64, 384])
def test_rows_without_variance_become_the_bias(channels: int) -> None:
    x = draw(100, channels)
    constant = torch.tensor([0.0, 3.0, -0.1, 1000.3], device="cuda")
    x[10:14] = constant[:, None]
    weight, bias, dy = arguments(x)
    out, *_ = check(x, weight, bias, dy)
    torch.testing.assert_close(out[10:14], bias.expand(4, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 64), (3, 0, 64)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    x = draw(*shape)
    _, _, dweight, dbias = check(x, *arguments(x))
    assert not dweight.any() and not dbias.any()


def test_offsets_beyond_32_bits() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 60e9:
        pytest.skip("needs 40 GB")
    x = torch.ones(2**25 + 5, 64, dtype=bf16, device="cuda")
    x[-300:] = draw(300, 64)
    weight, bias, _ = arguments(x[:1])
    dy = draw(300, 64)
    out, dx, *_ = results(layer_norm, x, weight, bias, F.pad(dy, (0, 0, len(x) - 300, 0)))
    last = results(exact, *(a.double() for a in (x[-300:], weight, bias, dy)))
    assert error(out[-300:], last[0]) < 2e-6
    assert error(dx[-300:], last[1]) < 4e-3


def test_gradients_repeat_exactly() -> None:
    x = draw(5000, 128)
    args = arguments(x)
    once, again = (results(layer_norm, x, *args) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("channels", [64, 384])
def test_a_cuda_graph_replays_forward_and_backward(channels: int) -> None:
    x = draw(1000, channels)
    args = arguments(x)
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        results(layer_norm, x, *args)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(layer_norm, x, *args)
    x.copy_(draw(1000, channels))
    graph.replay()
    expected = results(layer_norm, x, *args)
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
def test_checkpointing_changes_no_gradient(dtype: torch.dtype) -> None:
    x = draw(30, 50, 128, dtype=dtype)
    args = arguments(x)
    recomputed = partial(checkpoint, layer_norm, use_reentrant=False, preserve_rng_state=False)
    got, expected = (results(function, x, *args) for function in (recomputed, layer_norm))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
