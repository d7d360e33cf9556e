"""Solvent-accessible surface: what pairs of chains bury, and disorder after AlphaFold 3."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.metrics.geometry.atoms import NearPairs, StructureAtoms

PROBE = 1.4  # Å
NUM_POINTS = 400  # on each atom's sphere; DSSP has 401
# Points times neighbours computed at once: on a CPU what its cache holds.
MAX_POINTS = {"cpu": 1 << 19, "cuda": 1 << 24}
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
    atoms: StructureAtoms, radii: Float[np.ndarray, " A"], near: NearPairs
) -> Float[np.ndarray, " A"]:
    """The surface of each atom in Å² with its own chain alone; `near` are all pairs within
    6.6 Å.
    """
    first, second = atoms.chains_of(near)
    everyone = torch.ones(len(atoms.coords), dtype=torch.bool, device=near.device)
    return _surface(atoms.coords, radii, near.where(first == second), everyone)


def buried_surfaces(
    atoms: StructureAtoms,
    radii: Float[np.ndarray, " A"],
    alone: Float[np.ndarray, " A"],
    near: NearPairs,
) -> Float[np.ndarray, "C C"]:
    """[a, b]: the surface in Å² that atoms of a lose when only b is there; SASA(a) + SASA(b) -
    SASA(ab) is the sum of both directions. 0 for chains apart, NaN for chains that run through each
    other. `near` are all pairs within 6.6 Å.
    """
    C = atoms.num_chains
    first, second = atoms.chains_of(near)
    place = (first * C + second)[first != second]
    counts = place.bincount(minlength=C * C).view(C, C).cpu().numpy()
    sizes = np.bincount(atoms.chain, minlength=C)
    buried = np.zeros((C, C))
    for a, b in np.argwhere(counts).tolist():
        if counts[a, b] > MAX_PAIRS_PER_ATOM * min(sizes[a], sizes[b]):
            buried[a, b] = np.nan
            buried[b, a] = np.nan
            continue
        between = (first == a) & (second == b)
        reached = torch.zeros(len(atoms.coords), dtype=torch.bool, device=near.device)
        reached[near.first[between]] = True
        reached[near.second[between]] = True
        of_both = near.where(between | ((first == second) & ((first == a) | (first == b))))
        surface = _surface(atoms.coords, radii, of_both, reached)
        lost = np.where(np.isnan(surface), 0, alone - surface)  # of those reached
        buried[a, b] = lost[atoms.chain == a].sum()
        buried[b, a] = lost[atoms.chain == b].sum()
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
    near: NearPairs,
    wanted: Bool[Tensor, " n"],
) -> Float[np.ndarray, " n"]:
    """The surface of the wanted atoms beside those they are paired with, after Shrake & Rupley
    1973; NaN for others.
    """
    points, reach = (torch.from_numpy(x).to(near.device) for x in (coords, radii + PROBE))
    first = torch.cat([near.first, near.second])
    second = torch.cat([near.second, near.first])
    distance = torch.cat([near.distance, near.distance])
    touching = (distance < reach[first] + reach[second]) & wanted[first]
    first, second, distance = first[touching], second[touching], distance[touching]
    first, order = first.sort(stable=True)
    second = second[order]
    # In units of the first atom's reach, the point u of its sphere is within that of the second
    # if u . offset > threshold.
    own = reach[first]
    offset = (points[second] - points[first]) / own[:, None]
    threshold = (1 + (distance[order] / own).square() - (reach[second] / own).square()) / 2
    counts = first.bincount(minlength=len(coords))[wanted]
    exposed = _exposed(offset.float(), threshold.float(), counts)
    surface = np.full(len(coords), np.nan)
    atoms = wanted.cpu().numpy()
    surface[atoms] = 4 * np.pi * (radii + PROBE)[atoms] ** 2 * exposed.cpu().numpy()
    return surface


def _exposed(
    offset: Float[Tensor, "n 3"], threshold: Float[Tensor, " n"], counts: Int[Tensor, " w"]
) -> Float[Tensor, " w"]:
    """The share of each atom's points that are in no neighbour's sphere; the neighbours of an atom
    are consecutive.
    """
    if not len(offset):
        return torch.ones(len(counts), device=offset.device)
    points = _sphere(NUM_POINTS).to(offset)
    most = int(counts.max())
    first = counts.cumsum(0) - counts
    place = torch.arange(most, device=offset.device)
    rows = max(1, MAX_POINTS[offset.device.type] // (NUM_POINTS * most))
    exposed = []
    for counts_of, first_of in zip(counts.split(rows), first.split(rows), strict=True):
        inside = place < counts_of[:, None]
        index = torch.where(inside, first_of[:, None] + place, 0)
        needed = threshold[index].masked_fill(~inside, torch.inf)[..., None]
        offsets = offset[index]
        depth = torch.baddbmm(-needed, offsets, points.T.expand(len(offsets), -1, -1))
        exposed.append((depth.amax(1) <= 0).float().mean(1))
    return torch.cat(exposed)


def _sphere(num_points: int) -> Float[Tensor, "p 3"]:
    """Points spread evenly over the unit sphere, along a spiral of golden angles."""
    number = torch.arange(num_points, dtype=torch.float64)
    angle = torch.pi * (3 - 5**0.5) * number
    height = 1 - (2 * number + 1) / num_points
    radius = (1 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], 1)
