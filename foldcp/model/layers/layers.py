"""The small layers that everything is made of, and how an array is worked through a few rows at
a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel, split_range
from foldcp.kernels.projections import project_channels_first
from foldcp.kernels.residual import fits
from foldcp.kernels.transition import add_transition

# Memory that a layer may take for what it computes between reading its input and writing its
# output.
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}

# A copy of the pair representation above this is kept in host memory: moving it costs well under a
# hundredth of the time that so many tokens take anyway.
LARGE_BYTES = 4 << 30

# It is kept in pieces of this size: page-locked memory is handed out in powers of two.
HOST_COPY_BYTES = 1 << 30


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated; on a CPU there is no telling, and no limit is assumed."""
    if device.type != "cuda":
        return 1 << 62
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def set_chunk_budget(device: torch.device, cp: ContextParallel) -> None:
    """Size the chunks of what comes next by the memory that is free now, on the rank that has
    least.
    """
    if device.type == "cuda":
        free = cp.all_reduce_min(available_bytes(device), device)
        CHUNK_BYTES["cuda"] = min(max(free // 8, 256 << 20), 8 << 30)


def offload(z: Float[Tensor, "I N C"]) -> list[tuple[slice, Float[Tensor, "R N C"]]]:
    """A copy of z for later, some rows at a time; in host memory if z is large."""
    if not z.is_cuda or z.nbytes < LARGE_BYTES:
        copy = z.clone()
        return [(rows, copy[rows]) for rows in chunks(len(z), z[0].nbytes, z.device)]
    pieces = split_range(len(z), HOST_COPY_BYTES // z[0].nbytes)
    return [
        (
            rows,
            torch.empty(z[rows].shape, dtype=z.dtype, pin_memory=True).copy_(z[rows]),
        )
        for rows in pieces
    ]


def rows_per_chunk(bytes_each: int, device: torch.device) -> int:
    """How many rows with intermediates of `bytes_each` a row fit the budget; at least one."""
    return max(1, CHUNK_BYTES[device.type] // max(1, bytes_each))


def chunks(num: int, bytes_each: int, device: torch.device) -> list[slice]:
    """Slices that cut `num` rows so that the intermediates of one slice, `bytes_each` a row, fit
    the budget.
    """
    return split_range(num, rows_per_chunk(bytes_each, device))


def map_rows_(
    x: Float[Tensor, "I *S"], renewed: Callable[[slice], Tensor], bytes_each: int
) -> Float[Tensor, "I *S"]:
    """x with every slice of rows replaced by `renewed(rows)`, which works in place when no
    gradient is wanted.
    """
    out = torch.empty_like(x) if torch.is_grad_enabled() else x
    for rows in chunks(x.shape[0], bytes_each, x.device):
        new = renewed(rows)
        if out is not x:
            out[rows] = new
    return out


def add_rows_(
    x: Float[Tensor, "I *S"], update: Callable[[slice], Tensor], bytes_each: int
) -> Float[Tensor, "I *S"]:
    """x + update, a slice of rows at a time; in place when no gradient is wanted."""
    out = torch.empty_like(x) if torch.is_grad_enabled() else x
    for rows in chunks(x.shape[0], bytes_each, x.device):
        out[rows] = x[rows] + update(rows)
    return out


class Linear(nn.Linear):
    """y = x W^T + b, in the type of the weights, without initialisation: weights come from
    elsewhere.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        """Left to `foldcp.checkpoint.load`."""

    def forward(self, x: Float[Tensor, "*S in"]) -> Float[Tensor, "*S out"]:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last dimension with statistics in fp32 (or better); the result has type
    `out`.
    """

    out: torch.dtype | None = None

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
        precise = torch.promote_types(x.dtype, torch.float32)
        y = F.layer_norm(x.to(precise), self.normalized_shape, self.weight, self.bias, self.eps)
        return y if self.out is None else y.to(self.out)


class NormLinear(nn.Sequential):
    """A LayerNorm and the Linear after it, named 0 and 1 as in the checkpoint."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__(LayerNorm(dim), Linear(dim, out_features))

    @property
    def linear(self) -> Linear:
        linear = self[1]
        assert isinstance(linear, Linear)
        return linear

    def channels_first(self, z: Float[Tensor, "R N C"]) -> Float[Tensor, "K R N"]:
        """The same with the channels first, as attention wants its bias."""
        norm = self[0]
        assert isinstance(norm, LayerNorm)
        return project_channels_first(z, norm.weight, norm.bias, self.linear.weight)


def set_compute_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Matrix products of `module` in `dtype`: its Linear weights are converted, its LayerNorms
    hand over `dtype`.
    """
    for part in module.modules():
        if isinstance(part, Linear):
            part.to(dtype)
        elif isinstance(part, LayerNorm):
            part.out = dtype


class Transition(nn.Module):
    """fc3(silu(fc1(norm x)) * fc2(norm x)): AlphaFold 3, algorithm 11."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(dim, hidden)
        self.fc3 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
        x = self.norm(x)
        return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))

    def add_to(self, x: Float[Tensor, "I *S C"]) -> Float[Tensor, "I *S C"]:
        """x + transition(x), a few rows at a time."""
        weights = (
            self.norm.weight,
            self.norm.bias,
            self.fc1.weight,
            self.fc2.weight,
            self.fc3.weight,
        )
        per_row = x[0].numel() // x.shape[-1] * (3 * self.fc1.out_features + 2 * x.shape[-1]) * 4
        fused = fits(x, self.fc1.weight)
        return map_rows_(x, lambda rows: add_transition(x[rows], *weights), 0 if fused else per_row)


class FourierEmbedding(nn.Module):
    """cos(2 pi (w t + b)) with fixed random w, b: AlphaFold 3, algorithm 22."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = Linear(1, dim, bias=True)

    def forward(self, t: Float[Tensor, " K"]) -> Float[Tensor, "K C"]:
        return torch.cos(2 * torch.pi * self.proj(t[:, None]))
