"""Diffusion loss: noise levels, weighted MSE after rigid alignment, smooth lDDT."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.geometry import Coords, distances, superpose
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.example import LIGAND, PROTEIN, Truth
from foldcp.training.losses.partial import chunked_sum, own_rows, precise, total
from foldcp.training.settings import DiffusionLossSettings

SMOOTH_LDDT_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # Å
EPSILON = 1e-6  # Å, added to each coordinate of a difference, as PyTorch's pairwise_distance does


def noise_levels(
    normal: Float[Tensor, " M"], sigma_data: float, settings: DiffusionLossSettings
) -> Float[Tensor, " M"]:
    """Sigmas in Å, from standard normal numbers. Source: AlphaFold 3, section 3.7.1."""
    return sigma_data * (settings.noise_mean + settings.noise_std * normal).exp()


def mse_loss(
    denoised: Coords,
    target: Coords,
    sigmas: Float[Tensor, " M"],
    sigma_data: float,
    truth: Truth,
    features: Features,
    settings: DiffusionLossSettings,
    cp: ContextParallel,
) -> Float[Tensor, ""]:
    """This rank's part of the weighted squared error of the denoised structures.

    `target` is the structure to which noise was added; it is superposed onto each denoised one
    first. Source: AlphaFold 3, equations 2 to 4, and 6; Boltz, `AtomDiffusion.compute_loss`.
    """
    denoised = precise(denoised)
    weights = (_atom_weights(features, settings) * truth.resolved).to(denoised)
    with torch.no_grad():
        aligned = superpose(target.to(denoised), denoised.detach(), weights)
    own = own_rows(cp, denoised.shape[1])
    squared = (denoised[:, own] - aligned[:, own]).square().sum(-1)
    errors = (squared * weights[own]).sum(-1) / (3 * weights.sum() + 1e-5)
    sigmas = sigmas.to(denoised)
    scale = (sigmas.square() + sigma_data**2) / (sigmas * sigma_data).square()
    return (errors * scale).mean()


def _atom_weights(features: Features, settings: DiffusionLossSettings) -> Float[Tensor, " A"]:
    kind = features.mol_type[features.atom_token]
    is_nucleic = (kind > PROTEIN) & (kind < LIGAND)
    ones = features.atom_mask
    return (
        ones + settings.nucleic_acid_weight * is_nucleic + settings.ligand_weight * (kind == LIGAND)
    )


def smooth_lddt_loss(
    denoised: Coords,
    truth: Truth,
    features: Features,
    settings: DiffusionLossSettings,
    cp: ContextParallel,
    budget: ChunkBudget,
) -> Float[Tensor, ""]:
    """This rank's part of 1 - smooth lDDT, the mean over the denoised structures.

    A rank has the pairs of its share of the atoms with all atoms. Source: AlphaFold 3, algorithm
    27; Boltz, `smooth_lddt_loss`.
    """
    denoised = precise(denoised)
    M, A, _ = denoised.shape
    own = own_rows(cp, A)
    cutoff = _cutoffs(features, settings).to(denoised)
    resolved = truth.resolved > 0
    conformers = truth.conformers.to(denoised)
    conformer_of = conformer_of_sample(len(conformers), M, denoised.device)
    atoms = torch.arange(A, device=denoised.device)

    def scored(rows: slice) -> tuple[Tensor, Tensor]:
        """True distances, and which of them count: [K, R, A]."""
        distance = distances(conformers[:, rows], conformers)
        both = resolved[rows, None] & resolved & (atoms[rows, None] != atoms)
        return distance, (distance < cutoff[rows, None]) & both

    def of_rows(rows: slice) -> Float[Tensor, " M"]:
        rows = slice(own.start + rows.start, own.start + rows.stop)
        distance, mask = scored(rows)
        predicted = (denoised[:, rows, None] - denoised[:, None] + EPSILON).norm(dim=-1)
        error = (distance[conformer_of] - predicted).abs()
        score = sum(torch.sigmoid(threshold - error) for threshold in SMOOTH_LDDT_THRESHOLDS)
        assert isinstance(score, Tensor)
        return (score * mask[conformer_of]).sum((1, 2)) / len(SMOOTH_LDDT_THRESHOLDS)

    def count(rows: slice) -> Float[Tensor, " K"]:
        rows = slice(own.start + rows.start, own.start + rows.stop)
        return scored(rows)[1].sum((1, 2)).to(denoised)

    bytes_per_row = A * (14 * M + 4 * len(conformers)) * 4
    chunks = budget.chunks(own.stop - own.start, bytes_per_row, denoised.device)
    score = chunked_sum(of_rows, chunks, denoised.new_zeros(M))
    with torch.no_grad():
        own_pairs = chunked_sum(count, chunks, denoised.new_zeros(len(conformers)))
        num_pairs = total(cp, own_pairs)
    return 1 / cp.size - (score / (num_pairs[conformer_of] + 1e-5)).mean()


def _cutoffs(features: Features, settings: DiffusionLossSettings) -> Float[Tensor, " A"]:
    kind = features.mol_type[features.atom_token]
    is_nucleic = (kind > PROTEIN) & (kind < LIGAND)
    return torch.where(is_nucleic, settings.nucleic_acid_cutoff, settings.cutoff)


def conformer_of_sample(
    num_conformers: int, num_samples: int, device: torch.device
) -> Int[Tensor, " M"]:
    """The conformer that each sample is a noisy copy of. Their numbers must divide."""
    repeats = num_samples // num_conformers
    assert repeats * num_conformers == num_samples, f"{num_samples} samples, {num_conformers}"
    return torch.arange(num_samples, device=device) // repeats
