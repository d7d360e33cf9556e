"""Confidence losses: what is to be predicted of a structure, and the cross-entropies of the heads.

Of one sample each. What grows with the number of pairs of tokens is computed for some rows at a
time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.example import LIGAND, PROTEIN, Truth
from foldcp.training.losses.frames import (
    frame_axes,
    frames_of,
    resolved_frames,
    seen_from,
)
from foldcp.training.losses.partial import precise

MAX_ERROR = 32.0  # Å, of PAE and PDE
LDDT_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # Å
LDDT_CUTOFF = 15.0  # Å, to an atom of a protein; of a nucleic acid twice
EPSILON = 1e-7  # keeps a mean of nothing finite


class Assigned(NamedTuple):
    """The truth as it is assigned to a sample (`foldcp.training.assignment`)."""

    coords: Float[Tensor, "A 3"]  # Å
    resolved: Float[Tensor, " A"]


class PairErrors(NamedTuple):
    """Bins of the errors of pairs, and 1 at pairs that count."""

    bins: Int[Tensor, "R N"]
    mask: Float[Tensor, "R N"]


def plddt_loss(
    own_logits: Float[Tensor, "I B"],
    coords: Float[Tensor, "A 3"],
    assigned: Assigned,
    truth: Truth,
    features: Features,
    cp: ContextParallel,
    budget: ChunkBudget,
) -> Float[Tensor, ""]:
    """This rank's part of the cross-entropy of each token's lDDT.

    Source: AlphaFold 3, section 4.3.1, with the representative atom of a token for all of its
    atoms; Boltz, `plddt_loss`.
    """
    num_bins = own_logits.shape[-1]
    lddt, known = token_lddt(coords, assigned, truth, features, cp, budget)
    bins = (lddt * num_bins).floor().long().clamp(0, num_bins - 1)
    errors = _cross_entropy(own_logits, bins)
    num_known = cp.all_reduce(known.sum())
    return (errors * known).sum() / (EPSILON + num_known)


def token_lddt(
    coords: Float[Tensor, "A 3"],
    assigned: Assigned,
    truth: Truth,
    features: Features,
    cp: ContextParallel,
    budget: ChunkBudget,
) -> tuple[Float[Tensor, " I"], Float[Tensor, " I"]]:
    """lDDT of this rank's tokens to `truth.lddt_atoms`, and 1 where there are pairs to compare."""
    atoms = truth.lddt_atoms
    kind = features.mol_type[features.atom_token[atoms]]
    is_nucleic = (kind > PROTEIN) & (kind < LIGAND)
    cutoff = torch.where(is_nucleic, 2 * LDDT_CUTOFF, LDDT_CUTOFF)
    own_atoms = cp.shard(features.rep_atom)
    own_mask = cp.shard(features.token_mask) * assigned.resolved[own_atoms]
    other_mask = assigned.resolved[atoms]
    score = coords.new_zeros(len(own_atoms))
    total = torch.zeros_like(score)
    for rows in budget.chunks(len(own_atoms), 10 * len(atoms) * 4, coords.device):
        own = own_atoms[rows]
        true = distances(assigned.coords[own], assigned.coords[atoms])
        error = (true - distances(coords[own], coords[atoms])).abs()
        both = own_mask[rows, None] * other_mask * (own[:, None] != atoms)
        counted = both * (true < cutoff)
        for threshold in LDDT_THRESHOLDS:
            score[rows] += (counted * (error < threshold)).sum(1) / len(LDDT_THRESHOLDS)
        total[rows] = counted.sum(1)
    known = own_mask * (total > 0)
    # The product with the inverse, as in Boltz, rounds to the same side of the edge of a bin.
    inverse = 1 / (1e-10 + total)
    return inverse * (1e-10 + score), known.to(coords)


def resolved_loss(
    own_logits: Float[Tensor, "I 2"],
    assigned: Assigned,
    features: Features,
    cp: ContextParallel,
) -> Float[Tensor, ""]:
    """This rank's part of the cross-entropy of whether a representative atom is resolved (0) or
    not (1). Source: AlphaFold 3, section 4.3.3; Boltz, `resolved_loss`.
    """
    mask = features.token_mask.to(precise(own_logits))
    is_missing = (assigned.resolved[features.rep_atom] == 0) | (mask == 0)
    errors = _cross_entropy(own_logits, cp.shard(is_missing.long()))
    return (errors * cp.shard(mask)).sum() / (EPSILON + mask.sum())


class PairTargets:
    """What PDE and PAE of a sample should be, for rows at a time."""

    def __init__(
        self,
        coords: Float[Tensor, "A 3"],
        assigned: Assigned,
        truth: Truth,
        features: Features,
    ) -> None:
        self.points = coords[features.rep_atom]
        self.true_points = assigned.coords[features.rep_atom]
        self.known = assigned.resolved[features.rep_atom] * features.token_mask
        # Frames of ligands are those of the assigned structure; which frames are resolved is taken
        # from the truth as it was given, and of a prediction from its atoms that are resolved
        # there, all as Boltz does.
        given = frames_of(features, truth.coords, truth.resolved)
        true = frames_of(features, assigned.coords, assigned.resolved)
        predicted = frames_of(features, coords, truth.resolved)
        self.true_axes = frame_axes(assigned.coords, true)
        self.axes = frame_axes(coords, predicted)
        self.valid = resolved_frames(given, truth.resolved) & true.valid & predicted.valid
        self.seen = assigned.resolved[true.atoms[:, 1]] * features.token_mask

    def pde(self, tokens: slice, num_bins: int) -> PairErrors:
        """|d_ij - true d_ij| of representative atoms. Source: AlphaFold 3, section 4.3.2."""
        true = distances(self.true_points[tokens], self.true_points)
        error = (true - distances(self.points[tokens], self.points)).abs()
        return PairErrors(_error_bins(error, num_bins), self.known[tokens, None] * self.known)

    def pae(self, tokens: slice, num_bins: int) -> PairErrors:
        """How far the origin of frame j is from where it should be, seen from frame i. Source:
        AlphaFold 3, algorithm 30.
        """
        offset = seen_from(self.true_axes, tokens) - seen_from(self.axes, tokens)
        error = (offset.square().sum(-1) + 1e-8).sqrt()
        return PairErrors(_error_bins(error, num_bins), self.valid[tokens, None] * self.seen)

    def num_pde(self) -> Float[Tensor, ""]:
        """Pairs that count for PDE."""
        return self.known.sum().square()

    def num_pae(self) -> Float[Tensor, ""]:
        """Pairs that count for PAE."""
        return self.valid.sum() * self.seen.sum()


def pair_error(logits: Float[Tensor, "R N B"], target: PairErrors) -> Float[Tensor, ""]:
    """The sum of the cross-entropies of some rows."""
    return (_cross_entropy(logits, target.bins) * target.mask).sum()


def _error_bins(error: Float[Tensor, "R N"], num_bins: int) -> Int[Tensor, "R N"]:
    # Clamped at 0, too, as a number that is not finite becomes any integer.
    return (error * num_bins / MAX_ERROR).floor().long().clamp(0, num_bins - 1)


def _cross_entropy(logits: Float[Tensor, "*S B"], bins: Int[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    log_prob = F.log_softmax(precise(logits), -1)
    return -log_prob.gather(-1, bins[..., None])[..., 0]
