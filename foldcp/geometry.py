"""Rigid motions in three dimensions: rotations from quaternions, and superposition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Coords = Float[Tensor, "M A 3"]  # of M structures of A atoms

NUM_SQUARINGS = 24  # of the matrix whose eigenvector a rotation is
SQUARINGS_PER_NORM = 8  # so that no number is smaller than 2^-256


def quaternion_to_matrix(quaternion: Float[Tensor, "*M 4"]) -> Float[Tensor, "*M 3 3"]:
    """The rotation matrix of a quaternion (real part first) of any length.

    Of normally distributed quaternions the rotations are uniformly distributed.
    """
    r, i, j, k = F.normalize(quaternion, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (j * j + k * k), 2 * (i * j - k * r), 2 * (i * k + j * r),
        2 * (i * j + k * r), 1 - 2 * (i * i + k * k), 2 * (j * k - i * r),
        2 * (i * k - j * r), 2 * (j * k + i * r), 1 - 2 * (i * i + j * j),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def distances(a: Float[Tensor, "*M R 3"], b: Float[Tensor, "*M S 3"]) -> Float[Tensor, "*M R S"]:
    """|a_i - b_j|, without gradients.

    Not by products of matrices, which lose the small differences of large coordinates, and not by
    `torch.cdist`, which has a block of threads for every pair of points.
    """
    a, b = a.detach(), b.detach()
    squared = a.new_zeros(())
    for x, y in zip(a.unbind(-1), b.unbind(-1), strict=True):
        squared = (x[..., :, None] - y[..., None, :]).square_() + squared
    return squared.sqrt_()


def superpose(
    moving: Float[Tensor, "*M A 3"],
    target: Float[Tensor, "*M A 3"],
    weights: Float[Tensor, "*W A"],
) -> Float[Tensor, "*M A 3"]:
    """`moving`, rotated and translated onto `target` with the least weighted sum of squares.

    Never mirrors. `weights` broadcast over structures. Source: AlphaFold 3, algorithm 28.
    """
    normalized = (weights / weights.sum(-1, keepdim=True))[..., None]
    moving_center = (moving * normalized).sum(-2, keepdim=True)
    target_center = (target * normalized).sum(-2, keepdim=True)
    centered = moving - moving_center
    weighted = centered * weights[..., None]
    # Not a product of matrices: with 3 rows and columns a GPU has one block of threads for it.
    covariance = (weighted[..., :, None] * (target - target_center)[..., None, :]).sum(-3)
    rotation = optimal_rotation(covariance)
    return torch.einsum("...aj,...ij->...ai", centered, rotation) + target_center


def optimal_rotation(covariance: Float[Tensor, "*M 3 3"]) -> Float[Tensor, "*M 3 3"]:
    """The rotation R with the largest sum of R_ij covariance_ji, computed in fp64.

    Its quaternion is the eigenvector of the largest eigenvalue of a 4 x 4 matrix (Horn 1987,
    equation 36). Powers of the matrix, made positive, tend to its projector. They take products
    only, so a GPU never waits for the CPU, as it would for a decomposition.
    """
    rows = covariance.flatten(0, -3).double().unbind(-2)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rows)
    entries = [
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    ]  # fmt: skip
    power = torch.stack(entries, -1).unflatten(-1, (4, 4))
    tiny = torch.finfo(power.dtype).tiny
    size = torch.linalg.matrix_norm(power)[:, None, None].clamp(min=tiny)
    power = power / size + torch.eye(4, dtype=power.dtype, device=power.device)
    for _ in range(NUM_SQUARINGS // SQUARINGS_PER_NORM):
        power = power / torch.linalg.matrix_norm(power)[:, None, None]
        for _ in range(SQUARINGS_PER_NORM):
            power = power @ power
    largest = power.diagonal(dim1=1, dim2=2).argmax(1)
    quaternion = power[torch.arange(len(power), device=power.device), largest]
    # Of atoms on a line two eigenvalues are largest, and it is shorter than the least length that
    # `F.normalize` divides by.
    quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=1, keepdim=True)
    return quaternion_to_matrix(quaternion).to(covariance.dtype).view(covariance.shape)
