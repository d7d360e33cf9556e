"""Solvent-accessible surface: what pairs of chains bury, and disorder after AlphaFold 3."""

from __future__ import annotations

import numpy as np
from biotite.structure import AtomArray
from biotite.structure.sasa import sasa  # type: ignore[import-not-found]  # compiled
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from foldcp.metrics.geometry.atoms import MAX_CONTACT, AtomPairs, StructureAtoms

PROBE = 1.4  # Å
NUM_POINTS = 400  # on each atom's sphere; DSSP has 401
# Å; those of DSSP (Kabsch & Sander 1983), which has no others than those of proteins
RADII = {"N": 1.65, "CA": 1.87, "C": 1.76, "O": 1.4}
OTHER_RADIUS = 1.8
# Pairs of atoms within 6.6 Å per atom of the smaller chain: beyond it the chains run through each
# other, and have no interface to measure.
MAX_PAIRS_PER_ATOM = 40

# Å²; the largest accessible surface of a residue (Sander & Rost 1994); that of alanine for others
MAX_SURFACE = {
    "ALA": 106, "ARG": 248, "ASN": 157, "ASP": 163, "CYS": 135, "GLN": 198, "GLU": 194, "GLY": 84,
    "HIS": 184, "ILE": 169, "LEU": 164, "LYS": 205, "MET": 188, "PHE": 197, "PRO": 136, "SER": 130,
    "THR": 142, "TRP": 227, "TYR": 222, "VAL": 142,
}  # fmt: skip
DISORDER_WINDOW = 25  # residues
DISORDERED = 0.581  # relative accessibility above which a residue is (AlphaFold 3)


def atom_radii(atoms: StructureAtoms) -> Float[np.ndarray, " A"]:
    """The radius of each atom in Å: N, CA, C and O of proteins have their own."""
    radii = np.full(len(atoms.coords), OTHER_RADIUS)
    protein = atoms.of_kinds("protein")
    for name, radius in RADII.items():
        radii[protein & (atoms.names == name)] = radius
    return radii


def chain_surfaces(
    atoms: StructureAtoms, radii: Float[np.ndarray, " A"]
) -> Float[np.ndarray, " A"]:
    """The surface of each atom in Å² with its own chain alone."""
    surface = np.zeros(len(atoms.coords))
    for chain in range(atoms.num_chains):
        own = np.flatnonzero(atoms.chain == chain)
        surface[own] = _surface(atoms.coords[own], radii[own], np.ones(len(own), dtype=bool))
    return surface


def buried_surfaces(
    atoms: StructureAtoms,
    radii: Float[np.ndarray, " A"],
    alone: Float[np.ndarray, " A"],
    near: AtomPairs,
) -> Float[np.ndarray, "C C"]:
    """[a, b]: the surface in Å² that atoms of a lose when only b is there; SASA(a) + SASA(b) -
    SASA(ab) is the sum of both directions. 0 for chains apart, NaN for chains that run through each
    other.
    """
    C = atoms.num_chains
    counts = atoms.pair_counts(near.first, near.second)
    sizes = np.bincount(atoms.chain, minlength=C)
    buried = np.zeros((C, C))
    for a, b in np.argwhere(counts).tolist():
        if counts[a, b] > MAX_PAIRS_PER_ATOM * min(sizes[a], sizes[b]):
            buried[a, b] = np.nan
            buried[b, a] = np.nan
            continue
        both = np.flatnonzero((atoms.chain == a) | (atoms.chain == b))
        pairs = (atoms.chain[near.first] == a) & (atoms.chain[near.second] == b)
        reached = np.union1d(near.first[pairs], near.second[pairs])
        wanted = np.isin(both, reached)
        surface = _surface(atoms.coords[both], radii[both], wanted)
        lost = np.where(wanted, alone[both] - surface, 0)
        in_a = atoms.chain[both] == a
        buried[a, b] = lost[in_a].sum()
        buried[b, a] = lost[~in_a].sum()
    return buried


def fraction_disordered(atoms: StructureAtoms, alone: Float[np.ndarray, " A"]) -> float:
    """The share of residues of proteins whose relative accessibility, the mean over 25 residues,
    exceeds 0.581 (AlphaFold 3, `fraction_disordered`, after AlphaFold-RSA); each chain alone. 0
    without a protein.
    """
    layout = atoms.layout
    by_token = np.bincount(layout.atom_token, alone, len(layout.token_chain))
    largest = np.array([MAX_SURFACE.get(name, MAX_SURFACE["ALA"]) for name in layout.token_name])
    relative = np.minimum(by_token / largest, 1)
    half = DISORDER_WINDOW // 2
    disordered: list[Bool[np.ndarray, " L"]] = []
    for chain, kind in enumerate(layout.chain_kinds):
        if kind == "protein":
            padded = np.pad(relative[layout.token_chain == chain], half, "reflect")
            mean = np.convolve(padded, np.ones(DISORDER_WINDOW), "valid") / DISORDER_WINDOW
            disordered.append(mean > DISORDERED)
    return float(np.concatenate(disordered).mean()) if disordered else 0.0


def _surface(
    coords: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    wanted: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """The surface of the wanted atoms, after Shrake & Rupley 1973; NaN for others.

    Clusters of atoms far from one another are computed each alone: `sasa` takes memory and time for
    the whole box of its atoms, and scattered atoms have a box of millions of Å³ each.
    """
    surface = np.full(len(coords), np.nan)
    cluster = _clusters(coords)
    sizes = np.bincount(cluster)
    alone = wanted & (sizes[cluster] == 1)
    surface[alone] = 4 * np.pi * (radii[alone] + PROBE) ** 2
    for number in np.unique(cluster[wanted & ~alone]):
        members = np.flatnonzero(cluster == number)
        surface[members] = _cluster_surface(coords[members], radii[members], wanted[members])
    return surface


def _clusters(coords: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """The number of each atom's cluster: atoms of two clusters are further apart than any that
    touch the same water molecule.
    """
    cells, cell = np.unique(np.floor(coords / MAX_CONTACT), axis=0, return_inverse=True)
    adjacent = KDTree(cells).query_pairs(1.5, p=np.inf, output_type="ndarray")
    edges = (np.ones(len(adjacent)), (adjacent[:, 0], adjacent[:, 1]))
    graph = coo_array(edges, shape=(len(cells), len(cells)))
    return connected_components(graph, directed=False)[1][cell.reshape(-1)]


def _cluster_surface(
    coords: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    wanted: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    array = AtomArray(len(coords))
    array.coord = (coords - coords.min(axis=0)).astype(np.float32)
    array.set_annotation("element", np.full(len(coords), "C"))
    return sasa(
        array,
        probe_radius=PROBE,
        atom_filter=wanted,
        ignore_ions=False,
        point_number=NUM_POINTS,
        vdw_radii=radii.astype(np.float32),
    )
