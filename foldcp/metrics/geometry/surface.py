"""Solvent-accessible surface: what pairs of chains bury, and disorder after AlphaFold 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from foldcp.kernels.exposed_surface import ExposedSurface, Spheres
from foldcp.metrics.geometry.atoms import NearPairs, StructureAtoms

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


def atom_radii(atoms: StructureAtoms) -> Float[np.ndarray, " A"]:
    """The radius of each atom in Å: N, CA, C and O of proteins have their own."""
    radii = np.full(len(atoms.coords), OTHER_RADIUS)
    protein = atoms.of_kinds("protein")
    for name, radius in RADII.items():
        radii[protein & (atoms.names == name)] = radius
    return radii


def surfaces(
    atoms: StructureAtoms,
    radii: Float[np.ndarray, " A"],
    near: NearPairs,
    between: NearPairs,
    exposed: ExposedSurface,
) -> Surfaces:
    """The surfaces of a structure; `near` are all pairs within 6.6 Å, `between` those of different
    chains. Waits for the device.
    """
    C = atoms.num_chains
    first, second = atoms.chains_of(between)
    place = first * C + second
    counts = place.bincount(minlength=C * C).view(C, C).cpu().numpy()
    sizes = np.bincount(atoms.chain, minlength=C)
    mixed = counts > MAX_PAIRS_PER_ATOM * np.minimum.outer(sizes, sizes)
    is_interface = torch.from_numpy(~mixed.flatten()).to(near.device)[place]
    # The atoms that another chain comes near, each once for such a chain.
    ends = (between.first * C + second, between.second * C + first)
    reached = torch.cat([end[is_interface] for end in ends]).unique()
    spheres = _spheres(atoms, radii, near)
    everyone = torch.arange(len(atoms.coords), device=near.device)
    which = torch.cat([everyone, reached // C])
    share = exposed(spheres, which, torch.cat([spheres.chain, reached % C])).cpu().numpy()
    atom = which.cpu().numpy()
    surface = 4 * np.pi * (radii + PROBE)[atom] ** 2 * share
    alone, beside = np.split(surface, [len(atoms.coords)])
    atom = atom[len(atoms.coords) :]
    pair = atoms.chain[atom] * C + reached.cpu().numpy() % C
    # Of no atoms NumPy counts in integers.
    buried = np.bincount(pair, alone[atom] - beside, C * C).astype(float).reshape(C, C)
    buried[mixed | mixed.T] = np.nan
    return Surfaces(alone, buried)


def _spheres(atoms: StructureAtoms, radii: Float[np.ndarray, " A"], near: NearPairs) -> Spheres:
    """What a water molecule cannot enter: the spheres of the atoms, widened by its radius."""
    first, order = torch.cat([near.first, near.second]).sort(stable=True)
    numbers = torch.arange(len(atoms.coords) + 1, device=near.device)
    return Spheres(
        centers=torch.from_numpy(atoms.coords).to(near.device),
        radii=torch.from_numpy(radii + PROBE).to(near.device),
        chain=torch.from_numpy(atoms.chain).to(near.device),
        starts=torch.searchsorted(first, numbers),
        neighbours=torch.cat([near.second, near.first])[order],
    )


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
