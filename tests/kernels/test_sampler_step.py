"""Random motions and Euler steps against NumPy in float64; on a GPU those of the Triton kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.geometry import quaternion_to_matrix
from foldcp.kernels import sampler_step
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.sampler_step import SamplerStep
from tests.support.distributed import on_devices

# samples, complexes, atoms of each: one block of the kernel, several, and none that is full
with_shapes = pytest.mark.parametrize(("M", "B", "a"), [(1, 1, 3), (5, 1, 1030), (2, 3, 2100)])


def chosen(device: str) -> SamplerStep:
    return sampler_step.choose(choose_backend("auto", torch.device(device)))


def draw(M: int, B: int, a: int) -> tuple[Tensor, Tensor]:
    """Structures far from the origin, and which atoms are present; the others are far off."""
    torch.manual_seed(0)
    present = (torch.rand(B, a) < 0.9).float()
    present[:, 0] = 1
    x = 20 * torch.randn(M, B, a, 3) + 30
    x[:, present == 0] = 999.0
    return x.flatten(1, 2), present


def by_structure(x: Tensor, present: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Atoms and weights of each structure, in float64."""
    B = len(present)
    atoms = x.unflatten(1, present.shape).flatten(0, 1).double().numpy()
    weights = present.double().numpy()
    return [(each, weights[index % B]) for index, each in enumerate(atoms)]


@on_devices
@with_shapes
def test_structures_are_centred_and_moved(device: str, M: int, B: int, a: int) -> None:
    x, present = draw(M, B, a)
    rotation = quaternion_to_matrix(torch.randn(M * B, 4))
    translation = torch.randn(M * B, 1, 3)
    noise = torch.randn_like(x)
    arguments = (x, present, rotation, translation, noise)
    got = chosen(device).augment(*(each.to(device) for each in arguments)).cpu()
    expected = [
        (atoms - np.average(atoms, axis=0, weights=weights)) @ turn + shift
        for (atoms, weights), turn, shift in zip(
            by_structure(x, present), rotation.double().numpy(), translation.numpy(), strict=True
        )
    ]
    wanted = torch.from_numpy(np.stack(expected)).float().view_as(x) + noise
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-6)


def superposed(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """x on y: Kabsch 1978, with the determinant's sign."""
    center, target = (np.average(each, axis=0, weights=weights) for each in (x, y))
    u, _, vt = np.linalg.svd(((y - target) * weights[:, None]).T @ (x - center))
    u[:, -1] *= np.linalg.det(u @ vt)
    return (x - center) @ (u @ vt).T + target


@on_devices
@with_shapes
@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_euler_steps_go_from_the_superposed_structure(
    device: str, M: int, B: int, a: int, scale: float
) -> None:
    x, present = draw(M, B, a)
    turn = quaternion_to_matrix(torch.randn(M * B, 4))
    denoised = x.unflatten(1, present.shape).flatten(0, 1) @ turn.mT + torch.randn(M * B, 1, 3)
    denoised = denoised.view_as(x) + 3 * torch.randn_like(x)
    arguments = (x, denoised, present, torch.tensor([scale]))
    got = chosen(device).euler_step(*(each.to(device) for each in arguments)).cpu()
    expected = []
    for (atoms, weights), (target, _) in zip(
        by_structure(x, present), by_structure(denoised, present), strict=True
    ):
        start = superposed(atoms, target, weights)
        expected.append(start + scale * (target - start))
    wanted = torch.from_numpy(np.stack(expected)).float().view_as(x)
    torch.testing.assert_close(got, wanted, atol=2e-3, rtol=1e-5)


@on_devices
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_motion_is_undone_at_any_size(device: str, size: float) -> None:
    torch.manual_seed(1)
    target = size * torch.randn(7, 40, 3)
    turn = quaternion_to_matrix(torch.randn(7, 4))
    moved = target @ turn.mT + size * torch.randn(7, 1, 3)
    x, y, present, scale = (
        each.to(device) for each in (moved, target, torch.ones(1, 40), torch.zeros(1))
    )
    superposed = chosen(device).euler_step(x, y, present, scale).cpu()
    torch.testing.assert_close(superposed, target, atol=2e-5 * size, rtol=1e-5)


@on_devices
@pytest.mark.parametrize("length", [60.0, 3.0, 0.0])
@pytest.mark.parametrize("num_atoms", [1, 2, 5])
def test_atoms_on_a_line_or_a_point_are_turned_onto_their_copy(
    device: str, num_atoms: int, length: float
) -> None:
    """Around the line any rotation will do, as two eigenvalues are largest."""
    torch.manual_seed(0)
    direction = F.normalize(torch.randn(4, 1, 3), dim=-1)
    target = length * torch.linspace(-0.5, 0.5, num_atoms)[:, None] * direction
    turn = quaternion_to_matrix(torch.randn(4, 4))
    moving = target @ turn.mT + torch.randn(4, 1, 3)
    x, y, present, scale = (
        each.to(device) for each in (moving, target, torch.ones(1, num_atoms), torch.zeros(1))
    )
    got = chosen(device).euler_step(x, y, present, scale)
    torch.testing.assert_close(got, y, atol=1e-4, rtol=0)
