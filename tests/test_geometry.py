"""Rotations and superposition against linear algebra."""

from __future__ import annotations

import pytest
import torch

from foldcp.geometry import optimal_rotation, quaternion_to_matrix, superpose


def test_quaternion_to_matrix_gives_rotations() -> None:
    rotation = quaternion_to_matrix(torch.randn(50, 4, dtype=torch.float64))
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
    torch.testing.assert_close(torch.det(rotation), torch.ones(50, dtype=torch.float64))
    assert rotation.mean(0).abs().max() < 0.35


def test_superpose_undoes_a_motion_and_never_mirrors() -> None:
    target = torch.randn(2, 40, 3)
    weights = torch.ones(40)
    weights[30:] = 0
    moved = target @ quaternion_to_matrix(torch.randn(2, 4)).mT + torch.randn(2, 1, 3)
    moved[:, 30:] = 99.0  # of no weight
    superposed = superpose(moved, target, weights)
    torch.testing.assert_close(superposed[:, :30], target[:, :30], atol=1e-4, rtol=1e-4)
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0])
    again = superpose(mirrored, target, torch.ones(40))
    centered = mirrored - mirrored.mean(1, True)
    motion = torch.linalg.lstsq(centered, again - again.mean(1, True)).solution
    assert torch.det(motion).min() > 0


@pytest.mark.parametrize("stretch", [(1, 1, 1), (1, 1, 0), (30, 1, 1e-3), (1, 1e-2, 0)], ids=str)
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_superpose_rotates_as_singular_vectors_do(
    stretch: tuple[float, ...], mirror: float
) -> None:
    """Kabsch 1978, with the determinant's sign: for solid, flat, long and nearly straight
    structures.
    """
    torch.manual_seed(3)
    turn = quaternion_to_matrix(torch.randn(4, 4).double())
    stretches = torch.tensor(stretch).double()
    x = torch.randn(4, 50, 3).double() * stretches
    noise = 0.1 * torch.randn(4, 50, 3).double() * stretches
    y = (x * torch.tensor([mirror, 1.0, 1.0]) + noise) @ turn
    weights = torch.rand(50).double()
    x, y = (v - (v * weights[:, None]).sum(1, keepdim=True) / weights.sum() for v in (x, y))
    u, _, vt = torch.linalg.svd((y * weights[:, None]).mT @ x)
    u[..., -1] *= torch.det(u @ vt)[:, None]
    torch.testing.assert_close(superpose(x, y, weights), x @ (u @ vt).mT, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e9])
def test_rotations_are_those_of_singular_vectors(dtype: torch.dtype, scale: float) -> None:
    """Kabsch 1978, with the determinant's sign."""
    covariance = (scale * torch.randn(5, 7, 3, 3, dtype=torch.float64)).to(dtype)
    rotation = optimal_rotation(covariance)
    assert rotation.dtype == dtype
    u, _, vt = torch.linalg.svd(covariance.double().mT)
    u[..., -1] *= torch.det(u @ vt)[..., None]
    torch.testing.assert_close(rotation, (u @ vt).to(dtype), atol=2e-6, rtol=0)


def test_what_leaves_the_rotation_open_gives_one_nevertheless() -> None:
    line = torch.zeros(3, 3, 3)
    line[1, 0, 1] = 5.0  # all atoms on a line
    line[2] = torch.diag(torch.tensor([3.0, 2.0, 0.0]))  # in a plane
    rotation = optimal_rotation(line)
    torch.testing.assert_close(rotation[0], torch.eye(3))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(torch.det(rotation), torch.ones(3))
    torch.testing.assert_close(rotation[2], torch.eye(3))
