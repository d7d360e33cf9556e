"""Random motions and Euler steps of structures; the PyTorch reference."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from foldcp.geometry import Coords, superpose


class SamplerStep:
    """Operations on M samples of B complexes, of `a` atoms each: A = B a atoms one after the other,
    of which those are real where `present` is 1. Without gradients.
    """

    def augment(
        self,
        x: Coords,
        present: Float[Tensor, "B a"],
        rotation: Float[Tensor, "S 3 3"],
        translation: Float[Tensor, "S 1 3"],
        noise: Coords,
    ) -> Coords:
        """Every structure centred, rotated and moved by one of S = M B motions, and the noise, all
        in Å: AlphaFold 3, algorithm 19, and line 7 of algorithm 18.
        """
        B = len(present)
        share = (present / present.sum(1, keepdim=True))[..., None]
        by_complex = x.unflatten(1, (B, -1))
        centered = by_complex - (share * by_complex).sum(-2, keepdim=True)
        moved = centered @ rotation.unflatten(0, (-1, B)) + translation.unflatten(0, (-1, B))
        return moved.flatten(1, 2) + noise

    def euler_step(
        self,
        x: Coords,
        denoised: Coords,
        present: Float[Tensor, "B a"],
        step_scale: Float[Tensor, "1"],
    ) -> Coords:
        """One step from the noisy structures x, superposed, towards the denoised ones, in Å:
        AlphaFold 3, algorithm 18, lines 9 to 11; at scale 1 it ends there.
        """
        noisy, target = (each.unflatten(1, present.shape) for each in (x, denoised))
        superposed = superpose(noisy, target, present).flatten(1, 2)
        return superposed + step_scale * (denoised - superposed)
