"""A synthetic prediction, and the published score formulas written slowly on N x N arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, get_type_hints

import numpy as np
import torch

from foldcp.complex import chain_names
from foldcp.features.features import Features
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainSpans
from tests.metrics.interface.interface_reference import cutoff_scores, ipsae

CENTERS = 0.25 + 0.5 * np.arange(64)
POLYMERS = ("protein", "dna", "rna")
MOL_TYPE = {"protein": 0, "dna": 1, "rna": 2, "ligand": 3}
BASE = ("C1'", "C3'", "C4'", "N1")
ATOMS = {"protein": ("N", "CA", "C", "CB"), "dna": BASE, "rna": BASE, "ligand": ("C",)}
# Ligands of two and of six atoms: without and with frames, the second far from everything.
CHAINS = [("protein", 47), ("ligand", 2), ("dna", 14), ("ligand", 6), ("protein", 38)]


@dataclass(frozen=True)
class Case:
    """Inputs of a scorer, without padding: T tokens, A atoms."""

    layout: Layout
    frame_atoms: np.ndarray  # [T 3]
    rep_atom: np.ndarray  # [T]
    coords: np.ndarray  # [A 3]
    pae_logits: np.ndarray  # [T T 64]
    pde_logits: np.ndarray  # [T T 64]
    contact_probability: np.ndarray  # [T T]
    plddt: np.ndarray  # [T]


def noise(seed: int, *shape: int) -> np.ndarray:
    """Numbers in 0..1 that are the same on every machine and for every version of numpy."""
    x = np.sin(np.arange(np.prod(shape)) * 12.9898 + seed * 78.233) * 43758.5453
    return (x - np.floor(x)).reshape(shape)


def synthetic_layout(chains: list[tuple[str, int]]) -> Layout:
    token_chain = np.repeat(np.arange(len(chains)), [length for _, length in chains])
    kinds = [chains[c][0] for c in token_chain]
    return Layout(
        chain_names=list(islice(chain_names(), len(chains))),
        chain_kinds=[kind for kind, _ in chains],
        chain_accessions=[""] * len(chains),
        chain_smiles=[""] * len(chains),
        chain_entities=np.arange(len(chains)),
        token_chain=token_chain,
        token_residue=np.concatenate([np.arange(1, length + 1) for _, length in chains]),
        token_name=[
            {"protein": "ALA", "dna": "DA", "rna": "A", "ligand": "LIG"}[kind] for kind in kinds
        ],
        atom_token=np.repeat(np.arange(len(kinds)), [len(ATOMS[kind]) for kind in kinds]),
        atom_name=[name for kind in kinds for name in ATOMS[kind]],
        atom_element=np.full(sum(len(ATOMS[kind]) for kind in kinds), 6),
        atom_charge=np.zeros(sum(len(ATOMS[kind]) for kind in kinds), dtype=np.int64),
        bonds=np.zeros((0, 3), dtype=np.int64),
        covalent=np.zeros((0, 2), dtype=np.int64),
        chain_msa_depth=np.ones(len(chains), dtype=np.int64),
        chain_coverage=[np.zeros(0, dtype=np.int32)] * len(chains),
    )


def synthetic_case(chains: list[tuple[str, int]] = CHAINS) -> Case:
    layout = synthetic_layout(chains)
    T = len(layout.token_chain)
    A = len(layout.atom_token)
    first = np.searchsorted(layout.atom_token, np.arange(T))
    polymer = np.array([layout.chain_kinds[c] in POLYMERS for c in layout.token_chain])
    frame_atoms = first[:, None] + np.where(polymer[:, None], [[0, 1, 2]], 0)
    coords = _synthetic_coords(layout, A)
    if T > 9:
        frame_atoms[5] = frame_atoms[5, 0]  # an unknown residue: its frame is one atom, three times
        coords[frame_atoms[9]] = coords[frame_atoms[9, 0]] + np.outer(
            [0, 1.5, 3.1], [1, 0, 0.0]
        )  # on a line
    pae = 1.5 + 30 * noise(1, T, T)
    pde = 1 + 25 * noise(2, T, T)
    pae *= np.where(layout.token_chain[:, None] == layout.token_chain, 0.3, 1)
    pae *= 0.2 + 0.8 * noise(7, T)[:, None]  # some rows see their partners better
    loose = np.concatenate([np.arange(length) > 0.7 * length for _, length in chains])
    pae[loose] = 12 + pae[loose] / 2  # and the ends of the chains see and are seen badly
    pae[:, loose] = 12 + pae[:, loose] / 2
    return Case(
        layout=layout,
        frame_atoms=frame_atoms,
        rep_atom=first + np.where(polymer, 3, 0),
        coords=coords,
        pae_logits=-(((CENTERS - pae[..., None]) / 4) ** 2),
        pde_logits=-(((CENTERS - (pde + pde.T)[..., None] / 2) / 5) ** 2),
        contact_probability=(noise(3, T, T) + noise(3, T, T).T) ** 2 / 4,
        plddt=0.2 + 0.8 * noise(4, T),
    )


# Chains whose tokens are few enough to look at: 5, 1, 7 and 3.
SPANS = ChainSpans((0, 5, 6, 13, 16), ("protein", "dna", "ligand", "protein"))


def _synthetic_coords(layout: Layout, num_atoms: int) -> np.ndarray:
    """Chains as coarse zigzags along one axis, slowly parting; the last ligand of several lies
    far away.
    """
    chain = layout.token_chain[layout.atom_token]
    step = np.arange(num_atoms) - np.searchsorted(chain, chain)
    apart = 3 + step / 12
    angle = 2 * np.pi * chain / len(layout.chain_kinds)
    coords = np.stack([0.9 * step, apart * np.cos(angle), apart * np.sin(angle)], 1) + 2.4 * noise(
        5, num_atoms, 3
    )
    ligands = [c for c, kind in enumerate(layout.chain_kinds) if kind == "ligand"]
    if len(ligands) > 1:
        coords[chain == ligands[-1]] += (0, 0, 90)
    return coords


def padded(x: np.ndarray, sizes: tuple[int, ...], fill: float) -> torch.Tensor:
    whole = np.full(sizes + x.shape[len(sizes) :], fill)
    whole[tuple(slice(n) for n in x.shape[: len(sizes)])] = x
    return torch.tensor(whole, dtype=torch.float32)


def features_of(case: Case, N: int, device: str = "cpu") -> Features:
    """The features of a case padded to N tokens; what scores do not read is 0."""
    layout = case.layout
    sizes = {"N": N, "A": num_padded_atoms(case), "S": 1, "T": 0, "E": 0, "K": 0}
    whole: dict[str, torch.Tensor] = {}
    for name, hint in get_type_hints(Features).items():
        if hasattr(hint, "dim_str"):
            dtype = (
                torch.long
                if "int64" in hint.dtypes
                else torch.bool
                if "bool" in hint.dtypes
                else torch.float32
            )
            shape = [sizes[d] if d in sizes else int(d) for d in hint.dim_str.split()]
            whole[name] = torch.zeros(shape, dtype=dtype)
    mol_type = np.array([MOL_TYPE[layout.chain_kinds[c]] for c in layout.token_chain])
    ones = np.ones(len(layout.token_chain))
    for name, value in {
        "mol_type": mol_type,
        "asym_id": layout.token_chain,
        "token_mask": ones,
        "rep_atom": case.rep_atom,
        "frame_atoms": case.frame_atoms,
    }.items():
        whole[name] = padded(value, (N,), 0).to(whole[name].dtype)
    whole = {name: x.to(device) for name, x in whole.items()}
    return Features(**{**whole, "layout": layout, "contact_default": 0})


def num_padded_atoms(case: Case) -> int:
    return -(-len(case.layout.atom_token) // 32) * 32


def logits_of(case: Case, N: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """PAE and PDE logits, contact probability and pLDDT; NaN in the padding, which must
    not be read.
    """
    nan = float("nan")
    pairs = (case.pae_logits, case.pde_logits, case.contact_probability)
    return *(padded(x, (N, N), nan) for x in pairs), padded(case.plddt, (N,), nan)


def coords_of(case: Case) -> torch.Tensor:
    return padded(case.coords, (num_padded_atoms(case),), 1.0)


PAIRS = [
    "pair_iptm",
    "pair_iptm_boltz",
    "ipsae_d0res",
    "ipsae_d0chn",
    "ipsae_d0dom",
    "pae_mean",
    "pae_min",
    "contacts",
    "interface_plddt",
]


def assert_close(
    got: dict[Any, Any], expected: dict[Any, Any], rtol: float, atol: float = 1e-7, path: str = ""
) -> None:
    """Scores as nested mappings: every number that is expected."""
    for name, value in expected.items():
        where = f"{path}{name}"
        if isinstance(value, dict):
            assert_close(got[name], value, rtol, atol, f"{where}.")
        else:
            np.testing.assert_allclose(got[name], value, rtol=rtol, atol=atol, err_msg=where)


# The formulas, one pair of chains after the other
# ------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def d0_of(n: float) -> float:
    return 1.24 * (max(n, 19) - 15) ** (1 / 3) - 1.8


def frame_mask(case: Case) -> np.ndarray:
    """Valid frames, ligands' rebuilt from the coordinates."""
    valid = np.zeros(len(case.rep_atom), bool)
    for i, chain in enumerate(case.layout.token_chain):
        frame = case.coords[case.frame_atoms[i]]
        if case.layout.chain_kinds[chain] == "ligand":
            atoms = case.coords[
                np.flatnonzero(case.layout.token_chain[case.layout.atom_token] == chain)
            ]
            if len(atoms) < 3:
                continue
            me = case.coords[case.rep_atom[i]]
            near = atoms[np.argsort(np.linalg.norm(atoms - me, axis=1))]
            frame = np.stack([near[1], near[0], near[2]])
        u = frame[1] - frame[0]
        v = frame[1] - frame[2]
        lengths = np.linalg.norm(u), np.linalg.norm(v)
        valid[i] = min(lengths) > 1e-2 and abs(u @ v) / lengths[0] / lengths[1] < 0.9063
    return valid


