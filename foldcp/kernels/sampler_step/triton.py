"""A step of the sampler in two Triton kernels, in which a program has one structure; PyTorch takes
a hundred and fifty small ones.
"""
# pyright: reportMissingImports=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from foldcp.geometry import NUM_SQUARINGS, SQUARINGS_PER_NORM, Coords
from foldcp.kernels.sampler_step.reference import SamplerStep

TINY = tl.constexpr(torch.finfo(torch.float64).tiny)
NORMS = tl.constexpr(NUM_SQUARINGS // SQUARINGS_PER_NORM)
SQUARINGS = tl.constexpr(SQUARINGS_PER_NORM)
BLOCK = tl.constexpr(1024)  # atoms at a time
WARPS = 8


@triton.jit
@no_type_check
def _point(X, atom, inside) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """x, y and z of these atoms; 0 where there is none."""
    place = X + atom * 3
    return (
        tl.load(place, mask=inside, other=0.0),
        tl.load(place + 1, mask=inside, other=0.0),
        tl.load(place + 2, mask=inside, other=0.0),
    )


@triton.jit
@no_type_check
def _store_point(OUT, atom, inside, x, y, z) -> None:
    place = OUT + atom * 3
    tl.store(place, x, mask=inside)
    tl.store(place + 1, y, mask=inside)
    tl.store(place + 2, z, mask=inside)


@triton.jit
@no_type_check
def _center(X, PRESENT, num_atoms) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The mean of the atoms that are present."""
    count = tl.zeros((BLOCK,), tl.float32)
    x = tl.zeros((BLOCK,), tl.float32)
    y = tl.zeros((BLOCK,), tl.float32)
    z = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, num_atoms, BLOCK):
        atom = start + tl.arange(0, BLOCK)
        inside = atom < num_atoms
        present = tl.load(PRESENT + atom, mask=inside, other=0.0)
        px, py, pz = _point(X, atom, inside)
        count += present
        x += present * px
        y += present * py
        z += present * pz
    total = tl.sum(count, 0)
    return tl.sum(x, 0) / total, tl.sum(y, 0) / total, tl.sum(z, 0) / total


@triton.jit(do_not_specialize=["num_atoms", "num_complexes"])
@no_type_check
def _augment(
    X, PRESENT, ROTATION, TRANSLATION, NOISE, OUT, num_atoms, num_complexes,
) -> None:  # fmt: skip
    structure = tl.program_id(0).to(tl.int64)
    X += structure * num_atoms * 3
    NOISE += structure * num_atoms * 3
    OUT += structure * num_atoms * 3
    PRESENT += structure % num_complexes * num_atoms
    R = ROTATION + structure * 9
    T = TRANSLATION + structure * 3
    cx, cy, cz = _center(X, PRESENT, num_atoms)
    tx, ty, tz = tl.load(T), tl.load(T + 1), tl.load(T + 2)
    xx, xy, xz = tl.load(R), tl.load(R + 1), tl.load(R + 2)
    yx, yy, yz = tl.load(R + 3), tl.load(R + 4), tl.load(R + 5)
    zx, zy, zz = tl.load(R + 6), tl.load(R + 7), tl.load(R + 8)
    for start in tl.range(0, num_atoms, BLOCK):
        atom = start + tl.arange(0, BLOCK)
        inside = atom < num_atoms
        x, y, z = _point(X, atom, inside)
        nx, ny, nz = _point(NOISE, atom, inside)
        x, y, z = x - cx, y - cy, z - cz
        _store_point(
            OUT,
            atom,
            inside,
            x * xx + y * yx + z * zx + tx + nx,
            x * xy + y * yy + z * zy + ty + ny,
            x * xz + y * yz + z * zz + tz + nz,
        )


@triton.jit(do_not_specialize=["num_atoms", "num_complexes"])
@no_type_check
def _euler_step(X, DENOISED, PRESENT, STEP_SCALE, OUT, num_atoms, num_complexes) -> None:
    structure = tl.program_id(0).to(tl.int64)
    X += structure * num_atoms * 3
    DENOISED += structure * num_atoms * 3
    OUT += structure * num_atoms * 3
    PRESENT += structure % num_complexes * num_atoms
    cx, cy, cz = _center(X, PRESENT, num_atoms)
    tx, ty, tz = _center(DENOISED, PRESENT, num_atoms)
    xx = tl.zeros((BLOCK,), tl.float32)
    xy, xz, yx, yy, yz, zx, zy, zz = xx, xx, xx, xx, xx, xx, xx, xx
    for start in tl.range(0, num_atoms, BLOCK):
        atom = start + tl.arange(0, BLOCK)
        inside = atom < num_atoms
        present = tl.load(PRESENT + atom, mask=inside, other=0.0)
        x, y, z = _point(X, atom, inside)
        u, v, w = _point(DENOISED, atom, inside)
        x, y, z = present * (x - cx), present * (y - cy), present * (z - cz)
        u, v, w = u - tx, v - ty, w - tz
        xx += x * u
        xy += x * v
        xz += x * w
        yx += y * u
        yy += y * v
        yz += y * w
        zx += z * u
        zy += z * v
        zz += z * w
    xx, xy, xz, yx, yy, yz, zx, zy, zz = _rotation(
        tl.sum(xx, 0), tl.sum(xy, 0), tl.sum(xz, 0),
        tl.sum(yx, 0), tl.sum(yy, 0), tl.sum(yz, 0),
        tl.sum(zx, 0), tl.sum(zy, 0), tl.sum(zz, 0),
    )  # fmt: skip
    scale = tl.load(STEP_SCALE)
    for start in tl.range(0, num_atoms, BLOCK):
        atom = start + tl.arange(0, BLOCK)
        inside = atom < num_atoms
        x, y, z = _point(X, atom, inside)
        u, v, w = _point(DENOISED, atom, inside)
        x, y, z = x - cx, y - cy, z - cz
        p = x * xx + y * xy + z * xz + tx
        q = x * yx + y * yy + z * yz + ty
        r = x * zx + y * zy + z * zz + tz
        _store_point(
            OUT, atom, inside, p + scale * (u - p), q + scale * (v - q), r + scale * (w - r)
        )


@triton.jit
@no_type_check
def _rotation(xx, xy, xz, yx, yy, yz, zx, zy, zz) -> tuple:
    """`foldcp.geometry.optimal_rotation` of a covariance; the symmetric matrix has its upper
    triangle a .. j.
    """
    xx, xy, xz = xx.to(tl.float64), xy.to(tl.float64), xz.to(tl.float64)
    yx, yy, yz = yx.to(tl.float64), yy.to(tl.float64), yz.to(tl.float64)
    zx, zy, zz = zx.to(tl.float64), zy.to(tl.float64), zz.to(tl.float64)
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
    return (
        (1 - 2 * (y * y + z * z)).to(tl.float32),
        (2 * (x * y - z * w)).to(tl.float32),
        (2 * (x * z + y * w)).to(tl.float32),
        (2 * (x * y + z * w)).to(tl.float32),
        (1 - 2 * (x * x + z * z)).to(tl.float32),
        (2 * (y * z - x * w)).to(tl.float32),
        (2 * (x * z - y * w)).to(tl.float32),
        (2 * (y * z + x * w)).to(tl.float32),
        (1 - 2 * (x * x + y * y)).to(tl.float32),
    )


@triton.jit
@no_type_check
def _column(chosen, p, q, r, s, w, x, y, z) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    return (
        tl.where(chosen, p, w),
        tl.where(chosen, q, x),
        tl.where(chosen, r, y),
        tl.where(chosen, s, z),
    )


class SamplerStepTriton(SamplerStep):
    """A kernel for each operation."""

    def augment(
        self,
        x: Coords,
        present: Float[Tensor, "B a"],
        rotation: Float[Tensor, "S 3 3"],
        translation: Float[Tensor, "S 1 3"],
        noise: Coords,
    ) -> Coords:
        x, present, rotation, translation, noise = (
            each.contiguous() for each in (x, present, rotation, translation, noise)
        )
        out = torch.empty_like(x)
        _augment[(len(rotation),)](
            x, present, rotation, translation, noise, out, *reversed(present.shape),
            num_warps=WARPS,
        )  # fmt: skip
        return out

    def euler_step(
        self,
        x: Coords,
        denoised: Coords,
        present: Float[Tensor, "B a"],
        step_scale: Float[Tensor, "1"],
    ) -> Coords:
        x, denoised, present = (each.contiguous() for each in (x, denoised, present))
        out = torch.empty_like(x)
        num_structures = len(x) * len(present)
        _euler_step[(num_structures,)](
            x, denoised, present, step_scale, out, *reversed(present.shape), num_warps=WARPS
        )
        return out
