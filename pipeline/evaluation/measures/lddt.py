"""lDDT: the share of distances between near atoms that are kept, without a superposition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair

INCLUSION = 15.0  # Å, of distances in the reference
THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # Å, of differences
CHUNK_ATOMS = 4_096
# Atoms that a rotation by 180 degrees exchanges, so that their names may be either way round.
SYMMETRIC_ATOMS = {
    "ARG": (("NH1", "NH2"),),
    "ASP": (("OD1", "OD2"),),
    "GLU": (("OE1", "OE2"),),
    "LEU": (("CD1", "CD2"),),
    "PHE": (("CD1", "CD2"), ("CE1", "CE2")),
    "TYR": (("CD1", "CD2"), ("CE1", "CE2")),
    "VAL": (("CG1", "CG2"),),
}
SYMMETRIC_NUCLEOTIDE_ATOMS = (("OP1", "OP2"),)


@dataclass(frozen=True, slots=True)
class Lddt:
    """lDDT of a structure, of its interfaces, and of each pair of chains (lower number first).

    NaN where the reference has no such distances.
    """

    all: float
    interfaces: float
    by_pair: Mapping[tuple[int, int], float]


def lddt(pairs: Sequence[ChainPair]) -> Lddt:
    """lDDT over all heavy atoms that both structures have of their common residues.

    A distance counts if it is below 15 Å in the reference and its atoms are of different residues;
    the score is its share of the thresholds 0.5, 1, 2 and 4 Å that the difference stays below. Of
    `interfaces`, it is that between different chains. Names of symmetric atoms are exchanged where
    that fits better. Stereochemistry is not checked. Source: Mariani 2013.
    """
    atoms = _Atoms.of(pairs)
    model = _with_best_names(atoms)
    num_chains = len(pairs)
    kept = np.zeros(num_chains**2)
    total = np.zeros(num_chains**2)
    for i, j, distance in _near(atoms.reference, np.arange(len(atoms.reference)), half=True):
        is_counted = atoms.residue[i] != atoms.residue[j]
        i = i[is_counted]
        j = j[is_counted]
        shares = _kept_shares(model[i], model[j], distance[is_counted])
        chain = atoms.chain[i] * num_chains + atoms.chain[j]
        kept += np.bincount(chain, shares, minlength=num_chains**2)
        total += np.bincount(chain, minlength=num_chains**2)
    kept = kept.reshape(num_chains, num_chains)
    total = total.reshape(num_chains, num_chains)
    same = np.eye(num_chains, dtype=bool)
    return Lddt(
        all=_share(kept.sum(), total.sum()),
        interfaces=_share(kept[~same].sum(), total[~same].sum()),
        by_pair={
            (a, b): _share(kept[a, b] + kept[b, a], total[a, b] + total[b, a])
            for a in range(num_chains)
            for b in range(a + 1, num_chains)
            if total[a, b] + total[b, a]
        },
    )


def kept_share(
    model: Float[np.ndarray, "n 3"],
    other_model: Float[np.ndarray, "m 3"],
    pairs: Int[np.ndarray, "D 2"],
    distances: Float[np.ndarray, " D"],
) -> float:
    """The share of given distances that two sets of atoms keep; NaN without any."""
    if not len(pairs):
        return np.nan
    return float(_kept_shares(model[pairs[:, 0]], other_model[pairs[:, 1]], distances).mean())


def _share(kept: float, total: float) -> float:
    return float(kept / total) if total else np.nan


def _kept_shares(
    first: Float[np.ndarray, "D 3"],
    second: Float[np.ndarray, "D 3"],
    distances: Float[np.ndarray, " D"],
) -> Float[np.ndarray, " D"]:
    """The share of thresholds that the difference of each distance stays below."""
    step = first - second
    difference = np.abs(np.sqrt(np.einsum("di,di->d", step, step)) - distances)
    found = np.zeros(len(difference))
    for threshold in THRESHOLDS:
        found += difference < threshold
    return found / len(THRESHOLDS)


@dataclass(frozen=True, eq=False)
class _Atoms:
    """The common atoms of all chains, one after the other."""

    model: Float[np.ndarray, "A 3"]
    reference: Float[np.ndarray, "A 3"]
    chain: Int[np.ndarray, " A"]
    residue: Int[np.ndarray, " A"]  # numbered over all chains
    exchanged: Int[np.ndarray, " A"]  # the atom whose name it may have; itself if none

    @classmethod
    def of(cls, pairs: Sequence[ChainPair]) -> _Atoms:
        sizes = [len(pair.alignment.model) for pair in pairs]
        counts = [len(pair.atom_column) for pair in pairs]
        return cls(
            model=np.concatenate([pair.model_coords for pair in pairs]),
            reference=np.concatenate([pair.reference_coords for pair in pairs]),
            chain=np.repeat(np.arange(len(pairs)), counts),
            residue=_numbered([pair.atom_column for pair in pairs], sizes),
            exchanged=_numbered([_exchanged(pair) for pair in pairs], counts),
        )


def _numbered(
    numbers: Sequence[Int[np.ndarray, " k"]], sizes: Sequence[int]
) -> Int[np.ndarray, " A"]:
    """Numbers that begin anew in each chain, as numbers over all chains."""
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([start + part for start, part in zip(starts, numbers, strict=True)])


def _exchanged(pair: ChainPair) -> Int[np.ndarray, " K"]:
    """The atom of the residue that each may be exchanged with; itself where there is none."""
    partner = np.arange(len(pair.atom_column))
    codes = np.array(pair.reference.codes)[pair.alignment.reference][pair.atom_column]
    partners = (
        SYMMETRIC_ATOMS
        if pair.reference.kind == "protein"
        else dict.fromkeys(np.unique(codes).tolist(), SYMMETRIC_NUCLEOTIDE_ATOMS)
    )
    for code, exchanges in partners.items():
        of_code = codes == code
        for first, second in exchanges:
            a = np.flatnonzero(of_code & (pair.atom_names == first))
            b = np.flatnonzero(of_code & (pair.atom_names == second))
            _, in_a, in_b = np.intersect1d(
                pair.atom_column[a], pair.atom_column[b], return_indices=True
            )
            partner[a[in_a]] = b[in_b]
            partner[b[in_b]] = a[in_a]
    return partner


def _with_best_names(atoms: _Atoms) -> Float[np.ndarray, "A 3"]:
    """The predicted atoms, those of a symmetric residue exchanged where they keep more distances
    to atoms whose names are certain.
    """
    is_fixed = atoms.exchanged == np.arange(len(atoms.exchanged))
    ambiguous = np.flatnonzero(~is_fixed)
    gain = np.zeros(int(atoms.residue.max(initial=0)) + 1)
    for i, j, distance in _near(atoms.reference, ambiguous, half=False):
        is_counted = is_fixed[j] & (atoms.residue[i] != atoms.residue[j])
        i = i[is_counted]
        j = j[is_counted]
        distance = distance[is_counted]
        as_named = _kept_shares(atoms.model[i], atoms.model[j], distance)
        exchanged = _kept_shares(atoms.model[atoms.exchanged[i]], atoms.model[j], distance)
        gain += np.bincount(atoms.residue[i], exchanged - as_named, minlength=len(gain))
    chosen = np.where(gain[atoms.residue] > 0, atoms.exchanged, np.arange(len(atoms.exchanged)))
    return atoms.model[chosen]


def _near(
    coords: Float[np.ndarray, "A 3"], chosen: Int[np.ndarray, " n"], half: bool
) -> Iterator[tuple[Int[np.ndarray, " D"], Int[np.ndarray, " D"], Float[np.ndarray, " D"]]]:
    """(atom of `chosen`, atom, distance) of all pairs below the inclusion radius, a chunk of atoms
    at a time; with `half` each pair once.
    """
    tree = KDTree(coords)
    for start in range(0, len(chosen), CHUNK_ATOMS):
        part = chosen[start : start + CHUNK_ATOMS]
        found = KDTree(coords[part]).sparse_distance_matrix(tree, INCLUSION, output_type="ndarray")
        i = part[found["i"]]
        j = found["j"]
        is_near = (found["v"] < INCLUSION) & ((i < j) | (not half))
        yield i[is_near], j[is_near], found["v"][is_near]
