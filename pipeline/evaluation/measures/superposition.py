"""Least-squares superposition."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Coords = Float[np.ndarray, "*M A 3"]


def superposition(
    moving: Coords, target: Coords
) -> tuple[Float[np.ndarray, "*M 3 3"], Float[np.ndarray, "*M 3"]]:
    """The rotation R and translation t of `moving` @ R + t with the least sum of squares from
    `target`, of several sets of atoms at once. Never mirrors.

    Source: Kabsch 1978.
    """
    moving_center = moving.mean(axis=-2, keepdims=True)
    target_center = target.mean(axis=-2, keepdims=True)
    centered = np.swapaxes(moving - moving_center, -1, -2)
    return rotation_and_translation(
        centered @ (target - target_center), moving_center[..., 0, :], target_center[..., 0, :]
    )


def rotation_and_translation(
    covariance: Float[np.ndarray, "*M 3 3"],
    moving_center: Float[np.ndarray, "*M 3"],
    target_center: Float[np.ndarray, "*M 3"],
) -> tuple[Float[np.ndarray, "*M 3 3"], Float[np.ndarray, "*M 3"]]:
    """The superposition that belongs to a covariance of centred atoms, moving by target."""
    u, _, vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    u[..., -1] *= sign[..., None]
    rotation = u @ vt
    translation = target_center - np.einsum("...i,...ij->...j", moving_center, rotation)
    return rotation, translation


def rmsd(first: Coords, second: Coords) -> float:
    """Root of the mean square distance of two sets of atoms, in Å, as they lie."""
    return float(np.sqrt(np.square(first - second).sum(axis=-1).mean()))


def superposed_rmsd(moving: Coords, target: Coords) -> float:
    """Root of the mean square distance after superposition, in Å."""
    rotation, translation = superposition(moving, target)
    return rmsd(moving @ rotation + translation, target)
