"""Filters of structures and chains to train on, as Boltz-2's training data were filtered.

Source: Boltz, `src/boltz/data/filter` and `scripts/process/rcsb.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
from scipy.spatial import KDTree

from foldcp.datasets.training.interfaces import near_boxes
from foldcp.datasets.training.read import UNKNOWN_LETTERS
from foldcp.training.data.structure import ExperimentalChain, ExperimentalStructure

ChainFilter = Literal["short", "long", "unknown", "broken", "clashing", "ligand"]
StructureFilter = Literal["date", "resolution", "chains", "residues", "empty"]


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Limits on what is trained on; the defaults are those published for Boltz-2.

    A structure without a resolution passes, as one from NMR does. Raises ValueError naming a number
    that is out of range, and what is no date.
    """

    before: str = "2023-06-01"  # date of release, else of deposition; empty: any
    undated: bool = False  # whether a structure without a date passes
    max_resolution: float = 9.0  # Å
    max_chains: int = 300
    max_residues: int = 0  # of polymers; 0: any number
    min_resolved: int = 4  # residues of a polymer
    max_resolved: int = 5000
    max_ca_distance: float = 10.0  # Å, of consecutive residues
    clash_distance: float = 1.7  # Å
    clash_fraction: float = 0.3  # of a chain's atoms
    ligands: bool = True

    def __post_init__(self) -> None:
        for name in ("max_resolution", "max_chains", "min_resolved", "max_ca_distance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.before and not _is_date(self.before):
            raise ValueError(f"before must be a date, such as 2023-06-01, not {self.before!r}")
        if self.max_residues < 0:
            raise ValueError(f"max_residues must be at least 0, not {self.max_residues}")


def _is_date(text: str) -> bool:
    """Whether a text is a date as structure files write it, YYYY-MM-DD."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@dataclass(frozen=True)
class Filtered:
    """A structure with the chains that are left, and what was dropped.

    `reason` says why the structure as a whole was dropped; empty for one that was not.
    """

    structure: ExperimentalStructure
    dropped: dict[ChainFilter, tuple[str, ...]]  # names of chains
    dropped_by: StructureFilter | None = None
    reason: str = ""


def filter_structure(structure: ExperimentalStructure, settings: FilterSettings) -> Filtered:
    """Judge a structure, then drop chains of one that is kept."""
    for dropped_by, reason in _judge(structure, settings):
        return Filtered(structure, {}, dropped_by, reason)
    dropped: dict[ChainFilter, tuple[str, ...]] = {}
    kept = list(structure.chains)
    tests: dict[ChainFilter, Callable[[ExperimentalChain], bool]] = {
        "ligand": lambda chain: chain.kind == "ligand" and not settings.ligands,
        "short": lambda chain: _resolved(chain) < settings.min_resolved,
        "long": lambda chain: settings.max_resolved < _resolved(chain) < np.inf,
        "unknown": _is_unknown,
        "broken": lambda chain: _is_broken(chain, settings.max_ca_distance),
    }
    for name, test in tests.items():
        found = [chain.name for chain in kept if test(chain)]
        if found:
            dropped[name] = tuple(found)
            kept = [chain for chain in kept if chain.name not in found]
    clashing = [kept[i].name for i in sorted(clashing_chains(kept, settings))]
    if clashing:
        dropped["clashing"] = tuple(clashing)
        kept = [chain for chain in kept if chain.name not in clashing]
    names = {chain.name for chain in kept}
    bonds = tuple(bond for bond in structure.bonds if {end[0] for end in bond} <= names)
    left = replace(structure, chains=tuple(kept), bonds=bonds)
    if not any(chain.kind != "ligand" for chain in left.chains):
        return Filtered(left, dropped, "empty", "no polymer is left")
    return Filtered(left, dropped)


def _resolved(chain: ExperimentalChain) -> float:
    """Resolved residues of a polymer; infinite for a ligand, which has no least length."""
    return np.inf if chain.kind == "ligand" else float(chain.num_resolved)


def _judge(
    structure: ExperimentalStructure, settings: FilterSettings
) -> Iterator[tuple[StructureFilter, str]]:
    """The reasons to drop a structure as it is in the file."""
    if settings.before and not structure.date and not settings.undated:
        yield "date", "the file has no date"
    if settings.before and structure.date >= settings.before:
        yield "date", f"its date {structure.date} is not before {settings.before}"
    if structure.resolution is not None and structure.resolution > settings.max_resolution:
        yield "resolution", f"{structure.resolution:g} Å, above {settings.max_resolution:g} Å"
    if len(structure.chains) > settings.max_chains:
        yield "chains", f"{len(structure.chains)} chains, above {settings.max_chains}"
    if settings.max_residues and structure.num_residues > settings.max_residues:
        yield "residues", f"{structure.num_residues} residues, above {settings.max_residues}"


def _is_unknown(chain: ExperimentalChain) -> bool:
    """Whether a polymer has nothing but unknown residues."""
    return chain.kind != "ligand" and set(chain.letters) <= {UNKNOWN_LETTERS[chain.kind]}


def _is_broken(chain: ExperimentalChain, max_distance: float) -> bool:
    """Whether the CA atoms of two consecutive residues of a protein are further apart."""
    if chain.kind != "protein":
        return False
    is_ca = np.array(chain.atom_names) == "CA"
    residues = chain.atom_residue[is_ca]
    coords = chain.coords[is_ca]
    distances = np.linalg.norm(np.diff(coords, axis=0), axis=1)
    return bool((distances[np.diff(residues) == 1] > max_distance).any())


@dataclass(frozen=True)
class _Clash:
    """A chain with too many atoms close to another one."""

    chain: int
    other: int
    fraction: float  # of its atoms
    num_atoms: int


def clashing_chains(chains: Sequence[ExperimentalChain], settings: FilterSettings) -> set[int]:
    """The chains to drop so that none clashes.

    Of two that clash with each other goes the one with the larger share of clashing atoms, else the
    one with fewer atoms, else the later one.
    """
    trees = [KDTree(chain.coords) for chain in chains]
    clashes: dict[tuple[int, int], _Clash] = {}
    for i, j in near_boxes(chains, settings.clash_distance):
        for a, b in ((i, j), (j, i)):
            near, _ = trees[b].query(chains[a].coords, distance_upper_bound=settings.clash_distance)
            fraction = float(np.isfinite(near).mean())
            if fraction > settings.clash_fraction:
                clashes[a, b] = _Clash(a, b, fraction, len(chains[a].coords))
    dropped: set[int] = set()
    for (a, b), clash in clashes.items():
        if a in dropped or b in dropped:
            continue
        mutual = clashes.get((b, a))
        dropped.add(a if mutual is None else max(clash, mutual, key=_badness).chain)
    return dropped


def _badness(clash: _Clash) -> tuple[float, int, int]:
    return clash.fraction, -clash.num_atoms, clash.chain
