"""Assignment of symmetric copies and symmetric atoms of the truth to a predicted structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.geometry import distances
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.training.example import ChainSwap, Symmetries, Truth
from foldcp.training.losses.confidence import Assigned
from foldcp.training.losses.partial import own_rows

CUTOFF = 15.0  # Å
THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # Å
EPSILON = 1e-10


@torch.no_grad()
def assign(
    coords: Float[Tensor, "A 3"], truth: Truth, cp: ContextParallel, budget: ChunkBudget
) -> Assigned:
    """The truth with chains, then atoms of each residue, exchanged where the prediction's lDDT to
    it is higher; `coords` are the prediction in Å. Collective.

    Source: Boltz, `minimum_lddt_symmetry_coords`.
    """
    if truth.symmetries is None:
        return Assigned(truth.coords, truth.resolved)
    symmetries = truth.symmetries
    A = len(symmetries.atoms)
    scorer = _Lddt(coords[:A], cp, budget)
    best = None
    highest = -1.0
    for swaps in symmetries.chains:
        candidate = _with_swaps(symmetries, swaps, coords)
        lddt = scorer.whole(candidate)
        if lddt > highest:
            best = candidate
            highest = lddt
    assert best is not None, "no assignment of chains, not even the one of the file"
    for alternatives in symmetries.residues:
        best = _best_of_residue(scorer, best, alternatives)
    padded = Assigned(torch.zeros_like(coords), torch.zeros_like(coords[:, 0]))
    padded.coords[:A] = best.coords
    padded.resolved[:A] = best.resolved
    return padded


def _with_swaps(
    symmetries: Symmetries, swaps: Sequence[ChainSwap], coords: Float[Tensor, "A 3"]
) -> Assigned:
    """The example's atoms, without padding, with the coordinates of other chains."""
    source = torch.arange(len(symmetries.coords))
    for start, stop, other in swaps:
        source[start:stop] = torch.arange(other, other + stop - start)
    chosen = source[symmetries.atoms.cpu()]
    return Assigned(symmetries.coords[chosen].to(coords), symmetries.resolved[chosen].to(coords))


def _best_of_residue(
    scorer: _Lddt, start: Assigned, alternatives: Sequence[Int[np.ndarray, "n 2"]]
) -> Assigned:
    """The last symmetry of a residue that is better than none of them."""
    best = start
    for swaps in alternatives:
        to = torch.as_tensor(swaps[:, 0], device=start.coords.device)
        source = torch.as_tensor(swaps[:, 1], device=start.coords.device)
        swapped = Assigned(start.coords.clone(), start.resolved.clone())
        swapped.coords[to] = start.coords[source]
        swapped.resolved[to] = start.resolved[source]
        if scorer.of_atoms(swapped, to) > scorer.of_atoms(start, to):
            best = swapped
    return best


class _Lddt:
    """lDDT of a prediction to candidates for its truth; a rank has its share of the rows."""

    def __init__(
        self, coords: Float[Tensor, "R 3"], cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        self.coords = coords
        self.cp = cp
        self.budget = budget
        self.all_atoms = torch.arange(len(coords), device=coords.device)

    def whole(self, truth: Assigned) -> float:
        """Of all atoms."""
        return self.of_atoms(truth, self.all_atoms)

    def of_atoms(self, truth: Assigned, atoms: Tensor) -> float:
        """Of the pairs of any atom with these."""
        counts = torch.zeros(2, dtype=torch.float64, device=self.coords.device)
        own = own_rows(self.cp, len(self.coords))
        bytes_per_row = len(atoms) * 8 * 4
        for rows in self.budget.chunks(own.stop - own.start, bytes_per_row, counts.device):
            counts += self._counts(
                truth, atoms, slice(own.start + rows.start, own.start + rows.stop)
            )
        score, num_pairs = self.cp.all_reduce(counts).tolist()
        return (EPSILON + score) / (EPSILON + num_pairs)

    def _counts(self, truth: Assigned, atoms: Tensor, rows: slice) -> Float[Tensor, "2"]:
        """The score of these rows, and their number of pairs; both exact."""
        true = distances(truth.coords[rows], truth.coords[atoms])
        error = (true - distances(self.coords[rows], self.coords[atoms])).abs()
        both = truth.resolved[rows, None] * truth.resolved[atoms] > 0
        counted = both & (self.all_atoms[rows, None] != atoms) & (true < CUTOFF)
        hits = [(counted & (error < threshold)).sum() for threshold in THRESHOLDS]
        score = torch.stack(hits).sum().double() / len(THRESHOLDS)
        return torch.stack([score, counted.sum().double()])
