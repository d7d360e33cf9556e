"""Sampling of chains and interfaces by their clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from foldcp.training.data.prepared import IndexRow
from foldcp.training.data.settings import DataSettings


@dataclass(frozen=True)
class Item:
    """What an example is drawn around: a chain, or two that touch, of a structure."""

    row: int  # of the index
    chains: tuple[int, ...]  # numbers in the structure, one or two


def items_and_weights(
    rows: Sequence[IndexRow], settings: DataSettings
) -> tuple[list[Item], Float[np.ndarray, " I"]]:
    """The chains and interfaces of structures, and the probability of each.

    w = beta / (size of its cluster) * sum over its chains of alpha. Source: AlphaFold 3, section
    2.5.1; Boltz, `ClusterSampler`. Ligands are left out where the settings leave them out.
    """
    items = []
    for number, row in enumerate(rows):
        kept = [
            i for i, chain in enumerate(row.chains) if settings.ligands or chain.kind != "ligand"
        ]
        items += [Item(number, (i,)) for i in kept]
        items += [Item(number, pair) for pair in row.interfaces if set(pair) <= set(kept)]
    clusters = [_cluster(rows[item.row], item) for item in items]
    sizes = Counter(clusters)
    weights = np.array(
        [
            _weight(rows[item.row], item, settings) / sizes[cluster]
            for item, cluster in zip(items, clusters, strict=True)
        ]
    )
    return items, weights / weights.sum()


class ItemSampler:
    """Draws of chains and interfaces by their probabilities."""

    def __init__(self, rows: Sequence[IndexRow], settings: DataSettings) -> None:
        self.items, self.weights = items_and_weights(rows, settings)
        self._cumulative = np.cumsum(self.weights)

    def draw(self, rng: np.random.Generator) -> Item:
        """One of them."""
        chosen = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        return self.items[min(chosen, len(self.items) - 1)]  # the sum may be below 1 by rounding


def _cluster(row: IndexRow, item: Item) -> tuple[str, ...]:
    """The cluster of a chain, or the clusters of an interface's chains in any order."""
    return tuple(sorted(row.chains[i].cluster for i in item.chains))


def _weight(row: IndexRow, item: Item, settings: DataSettings) -> float:
    alpha = {
        "protein": settings.alpha_protein,
        "dna": settings.alpha_nucleic,
        "rna": settings.alpha_nucleic,
        "ligand": settings.alpha_ligand,
    }
    beta = settings.beta_chain if len(item.chains) == 1 else settings.beta_interface
    return beta * sum(alpha[row.chains[i].kind] for i in item.chains)
