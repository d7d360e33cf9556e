"""The rotation of a superposition in one Triton kernel; PyTorch takes a hundred small ones."""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.geometry import NUM_SQUARINGS, SQUARINGS_PER_NORM

TINY = tl.constexpr(torch.finfo(torch.float64).tiny)


@triton.jit
@no_type_check
def _entry(COVARIANCE, index: tl.constexpr) -> tl.tensor:
    return tl.load(COVARIANCE + tl.program_id(0) * 9 + index).to(tl.float64)


@triton.jit
@no_type_check
def _optimal_rotation(COVARIANCE, ROTATION, NORMS: tl.constexpr, SQUARINGS: tl.constexpr) -> None:
    """A program has one structure; the symmetric matrix has its upper triangle a .. j."""
    xx, xy, xz = _entry(COVARIANCE, 0), _entry(COVARIANCE, 1), _entry(COVARIANCE, 2)
    yx, yy, yz = _entry(COVARIANCE, 3), _entry(COVARIANCE, 4), _entry(COVARIANCE, 5)
    zx, zy, zz = _entry(COVARIANCE, 6), _entry(COVARIANCE, 7), _entry(COVARIANCE, 8)
    a, b, c, d = xx + yy + zz, yz - zy, zx - xz, xy - yx
    e, f, g = xx - yy - zz, xy + yx, zx + xz
    h, i, j = yy - xx - zz, yz + zy, zz - xx - yy
    squares = a * a + e * e + h * h + j * j
    squares += 2 * (b * b + c * c + d * d + f * f + g * g + i * i)
    scale = 1 / tl.maximum(tl.sqrt(squares), TINY)
    a, b, c, d, e = a * scale + 1, b * scale, c * scale, d * scale, e * scale + 1
    f, g, h, i, j = f * scale, g * scale, h * scale + 1, i * scale, j * scale + 1
    for _ in range(NORMS):
        squares = a * a + e * e + h * h + j * j
        squares += 2 * (b * b + c * c + d * d + f * f + g * g + i * i)
        scale = 1 / tl.sqrt(squares)
        a, b, c, d, e = a * scale, b * scale, c * scale, d * scale, e * scale
        f, g, h, i, j = f * scale, g * scale, h * scale, i * scale, j * scale
        for _ in range(SQUARINGS):
            a2 = a * a + b * b + c * c + d * d
            b2 = a * b + b * e + c * f + d * g
            c2 = a * c + b * f + c * h + d * i
            d2 = a * d + b * g + c * i + d * j
            e2 = b * b + e * e + f * f + g * g
            f2 = b * c + e * f + f * h + g * i
            g2 = b * d + e * g + f * i + g * j
            h2 = c * c + f * f + h * h + i * i
            i2 = c * d + f * g + h * i + i * j
            j2 = d * d + g * g + i * i + j * j
            a, b, c, d, e = a2, b2, c2, d2, e2
            f, g, h, i, j = f2, g2, h2, i2, j2
    # The column of the largest number on the diagonal, the first one of equal ones.
    w, x, y, z = a, b, c, d
    largest = a
    w, x, y, z = _column(e > largest, b, e, f, g, w, x, y, z)
    largest = tl.maximum(largest, e)
    w, x, y, z = _column(h > largest, c, f, h, i, w, x, y, z)
    largest = tl.maximum(largest, h)
    w, x, y, z = _column(j > largest, d, g, i, j, w, x, y, z)
    scale = 1 / tl.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    out = ROTATION + tl.program_id(0) * 9
    kind = ROTATION.dtype.element_ty
    tl.store(out + 0, (1 - 2 * (y * y + z * z)).to(kind))
    tl.store(out + 1, (2 * (x * y - z * w)).to(kind))
    tl.store(out + 2, (2 * (x * z + y * w)).to(kind))
    tl.store(out + 3, (2 * (x * y + z * w)).to(kind))
    tl.store(out + 4, (1 - 2 * (x * x + z * z)).to(kind))
    tl.store(out + 5, (2 * (y * z - x * w)).to(kind))
    tl.store(out + 6, (2 * (x * z - y * w)).to(kind))
    tl.store(out + 7, (2 * (y * z + x * w)).to(kind))
    tl.store(out + 8, (1 - 2 * (x * x + y * y)).to(kind))


@triton.jit
@no_type_check
def _column(chosen, p, q, r, s, w, x, y, z) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    return (
        tl.where(chosen, p, w),
        tl.where(chosen, q, x),
        tl.where(chosen, r, y),
        tl.where(chosen, s, z),
    )


def optimal_rotation_triton(covariance: Float[Tensor, "*M 3 3"]) -> Float[Tensor, "*M 3 3"]:
    """`foldcp.geometry.optimal_rotation`, without gradients."""
    covariance = covariance.contiguous()
    rotation = torch.empty_like(covariance)
    num_structures = covariance[..., 0, 0].numel()
    norms = NUM_SQUARINGS // SQUARINGS_PER_NORM
    _optimal_rotation[(num_structures,)](
        covariance, rotation, NORMS=norms, SQUARINGS=SQUARINGS_PER_NORM, num_warps=1
    )
    return rotation
