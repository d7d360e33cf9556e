"""Hydrogen bonds between backbones, and salt bridges, of different chains."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.features.layout import Layout
from foldcp.metrics.geometry.atoms import AtomPairs, StructureAtoms, backbone_atoms
from foldcp.metrics.geometry.weak_cache import weak_cache

# Kabsch & Sander 1983: kcal/mol Å, and the energy in kcal/mol below which there is a bond
COUPLING = 27.9
BOND_ENERGY = -0.5
MAX_LENGTH = 5.2  # Å from N to O; in a line, longer ones are above that energy
NH_LENGTH = 1.0  # Å
MIN_DISTANCE = 0.5  # Å; DSSP gives shorter ones the lowest energy, -9.9
LOWEST_ENERGY = -9.9
MAX_ALPHA_DISTANCE = 9.0  # Å, DSSP

SALT_BRIDGE = 4.0  # Å between charged atoms (Barlow & Thornton 1983)
CATIONS = {("LYS", "NZ"), ("ARG", "NE"), ("ARG", "NH1"), ("ARG", "NH2")}
ANIONS = {("ASP", "OD1"), ("ASP", "OD2"), ("GLU", "OE1"), ("GLU", "OE2")}


def backbone_bonds(atoms: StructureAtoms, polar: AtomPairs) -> Float[np.ndarray, "C C"]:
    """[a, b]: hydrogen bonds from an N-H of protein a to a C=O of protein b, by the energy of DSSP
    (Kabsch & Sander 1983). The hydrogen stands opposite the C=O of the residue before; the first
    residue of a chain and proline have none. `polar` are all pairs of a nitrogen and an oxygen of
    different chains within 5.5 Å.
    """
    backbone = _Backbone(atoms)
    token = atoms.layout.atom_token
    index = backbone_atoms(atoms.layout)
    pairs = polar.both_ways()
    donor = token[pairs.first]
    acceptor = token[pairs.second]
    is_bond = (index["N"][donor] == pairs.first) & (index["O"][acceptor] == pairs.second)
    is_bond &= pairs.distance <= MAX_LENGTH
    is_bond &= backbone.has_hydrogen[donor] & backbone.complete[acceptor]
    pairs = pairs.where(is_bond)
    energies = backbone.energy(donor[is_bond], acceptor[is_bond])
    bonded = pairs.where(energies < BOND_ENERGY)
    return atoms.pair_counts(bonded.first, bonded.second).astype(float)


def salt_bridges(atoms: StructureAtoms, polar: AtomPairs) -> Float[np.ndarray, "C C"]:
    """[a, b]: pairs of a lysine or arginine of a and an aspartate or glutamate of b with charged
    atoms at most 4 Å apart, each pair of residues once (Barlow & Thornton 1983). `polar` are all
    pairs of a nitrogen and an oxygen of different chains within 5.5 Å.
    """
    cation, anion = _ions(atoms.layout)
    pairs = polar.both_ways()
    close = pairs.distance <= SALT_BRIDGE
    pairs = pairs.where(close & cation[pairs.first] & anion[pairs.second])
    token = atoms.layout.atom_token
    residues = np.unique(np.stack([token[pairs.first], token[pairs.second]], 1), axis=0)
    chain = atoms.layout.token_chain
    C = atoms.num_chains
    place = chain[residues[:, 0]] * C + chain[residues[:, 1]]
    return np.bincount(place, minlength=C * C).reshape(C, C).astype(float)


@weak_cache
def _ions(layout: Layout) -> tuple[Bool[np.ndarray, " A"], Bool[np.ndarray, " A"]]:
    """Masks of the atoms of proteins that carry a positive and a negative charge."""
    kinds = [layout.chain_kinds[chain] for chain in layout.token_chain.tolist()]
    tokens = layout.atom_token.tolist()
    labels = [
        (layout.token_name[token], name) if kinds[token] == "protein" else None
        for token, name in zip(tokens, layout.atom_name, strict=True)
    ]
    return (
        np.array([label in CATIONS for label in labels]),
        np.array([label in ANIONS for label in labels]),
    )


class _Backbone:
    """N, CA, C, O and the hydrogen of the residues of proteins, by token."""

    def __init__(self, atoms: StructureAtoms) -> None:
        layout = atoms.layout
        num_tokens = len(layout.token_chain)
        self.points = atoms.backbone
        index = backbone_atoms(layout)
        self.complete = np.all([index[name] >= 0 for name in ("N", "CA", "C", "O")], 0)
        carbonyl = self.points["C"] - self.points["O"]
        with np.errstate(invalid="ignore", divide="ignore"):
            direction = carbonyl / np.linalg.norm(carbonyl, axis=1, keepdims=True)
        self.hydrogen = np.full((num_tokens, 3), np.nan)
        self.hydrogen[1:] = self.points["N"][1:] + NH_LENGTH * direction[:-1]
        follows = np.zeros(num_tokens, dtype=bool)
        follows[1:] = np.diff(layout.token_chain) == 0
        not_proline = np.array(layout.token_name) != "PRO"
        self.has_hydrogen = follows & not_proline & self.complete
        self.has_hydrogen &= np.isfinite(self.hydrogen[:, 0])

    def energy(
        self, donor: Int[np.ndarray, " n"], acceptor: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Electrostatic energy of N-H of each donor with C=O of its acceptor, in kcal/mol."""

        def distance(x: Float[np.ndarray, "T 3"], name: str) -> Float[np.ndarray, " n"]:
            return np.linalg.norm(x[donor] - self.points[name][acceptor], axis=1)

        n_o = distance(self.points["N"], "O")
        h_c = distance(self.hydrogen, "C")
        h_o = distance(self.hydrogen, "O")
        n_c = distance(self.points["N"], "C")
        alpha = distance(self.points["CA"], "CA")
        with np.errstate(divide="ignore", invalid="ignore"):
            energy = COUPLING * (1 / n_o + 1 / h_c - 1 / h_o - 1 / n_c)
        shortest = np.minimum.reduce([n_o, h_c, h_o, n_c])
        energy = np.where(shortest < MIN_DISTANCE, LOWEST_ENERGY, energy)
        return np.where(alpha < MAX_ALPHA_DISTANCE, energy, 0.0)
