"""The published formulas of interface scores, written slowly on N x N arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from foldcp.features.layout import Layout

CUTOFF_NAMES = ("ipsae_d0res", "ipsae_d0chn", "ipsae_d0dom", "lis", "lia", "clis", "clia", "ilis")


def scalar_d0(n: int, floor: float) -> float:
    return max(floor, 1.24 * (n - 15) ** (1 / 3) - 1.8) if n > 27 else floor


def ipsae(block: np.ndarray, floor: float, cutoff: float = 10) -> dict[str, float]:
    """The three ipSAE of one directed block of expected PAE."""
    near = block < cutoff
    fixed = {
        "ipsae_d0chn": scalar_d0(sum(block.shape), floor),
        "ipsae_d0dom": scalar_d0(near.any(0).sum() + near.any(1).sum(), floor),
    }
    best = dict.fromkeys(("ipsae_d0res", *fixed), 0.0)
    for errors in (row[row < cutoff] for row in block):
        if len(errors):
            by_row = max(floor, 1.24 * (max(26, len(errors)) - 15) ** (1 / 3) - 1.8)
            for name, d0 in {"ipsae_d0res": by_row, **fixed}.items():
                best[name] = max(best[name], (1 / (1 + (errors / d0) ** 2)).mean())
    return best


def lis(block: np.ndarray, contact: np.ndarray, cutoff: float) -> dict[str, float]:
    """LIS and its relatives of one directed block, as lis_analysis_colabfold.py takes them."""
    scores = {}
    for prefix, mask in (("", block < cutoff), ("c", (block < cutoff) & contact)):
        scores[f"{prefix}lia"] = float(mask.sum())
        scores[f"{prefix}lis"] = (1 - block[mask] / cutoff).mean() if mask.any() else 0.0
    return scores | {"ilis": (scores["lis"] * scores["clis"]) ** 0.5}


def cutoff_scores(
    layout: Layout, pae: np.ndarray, contact: np.ndarray, cutoff: int
) -> dict[str, np.ndarray]:
    """Every field of CutoffScores. `contact` is [T, T]."""
    C = len(layout.chain_kinds)
    scores = {name: np.full((C, C), np.nan) for name in CUTOFF_NAMES}
    for a, b, rows, columns in chain_pairs(layout):
        kinds = {layout.chain_kinds[a], layout.chain_kinds[b]}
        if "ligand" in kinds:
            continue
        block = pae[np.ix_(rows, columns)]
        floor = 1.0 if kinds == {"protein"} else 2.0
        values = ipsae(block, floor, cutoff) | lis(block, contact[np.ix_(rows, columns)], cutoff)
        for name, value in values.items():
            scores[name][a, b] = value
    return scores


def chain_pairs(layout: Layout) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """(a, b, tokens of a, tokens of b) of every directed pair of different chains."""
    tokens = [np.flatnonzero(layout.token_chain == c) for c in range(len(layout.chain_kinds))]
    pairs: list[Any] = []
    for a, rows in enumerate(tokens):
        pairs += [(a, b, rows, columns) for b, columns in enumerate(tokens) if a != b]
    return pairs
