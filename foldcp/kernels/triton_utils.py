"""What launches of kernels are told, in plain Python: Triton's own helpers take 6 µs a call, half a
launch.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def cdiv(size: int, step: int) -> int:
    """The number of steps that cover `size`."""
    return -(-size // step)


def next_power_of_2(size: int) -> int:
    """The smallest power of two that is not below `size`, which is at least 1."""
    return 1 << (size - 1).bit_length()


def pair_strides(x: Float[Tensor, "*B C"], N: int) -> tuple[int, int]:
    """Distances from row to row and from column to column; anything contiguous counts as rows of
    N pairs.
    """
    if x.is_contiguous():
        return N * x.shape[-1], x.shape[-1]
    assert x.dim() == 3 and x.stride(2) == 1 and x.shape[1] == N, (
        f"strides {x.stride()} of {tuple(x.shape)}"
    )
    return x.stride(0), x.stride(1)


def rows_are_adjacent(N: int, *arrays: Tensor) -> bool:
    """Whether the rows of all arrays follow each other in memory."""
    return all(i == N * n for i, n in (pair_strides(x, N) for x in arrays))
