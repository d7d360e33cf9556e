"""How do chains of one complex get their order and their names?"""

from __future__ import annotations

from collections.abc import Iterable

from foldcp.complex import Chain


def by_molecule(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """The chains with the copies of one molecule next to each other, molecules in the order they first occur.

    This is the order of Boltz's tokens. Unlike Boltz, two chains of one sequence that differ in their
    modifications or in being cyclic are two molecules: Boltz would give all of them those of the first.
    """
    groups: dict[object, list[Chain]] = {}
    for chain in chains:
        molecule = (chain.kind, chain.sequence, chain.ccd, chain.smiles, chain.modifications, chain.cyclic)
        groups.setdefault(molecule, []).append(chain)
    return tuple(chain for group in groups.values() for chain in group)
