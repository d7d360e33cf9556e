"""Small complexes of every kind of chain, with logits, for comparing scores with their formulas."""

from __future__ import annotations

from itertools import islice

import numpy as np

from foldcp.complex import chain_names
from foldcp.features.layout import Layout
from tests.support.metrics_reference import CENTERS, Case

BACKBONE = "N CA C O"
SUGAR = "P C1' C3' C4' O3'"
RESIDUES = {
    "ALA": f"{BACKBONE} CB",
    "GLY": BACKBONE,
    "CYS": f"{BACKBONE} CB SG",
    "LYS": f"{BACKBONE} CB CG NZ",
    "ARG": f"{BACKBONE} CB NE NH1 NH2",
    "ASP": f"{BACKBONE} CB OD1 OD2",
    "PRO": f"{BACKBONE} CB CG CD",
    "SEP": f"{BACKBONE} CB OG P",  # modified: its representative atom is its first
    "DA": f"{SUGAR} N9 C4",
    "DC": f"{SUGAR} N1 C2",
    "A": f"{SUGAR} O2' N9 C4",
}
REPRESENTATIVE = {"GLY": "CA", "SEP": "N", "DA": "C4", "A": "C4", "DC": "C2"}
FRAMES = {"protein": ("N", "CA", "C"), "dna": ("C1'", "C3'", "C4'"), "rna": ("C1'", "C3'", "C4'")}
PROTEIN = ("ALA", "GLY", "CYS", "LYS", "ARG", "ASP", "PRO", "SEP")
NUCLEIC = {"dna": ("DA", "DC"), "rna": ("A",)}
ELEMENTS = {"C": 6, "N": 7, "O": 8, "P": 15, "S": 16}

# Chains and their lengths; a ligand has so many atoms.
P, D, R, L = ("protein", "dna", "rna", "ligand")
MIXTURES = (
    [(P, 40), (P, 31)],
    [(P, 29), (P, 28), (P, 27)],
    [(P, 33), (D, 12), (D, 12)],
    [(P, 1), (P, 30)],  # a chain of one residue
    [(P, 24), (L, 7), (P, 25)],
    [(R, 14), (P, 36), (L, 1)],
    [(P, 9), (P, 8), (P, 7), (P, 10), (P, 6), (P, 11), (P, 9), (P, 8)],
    [(P, 20), (L, 2), (L, 5), (D, 1), (P, 20)],
    [(P, 45), (P, 45), (R, 8), (L, 9), (P, 12)],
)
KINDS = ("mixed", "apart", "uncertain", "certain")  # of contacts and PAE
CASES = [
    (mixture, kind) for mixture in range(len(MIXTURES)) for kind in KINDS
]  # each with a seed of its own


def generated_case(mixture: int, kind: str) -> Case:
    """A case: its chains meet in the middle, but for `apart`; PAE is around the cutoffs, but for
    `uncertain` (all above) and `certain` (all below).
    """
    chains = MIXTURES[mixture]
    rng = np.random.default_rng(100 * mixture + KINDS.index(kind))
    layout, frames, representatives = _layout(chains, rng)
    T = len(layout.token_chain)
    chain = layout.token_chain
    coords = _coords(layout, rng, apart=500.0 if kind == "apart" else 0.0)
    low, high = {"uncertain": (18, 30), "certain": (0.6, 3.5)}.get(kind, (1, 26))
    base = rng.uniform(low, high, (len(chains), len(chains)))[chain][:, chain]
    pae = np.clip(0.5 * base + 0.5 * rng.uniform(low, high, (T, T)), low, high)
    pde = rng.uniform(1, 20, (T, T))
    probability = rng.uniform(size=(T, T)) ** 4
    sharpness = 0.25
    return Case(
        layout=layout,
        frame_atoms=frames,
        rep_atom=representatives,
        coords=coords,
        pae_logits=-(((CENTERS - pae[..., None]) / sharpness) ** 2),
        pde_logits=-(((CENTERS - (pde + pde.T)[..., None] / 2) / 3) ** 2),
        contact_probability=(probability + probability.T) / 2,
        plddt=rng.uniform(0.3, 1, T),
    )


def _layout(
    chains: list[tuple[str, int]], rng: np.random.Generator
) -> tuple[Layout, np.ndarray, np.ndarray]:
    """The layout, the frame of each token and its representative atom."""
    token_chain = []
    token_residue = []
    token_name = []
    atom_token = []
    atom_name = []
    frames = []
    representatives = []
    for number, (kind, length) in enumerate(chains):
        for position in range(length):
            token = len(token_chain)
            first = len(atom_name)
            if kind == "ligand":
                names = [f"C{position}" if position % 3 else f"N{position}"]
                code = "LIG"
                frames.append([first] * 3)
                representatives.append(first)
            else:
                code = str(rng.choice(PROTEIN if kind == "protein" else NUCLEIC[kind]))
                names = RESIDUES[code].split()
                frames.append([first + names.index(name) for name in FRAMES[kind]])
                representatives.append(first + names.index(REPRESENTATIVE.get(code, "CB")))
            token_chain.append(number)
            token_residue.append(1 if kind == "ligand" else position + 1)
            token_name.append(code)
            atom_token += [token] * len(names)
            atom_name += names
    layout = Layout(
        chain_names=list(islice(chain_names(), len(chains))),
        chain_kinds=[kind for kind, _ in chains],
        chain_entities=np.arange(len(chains)),
        token_chain=np.array(token_chain),
        token_residue=np.array(token_residue),
        token_name=token_name,
        atom_token=np.array(atom_token),
        atom_name=atom_name,
        atom_element=np.array([ELEMENTS[name[0]] for name in atom_name]),
        chain_accessions=[""] * len(chains),
        chain_smiles=[""] * len(chains),
        atom_charge=np.zeros(len(atom_name), dtype=np.int64),
        bonds=np.zeros((0, 3), dtype=np.int64),
        covalent=np.zeros((0, 2), dtype=np.int64),
        chain_msa_depth=np.ones(len(chains), dtype=np.int64),
        chain_coverage=[np.zeros(0, dtype=np.int32)] * len(chains),
    )
    return layout, np.array(frames), np.array(representatives)


def _coords(layout: Layout, rng: np.random.Generator, apart: float) -> np.ndarray:
    """Chains as random walks around the middle, or `apart` Å from each other."""
    T = len(layout.token_chain)
    radius = 2.6 * T ** (1 / 3)
    tokens = np.zeros((T, 3))
    for chain in range(len(layout.chain_kinds)):
        own = layout.token_chain == chain
        start = rng.uniform(-radius, radius, 3)
        steps = rng.normal(0, 2.2, (own.sum(), 3))
        walk = start + steps.cumsum(0)
        tokens[own] = np.where(np.abs(walk) > 2 * radius, 0.5 * walk, walk)
        tokens[own, 0] += apart * chain
    return tokens[layout.atom_token] + rng.normal(0, 1.3, (len(layout.atom_token), 3))
