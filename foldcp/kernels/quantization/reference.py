"""Pairs in 8 bits, channels first: neighbours in a row share a scale; the PyTorch reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

GROUP = 64  # columns that share a scale, of one channel and row
LARGEST = 127
# A smaller scale would have fewer digits than others.
MIN_SCALE = torch.finfo(torch.bfloat16).tiny
MAX_STEP_PAIRS = 1 << 24  # quantized at once, in fp32


@dataclass(frozen=True)
class Int8Pairs:
    """values * scales: 8-bit integers, and the scale of every 64 columns of a channel and row."""

    values: Int8[Tensor, "K I N"]
    scales: Float[Tensor, "K I G"]  # bf16, as fp16 does not hold the range of bf16

    @classmethod
    def empty(cls, K: int, I: int, N: int, device: torch.device) -> Int8Pairs:
        """Memory that nothing was written to: 1.03 bytes a number."""
        values = torch.empty((K, I, N), dtype=torch.int8, device=device)
        scales = torch.empty((K, I, -(-N // GROUP)), dtype=torch.bfloat16, device=device)
        return cls(values, scales)

    def channels(self, chunk: slice) -> Int8Pairs:
        """A view of some channels."""
        return Int8Pairs(self.values[chunk], self.scales[chunk])

    def rows(self, chunk: slice) -> Int8Pairs:
        """A view of some rows."""
        return Int8Pairs(self.values[:, chunk], self.scales[:, chunk])


class Quantization:
    """scale = max |x| / 127 of a group, rounded to bf16; value = x / scale, rounded.

    The error of a number is at most half a scale: 0.004 of the largest in its group. Groups do not
    depend on how many channels are written at once, or on the number of ranks. A group with a
    number that is not finite is read as NaN. No gradient.
    """

    def write(self, x: Float[Tensor, "K I N"], out: Int8Pairs) -> None:
        """Quantize x."""
        K, I, N = x.shape
        step = max(1, MAX_STEP_PAIRS // (K * N))
        for start in range(0, I, step):
            rows = slice(start, start + step)
            grouped = _grouped(x[:, rows].float())
            scales = grouped.abs().amax(-1).div_(LARGEST).clamp_(min=MIN_SCALE).bfloat16()
            values = (grouped / scales[..., None].float()).add_(0.5).floor_()
            out.scales[:, rows] = scales
            out.values[:, rows] = values.flatten(-2)[..., :N].to(torch.int8)

    def read(self, pairs: Int8Pairs, dtype: torch.dtype) -> Float[Tensor, "K I N"]:
        """The numbers in `dtype`, contiguous."""
        N = pairs.values.shape[-1]
        grouped = _grouped(pairs.values) * pairs.scales[..., None].to(dtype)
        return grouped.flatten(-2)[..., :N].contiguous()

    def bytes_per_row(self, K: int, N: int, dtype: torch.dtype) -> int:
        """Bytes of what is read of a row of N pairs, and of the intermediates."""
        return K * N * (1 + 2 * dtype.itemsize)


def _grouped(x: Tensor) -> Tensor:
    """[K, I, N] -> [K, I, G, 64], with zeros after the last column."""
    return F.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
