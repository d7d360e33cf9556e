"""TM-score of atoms that are known to correspond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.measures.superposition import rotation_and_translation
from foldcp.pipeline.evaluation.structures.chain import TRACE_ATOMS

MIN_FRAGMENT = 4  # residues that a search begins with
MAX_SHIFTS = 40  # fragments of each length
MAX_ITERATIONS = 20
MAX_POINTS = 2_000_000  # fragments by residues that are moved at once
MIN_SCALE = 0.5  # Å
SHORT = 21  # residues; d0 of shorter chains is the least
SEARCH_LIMITS = (4.5, 8.0)  # Å, of the cutoff within which residues are superposed
Rigid = tuple[Float[np.ndarray, "S 3 3"], Float[np.ndarray, "S 3"]]


def tm_scale(length: int, is_nucleic: bool = False) -> float:
    """d0 in Å. Sources: Zhang and Skolnick 2004; of nucleic acids, Gong 2019 (RNA-align)."""
    if is_nucleic:
        return _nucleic_scale(length)
    if length <= SHORT:
        return MIN_SCALE
    return max(1.24 * (length - 15) ** (1 / 3) - 1.8, MIN_SCALE)


def _nucleic_scale(length: int) -> float:
    for limit, scale in ((11, 0.3), (15, 0.4), (19, 0.5), (23, 0.6), (29, 0.7)):
        if length <= limit:
            return scale
    return 0.6 * np.sqrt(length - 0.5) - 2.5


def complex_tm_score(pairs: Sequence[ChainPair]) -> float:
    """TM-score of all chains together, as they are assigned; NaN without common residues.

    Over CA atoms of proteins and C3' of nucleic acids, whose d0 is taken where they are more than
    half. Normalised by the number of these atoms in the assigned chains of the reference.
    """
    lengths = [
        int((pair.reference.atom_names == TRACE_ATOMS[pair.reference.kind]).sum()) for pair in pairs
    ]
    num_nucleic = sum(
        n for n, pair in zip(lengths, pairs, strict=True) if pair.reference.kind != "protein"
    )
    model = np.concatenate([pair.model_coords[pair.is_trace] for pair in pairs])
    reference = np.concatenate([pair.reference_coords[pair.is_trace] for pair in pairs])
    length = sum(lengths)
    return tm_score(model, reference, length, tm_scale(length, 2 * num_nucleic > length))


def tm_score(
    model: Float[np.ndarray, "N 3"],
    reference: Float[np.ndarray, "N 3"],
    length: int,
    scale: float,
) -> float:
    """The largest sum of 1 / (1 + (d / scale)²) over atoms, divided by the length, over
    superpositions. NaN without atoms.

    Fragments of several lengths are superposed, then the atoms that come near, until these stay
    the same. Source: Zhang and Skolnick 2004.
    """
    N = len(model)
    if N == 0:
        return np.nan
    model = model - model.mean(axis=0)
    reference = reference - reference.mean(axis=0)
    starts = [np.ones((1, N), dtype=bool)] if N < MIN_FRAGMENT else _fragments(N)
    per_batch = max(1, MAX_POINTS // N)
    best = 0.0
    for fragments in starts:
        for first in range(0, len(fragments), per_batch):
            chosen = fragments[first : first + per_batch]
            best = max(best, _search(model, reference, chosen, scale))
    return best / length


def _fragments(N: int) -> list[Bool[np.ndarray, "S N"]]:
    """Fragments of N, N/2, N/4 .. residues, evenly over the sequence."""
    found = []
    size = N
    while True:
        num_shifts = min(MAX_SHIFTS, N - size + 1)
        starts = np.unique(np.linspace(0, N - size, num_shifts).astype(int))
        position = np.arange(N)
        found.append((position >= starts[:, None]) & (position < starts[:, None] + size))
        if size == MIN_FRAGMENT:
            return found
        size = max(size // 2, MIN_FRAGMENT)


def _search(
    model: Float[np.ndarray, "N 3"],
    reference: Float[np.ndarray, "N 3"],
    chosen: Bool[np.ndarray, "S N"],
    scale: float,
) -> float:
    """The best sum of the searches that begin with some fragments."""
    limits = np.clip(scale, *SEARCH_LIMITS)
    cutoff = limits - 1
    best = 0.0
    for _ in range(MAX_ITERATIONS):
        squared = _squared_distances(model, reference, chosen)
        best = max(best, float((1 / (1 + squared / scale**2)).sum(axis=1).max()))
        near = _near(squared, cutoff)
        cutoff = limits + 1
        is_open = (near != chosen).any(axis=1)
        if not is_open.any():
            break
        chosen = np.unique(near[is_open], axis=0)
    return best


def _near(squared: Float[np.ndarray, "S N"], cutoff: float) -> Bool[np.ndarray, "S N"]:
    """The atoms within the cutoff, or within the least larger one that at least three are in."""
    least = np.sort(squared, axis=1)[:, min(MIN_FRAGMENT - 1, squared.shape[1]) - 1]
    return squared <= np.maximum(cutoff**2, least)[:, None]


def _squared_distances(
    model: Float[np.ndarray, "N 3"],
    reference: Float[np.ndarray, "N 3"],
    chosen: Bool[np.ndarray, "S N"],
) -> Float[np.ndarray, "S N"]:
    """Squared distances of all atoms after the superposition of the chosen ones."""
    weights = chosen / chosen.sum(axis=1, keepdims=True)
    centers = weights @ model
    targets = weights @ reference
    products = (model[:, :, None] * reference[:, None, :]).reshape(len(model), 9)
    moments = (weights @ products).reshape(-1, 3, 3)
    covariance = moments - centers[:, :, None] * targets[:, None, :]
    rotation, translation = rotation_and_translation(covariance, centers, targets)
    moved = np.einsum("ni,sij->snj", model, rotation) + translation[:, None]
    return np.square(moved - reference).sum(axis=-1)