def reference_scores(case: Case) -> dict[str, Any]:
    """Every field of Scores in double precision."""
    layout = case.layout
    chain = case.layout.token_chain
    T = len(chain)
    C = len(layout.chain_kinds)
    kind = np.array([layout.chain_kinds[c] for c in chain])
    probability = softmax(case.pae_logits)
    pae = probability @ CENTERS
    pde = softmax(case.pde_logits) @ CENTERS
    valid = frame_mask(case)
    points = case.coords[case.rep_atom]
    contact = np.linalg.norm(points[:, None] - points, axis=-1) < 8
    inter = chain[:, None] != chain

    def best_mean(
        value: np.ndarray, mask: np.ndarray, rows: np.ndarray, boltz: bool = True
    ) -> float:
        means = [
            value[i, mask[i]].sum() / (mask[i].sum() + 1e-5 * boltz)
            for i in np.flatnonzero(rows)
            if mask[i].any()
        ]
        return max(means, default=0.0)

    def expected_tm(n: float) -> np.ndarray:
        return probability @ (1 / (1 + (CENTERS / d0_of(n)) ** 2))

    tm = expected_tm(T)
    ligand = kind == "ligand"
    protein = kind == "protein"
    mixed = (ligand[:, None] & protein) | (protein[:, None] & ligand)
    touching = (contact & inter).any(1)
    weight = np.where(ligand, 20, np.where(touching, 10, 1))
    off = case.contact_probability * (1 - np.eye(T))
    scores: dict[str, float | np.ndarray] = {
        "ptm": best_mean(tm, np.ones((T, T), bool), valid),
        "iptm": best_mean(tm, inter, valid),
        "ligand_iptm": best_mean(tm, inter & mixed, valid),
        "protein_iptm": best_mean(tm, inter & protein[:, None] & protein, valid),
        "complex_plddt": case.plddt.mean(),
        "complex_iplddt": (case.plddt * weight).sum() / weight.sum(),
        "complex_pde": (pde * off).sum() / off.sum() if T > 1 else np.nan,
        "complex_ipde": (pde * off * inter).sum() / ((off * inter).sum() + 1e-5),
    }
    scores["confidence_score"] = (4 * case.plddt.mean() + (scores["iptm"] or scores["ptm"])) / 5
    kinds = layout.chain_kinds
    if C == 1:
        scores |= {"iptm": np.nan, "complex_ipde": np.nan}
    if not {"protein", "ligand"} <= set(kinds):
        scores["ligand_iptm"] = np.nan
    if kinds.count("protein") < 2:
        scores["protein_iptm"] = np.nan
    scores["chain_plddt"] = np.array([case.plddt[chain == c].mean() for c in range(C)])
    pairs = {name: np.full((C, C), np.nan) for name in PAIRS}
    pairs["contacts"] = np.zeros((C, C))
    chain_ptm = np.full(C, np.nan)
    for a in range(C):
        for b in range(C):
            rows = chain == a
            columns = chain == b
            n = rows.sum() + (a != b) * columns.sum()
            mask = np.broadcast_to(columns, (T, T))
            pairs["pair_iptm_boltz"][a, b] = best_mean(tm, mask, rows & valid)
            if a == b:
                chain_ptm[a] = (
                    best_mean(expected_tm(n), mask, rows & valid, False)
                    if (rows & valid).any()
                    else np.nan
                )
                continue
            if (rows & valid).any():
                pairs["pair_iptm"][a, b] = best_mean(expected_tm(n), mask, rows & valid, False)
                block = pae[np.ix_(rows & valid, columns)]
                pairs["pae_mean"][a, b], pairs["pae_min"][a, b] = (
                    block.mean(),
                    block.min(),
                )
            touch = contact[np.ix_(rows, columns)]
            pairs["contacts"][a, b] = touch.sum()
            if touch.any():
                pairs["interface_plddt"][a, b] = case.plddt[rows][touch.any(1)].mean()
            if "ligand" not in (layout.chain_kinds[a], layout.chain_kinds[b]):
                floor = 1.0 if layout.chain_kinds[a] == layout.chain_kinds[b] == "protein" else 2.0
                for name, value in ipsae(pae[np.ix_(rows, columns)], floor).items():
                    pairs[name][a, b] = value
    cutoffs = {cutoff: cutoff_scores(layout, pae, contact, cutoff) for cutoff in (10, 12)}
    return {**scores, "chain_ptm": chain_ptm, **pairs, "cutoffs": cutoffs}
