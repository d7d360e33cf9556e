"""Rotations of superpositions against singular vectors in float64.

On a GPU the Triton kernel is tested: python -m pytest tests/kernels/test_optimal_rotation.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.geometry import RotationOf, quaternion_to_matrix, superpose
from foldcp.kernels import optimal_rotation
from foldcp.kernels.dispatch import choose_backend
from tests.support.distributed import on_devices

with_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def chosen(device: str) -> RotationOf:
    return optimal_rotation.choose(choose_backend("auto", torch.device(device)))


def expected(covariance: Tensor) -> Tensor:
    """Kabsch 1978, with the determinant's sign."""
    u, _, vt = torch.linalg.svd(covariance.double().mT.cpu())
    u[..., -1] *= torch.det(u @ vt)[..., None]
    return u @ vt


@on_devices
@with_dtypes
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e9])
def test_rotations_are_those_of_singular_vectors(
    device: str, dtype: torch.dtype, scale: float
) -> None:
    covariance = (scale * torch.randn(5, 7, 3, 3, dtype=torch.float64)).to(device, dtype)
    rotation = chosen(device)(covariance)
    assert rotation.dtype == dtype
    wanted = expected(covariance).to(dtype)
    torch.testing.assert_close(rotation.cpu(), wanted, atol=2e-6, rtol=0)


@on_devices
def test_what_leaves_the_rotation_open_gives_one_nevertheless(device: str) -> None:
    line = torch.zeros(3, 3, 3)
    line[1, 0, 1] = 5.0  # all atoms on a line
    line[2] = torch.diag(torch.tensor([3.0, 2.0, 0.0]))  # in a plane
    rotation = chosen(device)(line.to(device)).cpu()
    torch.testing.assert_close(rotation[0], torch.eye(3))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(torch.det(rotation), torch.ones(3))
    torch.testing.assert_close(rotation[2], torch.eye(3))


@on_devices
@pytest.mark.parametrize("length", [60.0, 3.0])
@pytest.mark.parametrize("num_atoms", [2, 5])
def test_atoms_on_a_line_are_turned_onto_their_copy(
    device: str, num_atoms: int, length: float
) -> None:
    """Around the line any rotation will do, as two eigenvalues are largest."""
    torch.manual_seed(0)
    direction = F.normalize(torch.randn(4, 1, 3), dim=-1)
    target = length * torch.linspace(-0.5, 0.5, num_atoms)[:, None] * direction
    turn = quaternion_to_matrix(torch.randn(4, 4))
    moving = target @ turn.mT + torch.randn(4, 1, 3)
    weights = torch.ones(num_atoms)
    x, y, w = (each.to(device) for each in (moving, target, weights))
    torch.testing.assert_close(superpose(x, y, w, chosen(device)), y, atol=1e-4, rtol=0)
