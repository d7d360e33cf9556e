"""Rotations of superpositions against singular vectors in float64.

On a GPU the Triton kernel is tested: python -m pytest tests/kernels/test_optimal_rotation.py -m gpu
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.geometry import RotationOf
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
