"""Order and number of the chains of a complex."""

from __future__ import annotations

from collections.abc import Iterable

from foldcp.complex import Chain

MAX_CHAINS = 100_000  # of a complex; the largest of CORUM has 129


def check_num_chains(num_chains: int) -> None:
    """Raise ValueError for more chains than a complex may have, before they are made."""
    if num_chains > MAX_CHAINS:
        raise ValueError(f"{num_chains:,} chains exceed the maximum of {MAX_CHAINS:,}")


def group_by_entity(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """The chains with the copies of one molecule side by side, molecules in order of occurrence.

    This is the order of Boltz's tokens. Unlike Boltz, two chains of one sequence that differ in
    their modifications or in being cyclic are two molecules: Boltz would give all of them those of
    the first.
    """
    groups: dict[object, list[Chain]] = {}
    for chain in chains:
        molecule = (
            chain.kind,
            chain.sequence,
            chain.ccd,
            chain.smiles,
            chain.modifications,
            chain.cyclic,
        )
        groups.setdefault(molecule, []).append(chain)
    return tuple(chain for group in groups.values() for chain in group)
