"""Solvent-accessible surface: what pairs of chains bury, and disorder after AlphaFold 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from foldcp.features.layout import Layout
from foldcp.kernels.exposed_surface import ExposedSurface, Spheres
from foldcp.metrics.geometry.atoms import NearPairs, StructureAtoms, backbone_atoms
from foldcp.metrics.geometry.weak_cache import weak_cache

PROBE = 1.4  # Å
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


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Accessible surfaces in Å².

    `buried[a, b]` is what atoms of a lose when only b is there: SASA(a) + SASA(b) - SASA(ab) is
    the sum of both directions. 0 for chains apart, NaN for chains that run through each other.
    """

    alone: Float[np.ndarray, " A"]  # of each atom with its own chain alone
    buried: Float[np.ndarray, "C C"]


@weak_cache
def atom_radii(layout: Layout) -> Float[np.ndarray, " A"]:
    """The radius of each atom in Å: N, CA, C and O of proteins have their own."""
    radii = np.full(len(layout.atom_token), OTHER_RADIUS)
    for name, radius in RADII.items():
        index = backbone_atoms(layout)[name]
        radii[index[index >= 0]] = radius
    return radii


def accessible_spheres(
    atoms: StructureAtoms, radii: Float[np.ndarray, " A"], near: NearPairs
) -> Spheres:
    """What the centre of a water molecule cannot enter: the spheres of the atoms, widened by its
    radius; `near` are all pairs within 6.6 Å.
    """
    first, order = torch.cat([near.first, near.second]).sort(stable=True)
    numbers = torch.arange(len(atoms.coords) + 1, device=near.device)
    return Spheres(
        centers=torch.from_numpy(atoms.coords).to(near.device),
        radii=torch.from_numpy(radii + PROBE).to(near.device),
        chain=torch.from_numpy(atoms.chain).to(near.device),
        starts=torch.searchsorted(first, numbers),
        neighbours=torch.cat([near.second, near.first])[order],
    )


def surfaces(
    atoms: StructureAtoms, spheres: Spheres, between: NearPairs, exposed: ExposedSurface
) -> Surfaces:
    """The surfaces of a structure; `between` are its pairs of atoms of different chains within
    6.6 Å. Waits for the device.
    """
    A = len(atoms.coords)
    C = atoms.num_chains
    chain = spheres.chain
    first, second = chain[between.first], chain[between.second]
    place = first * C + second
    counts = place.new_zeros(C * C).scatter_add_(0, place, torch.ones_like(place)).view(C, C)
    sizes = chain.new_zeros(C).scatter_add_(0, chain, torch.ones_like(chain))
    mixed = counts > MAX_PAIRS_PER_ATOM * torch.minimum(sizes[:, None], sizes)
    mixed = mixed | mixed.T
    # The atoms that another chain comes near, each once for such a chain.
    reached = torch.cat([between.first * C + second, between.second * C + first])
    reached = reached[~mixed.flatten()[place].repeat(2)].unique()
    which = torch.cat([torch.arange(A, device=chain.device), reached // C])
    share = exposed(spheres, which, torch.cat([chain, reached % C]))
    surface = (4 * np.pi * spheres.radii[which].square() * share).cpu().numpy()
    alone, beside = np.split(surface, [A])
    atom, other = np.divmod(reached.cpu().numpy(), C)
    pair = atoms.chain[atom] * C + other
    # Of no atoms NumPy counts in integers.
    buried = np.bincount(pair, alone[atom] - beside, C * C).astype(float).reshape(C, C)
    buried[mixed.cpu().numpy()] = np.nan
    return Surfaces(alone, buried)


@weak_cache
def _largest_surfaces(layout: Layout) -> Int[np.ndarray, " T"]:
    """Å², of the residue of each token."""
    return np.array([MAX_SURFACE.get(name, MAX_SURFACE["ALA"]) for name in layout.token_name])


def fraction_disordered(atoms: StructureAtoms, alone: Float[np.ndarray, " A"]) -> float:
    """The share of residues of proteins whose relative accessibility, the mean over 25 residues,
    exceeds 0.581 (AlphaFold 3, `fraction_disordered`, after AlphaFold-RSA); each chain alone. 0
    without a protein.
    """
    layout = atoms.layout
    by_token = np.bincount(layout.atom_token, alone, len(layout.token_chain))
    relative = np.minimum(by_token / _largest_surfaces(layout), 1)
    half = DISORDER_WINDOW // 2
    disordered: list[Bool[np.ndarray, " L"]] = []
    for chain, kind in enumerate(layout.chain_kinds):
        if kind == "protein":
            padded = np.pad(relative[layout.token_chain == chain], half, "reflect")
            mean = np.convolve(padded, np.ones(DISORDER_WINDOW), "valid") / DISORDER_WINDOW
            disordered.append(mean > DISORDERED)
    return float(np.concatenate(disordered).mean()) if disordered else 0.0
