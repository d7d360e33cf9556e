"""The published formulas of interface scores, written slowly on N x N arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from foldcp.features.layout import Layout

CUTOFF_NAMES = ("ipsae_d0res", "ipsae_d0chn", "ipsae_d0dom", "lis", "lia", "clis", "clia", "ilis")


def scalar_d0(n: int, floor: float) -> float:
    return max(floor, 1.24 * (n - 15) ** (1 / 3) - 1.8) if n > 27 else floor


def ipsae(block: np.ndarray, floor: float, cutoff: float = 10) -> dict[str, float]:
    """The three ipSAE of one directed block of expected PAE."""
    near = block < cutoff
    fixed = {
        "ipsae_d0chn": scalar_d0(sum(block.shape), floor),
        "ipsae_d0dom": scalar_d0(near.any(0).sum() + near.any(1).sum(), floor),
    }
    best = dict.fromkeys(("ipsae_d0res", *fixed), 0.0)
    for errors in (row[row < cutoff] for row in block):
        if len(errors):
            by_row = max(floor, 1.24 * (max(26, len(errors)) - 15) ** (1 / 3) - 1.8)
            for name, d0 in {"ipsae_d0res": by_row, **fixed}.items():
                best[name] = max(best[name], (1 / (1 + (errors / d0) ** 2)).mean())
    return best


def lis(block: np.ndarray, contact: np.ndarray, cutoff: float) -> dict[str, float]:
    """LIS and its relatives of one directed block, as lis_analysis_colabfold.py takes them."""
    scores = {}
    for prefix, mask in (("", block < cutoff), ("c", (block < cutoff) & contact)):
        scores[f"{prefix}lia"] = float(mask.sum())
        scores[f"{prefix}lis"] = (1 - block[mask] / cutoff).mean() if mask.any() else 0.0
    return scores | {"ilis": (scores["lis"] * scores["clis"]) ** 0.5}


def cutoff_scores(
    layout: Layout, pae: np.ndarray, contact: np.ndarray, cutoff: int
) -> dict[str, np.ndarray]:
    """Every field of CutoffScores. `contact` is [T, T]."""
    C = len(layout.chain_kinds)
    scores = {name: np.full((C, C), np.nan) for name in CUTOFF_NAMES}
    for a, b, rows, columns in chain_pairs(layout):
        kinds = {layout.chain_kinds[a], layout.chain_kinds[b]}
        if "ligand" in kinds:
            continue
        block = pae[np.ix_(rows, columns)]
        floor = 1.0 if kinds == {"protein"} else 2.0
        values = ipsae(block, floor, cutoff) | lis(block, contact[np.ix_(rows, columns)], cutoff)
        for name, value in values.items():
            scores[name][a, b] = value
    return scores


def chain_pairs(layout: Layout) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """(a, b, tokens of a, tokens of b) of every directed pair of different chains."""
    tokens = [np.flatnonzero(layout.token_chain == c) for c in range(len(layout.chain_kinds))]
    pairs: list[Any] = []
    for a, rows in enumerate(tokens):
        pairs += [(a, b, rows, columns) for b, columns in enumerate(tokens) if a != b]
    return pairs


def points(case: Any) -> tuple[np.ndarray, np.ndarray]:
    """The atoms between which contacts are measured, and CA (NaN without), of each token."""
    near = case.coords[case.rep_atom].copy()
    alpha = np.full_like(near, np.nan)
    layout = case.layout
    for atom, (token, name) in enumerate(zip(layout.atom_token, layout.atom_name, strict=True)):
        if layout.token_name[token] == "SEP" and name == "CB":
            near[token] = case.coords[atom]
        if name == "CA" and layout.chain_kinds[layout.token_chain[token]] == "protein":
            alpha[token] = case.coords[atom]
    return near, alpha


def distances(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x, axis=-1)


def sigmoid(x: float, height: float, middle: float, slope: float, base: float) -> float:
    return height / (1 + np.exp(-slope * (x - middle))) + base


def interface_scores(
    case: Any, pae: np.ndarray, pde: np.ndarray, probability: np.ndarray, valid: np.ndarray
) -> dict[str, Any]:
    """The fields of InterfaceScores, pair by pair; all but `buried_area`. `pae` and `pde` are the
    expected ones, `probability` the distribution of PAE.
    """
    layout = case.layout
    C = len(layout.chain_kinds)
    near, alpha = points(case)
    contact = distances(near) < 8
    alpha_contact = distances(alpha) < 8
    atoms = _Atoms(case)
    bad = _clashing_tokens(atoms, case.plddt)
    scores: dict[str, Any] = {name: np.full((C, C), np.nan) for name in PAIR_NAMES}
    text = [["" for _ in range(C)] for _ in range(C)]
    for a, b, rows, columns in chain_pairs(layout):
        block = np.ix_(rows, columns)
        kinds = (layout.chain_kinds[a], layout.chain_kinds[b])
        values: dict[str, float] = {}
        values |= _of_contacts(pae[block], contact[block], case.plddt[rows], case.plddt[columns])
        values["pdockq2_original"] = _original(pae[block], alpha_contact[block], case.plddt[rows])
        values |= _of_probability(case.contact_probability[block])
        values |= {"pde_mean": pde[block].mean(), "pde_min": pde[block].min()}
        values |= _of_tm(case, probability, valid, atoms, (rows, columns))
        values |= _of_atoms(atoms, pae, case.plddt, bad, (rows, columns))
        touching = [i for i in rows if any(atoms.nearest(i, j) < 5 for j in columns)]
        residues = sorted({int(layout.token_residue[i]) for i in touching})
        values["num_interface_residues"] = len(residues)
        text[a][b] = runs(layout.chain_names[a], residues)
        for name in PROTEIN_ONLY:
            if kinds != ("protein", "protein"):
                values[name] = np.nan
        for name in POLYMER_ONLY:
            if "ligand" in kinds:
                values[name] = np.nan
        if set(kinds) != {"protein", "ligand"}:
            values["ligand_iptm"] = np.nan
        for name, value in values.items():
            scores[name][a, b] = value
    score = scores["af2complex_score"]
    scores["af2complex_score"] = score + score.T
    scores["ligand_iptm"] = np.fmax(scores["ligand_iptm"], scores["ligand_iptm"].T)
    scores["interface_residues"] = tuple(map(tuple, text))
    return scores


PAIR_NAMES = (
    "pdockq", "pdockq2", "pdockq2_original", "contact_pae", "pde_mean", "pde_min",
    "contact_prob_max", "contact_prob_top10", "expected_contacts", "contacts_pae4",
    "contacts_pae15", "actifptm", "pitm", "af2complex_score", "ligand_iptm",
    "num_interface_residues", "clashes", "clashing_atoms", "backbone_hbonds", "salt_bridges",
)  # fmt: skip
PROTEIN_ONLY = (
    "pdockq", "pdockq2", "pdockq2_original", "contacts_pae15", "backbone_hbonds", "salt_bridges",
)  # fmt: skip
POLYMER_ONLY = ("contacts_pae4", "clashing_atoms", "pitm", "af2complex_score")


def runs(chain: str, residues: list[int]) -> str:
    """`A:3-9,14`, number by number."""
    parts: list[list[int]] = []
    for residue in residues:
        if parts and residue == parts[-1][1] + 1:
            parts[-1][1] = residue
        else:
            parts.append([residue, residue])
    words = [f"{x}" if x == y else f"{x}-{y}" for x, y in parts]
    return f"{chain}:{','.join(words)}" if words else ""


def _of_contacts(
    pae: np.ndarray, contact: np.ndarray, plddt_a: np.ndarray, plddt_b: np.ndarray
) -> dict[str, float]:
    if not contact.any():
        return {"pdockq": 0, "pdockq2": 0, "contact_pae": np.nan}
    both = np.concatenate([plddt_a[contact.any(1)], plddt_b[contact.any(0)]])
    mean = 100 * both.mean()
    tm = (1 / (1 + (pae[contact] / 10) ** 2)).mean()
    return {
        "pdockq": sigmoid(mean * np.log10(contact.sum()), 0.724, 152.611, 0.052, 0.018),
        "pdockq2": sigmoid(mean * tm, 1.31, 84.733, 0.075, 0.005),
        "contact_pae": pae[contact].mean(),
    }


def _original(pae: np.ndarray, contact: np.ndarray, plddt: np.ndarray) -> float:
    i, j = np.nonzero(contact)
    if not len(i):
        return 0.0
    x = 100 * plddt[i].mean() * (1 / (1 + (pae[i, j] / 10) ** 2)).mean()
    return sigmoid(x, 1.31034849, 84.7326239, 0.0747157696, 0.00501886443)


def chain_pdockq2(case: Any, pae: np.ndarray) -> np.ndarray:
    """pDockQ2 as published, one score of each protein with its partners pooled."""
    layout = case.layout
    protein = np.array(layout.chain_kinds) == "protein"
    scores = np.full(len(protein), np.nan)
    if protein.sum() < 2:
        return scores
    alpha = points(case)[1]
    contact = distances(alpha) < 8
    for a in np.flatnonzero(protein):
        rows = layout.token_chain == a
        scores[a] = _original(pae[rows][:, ~rows], contact[rows][:, ~rows], case.plddt[rows])
    return scores


def mpdockq(case: Any) -> float:
    """AlphaPulldown's mpDockQ."""
    layout = case.layout
    if layout.chain_kinds.count("protein") < 2:
        return np.nan
    contact = distances(points(case)[0]) < 8
    total = 0.0
    for a, b, rows, columns in chain_pairs(layout):
        i, j = np.nonzero(contact[np.ix_(rows, columns)])
        if layout.chain_kinds[a] == layout.chain_kinds[b] == "protein" and len(i):
            mean = 100 * np.concatenate([case.plddt[rows][i], case.plddt[columns][j]]).mean()
            total += np.log10(len(i) + 1) * mean
    return sigmoid(total, 0.827, 261.398, 0.036, 0.221)


def _of_probability(block: np.ndarray) -> dict[str, float]:
    return {
        "contact_prob_max": block.max(),
        "contact_prob_top10": np.sort(block.ravel())[-10:].mean(),
        "expected_contacts": block.sum(),
    }


def _of_tm(
    case: Any,
    probability: np.ndarray,
    valid: np.ndarray,
    atoms: _Atoms,
    pair: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """Expected TM-scores of parts of the chains."""
    rows, columns = pair
    centers = 0.25 + 0.5 * np.arange(64)

    def expected(i: int, j: np.ndarray, d0: float) -> np.ndarray:
        return probability[i, j] @ (1 / (1 + (centers / d0) ** 2))

    def d0_of(n: int) -> float:
        return 1.24 * (max(n, 19) - 15) ** (1 / 3) - 1.8

    frames = [i for i in rows if valid[i]]
    if not frames:
        values = {"actifptm": np.nan, "ligand_iptm": np.nan}
    else:
        likely = case.contact_probability[np.ix_(rows, columns)] >= 0.6
        own = set(rows[likely.any(1)].tolist())
        other = columns[likely.any(0)]
        d0 = d0_of(len(case.layout.token_chain))
        best = [expected(i, other, d0).mean() for i in frames if i in own]
        pair_d0 = d0_of(len(rows) + len(columns))
        values = {
            "actifptm": max(best, default=0.0),
            "ligand_iptm": max(expected(i, columns, pair_d0).mean() for i in frames),
        }
    touching_a = [i for i in rows if any(atoms.nearest(i, j) < 4.5 for j in columns)]
    touching_b = [j for j in columns if any(atoms.nearest(i, j) < 4.5 for i in rows)]
    n = len(touching_a) + len(touching_b)
    d0 = d0_of(n) if d0_of(n) >= 0.5 else 0.02 * n
    whole = [0.0]
    across = [0.0]
    for i in (i for i in touching_a if valid[i]):
        across.append(expected(i, np.array(touching_b), d0).sum() / n)
        whole.append(across[-1] + expected(i, np.array(touching_a), d0).sum() / n)
    return values | {"pitm": max(whole), "af2complex_score": max(across)}


class _Atoms:
    """Distances of all atoms, and the atoms of each token."""

    def __init__(self, case: Any) -> None:
        self.layout: Layout = case.layout
        self.coords = case.coords
        self.distance = distances(case.coords)
        T = len(self.layout.token_chain)
        starts = np.flatnonzero(np.diff(self.layout.atom_token, prepend=-1))
        by_row = np.minimum.reduceat(self.distance, starts, axis=0)
        self.between_tokens = np.minimum.reduceat(by_row, starts, axis=1)
        self.of_token = [np.flatnonzero(self.layout.atom_token == t) for t in range(T)]

    def block(self, i: int, j: int) -> np.ndarray:
        return self.distance[np.ix_(self.of_token[i], self.of_token[j])]

    def nearest(self, i: int, j: int) -> float:
        return self.between_tokens[i, j]

    def named(self, token: int, name: str) -> int | None:
        for atom in self.of_token[token]:
            if self.layout.atom_name[atom] == name:
                return int(atom)
        return None


def _clashing_tokens(atoms: _Atoms, plddt: np.ndarray) -> set[int]:
    """Residues of proteins that SPOC leaves out."""
    layout = atoms.layout
    trusted = [
        t
        for t in range(len(plddt))
        if layout.chain_kinds[layout.token_chain[t]] == "protein" and plddt[t] >= 0.5
    ]
    return {
        i
        for i in trusted
        for j in trusted
        if layout.token_chain[i] != layout.token_chain[j] and atoms.nearest(i, j) < 1
    }


def _of_atoms(
    atoms: _Atoms,
    pae: np.ndarray,
    plddt: np.ndarray,
    bad: set[int],
    pair: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """Numbers of contacts, clashes and bonds of atoms."""
    names = np.array(atoms.layout.atom_name)
    codes = atoms.layout.token_name
    counts = dict.fromkeys(
        ("contacts_pae4", "contacts_pae15", "clashes", "backbone_hbonds", "salt_bridges"), 0.0
    )
    clashing: set[int] = set()
    for i in pair[0]:
        for j in pair[1]:
            if atoms.nearest(i, j) > 5.5:
                continue
            d = atoms.block(i, j)
            one = names[atoms.of_token[i]][:, None]
            other = names[atoms.of_token[j]]
            e, f = (np.vectorize(lambda name: name[0])(x) for x in (one, other))
            rule = (e == "C") & (f == "C") & (d <= 5)
            rule |= (((e == "N") & (f == "O")) | ((e == "O") & (f == "N"))) & (d <= 5.5)
            if codes[i] == codes[j] == "CYS":
                rule |= (one == "SG") & (other == "SG") & (d <= 2.56)
            counts["contacts_pae4"] += bool(rule.any()) and pae[i, j] < 4
            better = min(pae[i, j], pae[j, i])
            trusted = min(plddt[i], plddt[j]) >= 0.5 and not {i, j} & bad
            counts["contacts_pae15"] += bool((d < 5).any()) and trusted and better <= 15
            counts["clashes"] += (d < 1.1).sum()
            clashing |= set(atoms.of_token[i][(d <= 1.1).any(1)].tolist())
            cation = (codes[i] in ("LYS", "ARG")) & np.isin(one, ("NZ", "NE", "NH1", "NH2"))
            anion = (codes[j] in ("ASP", "GLU")) & np.isin(other, ("OD1", "OD2", "OE1", "OE2"))
            counts["salt_bridges"] += bool((cation & anion & (d <= 4)).any())
            counts["backbone_hbonds"] += _is_bond(atoms, i, j)
    return counts | {"clashing_atoms": float(len(clashing))}


def _is_bond(atoms: _Atoms, i: int, j: int) -> bool:
    """Whether N-H of residue i and C=O of residue j are bonded, by DSSP's energy."""
    layout = atoms.layout
    if {layout.chain_kinds[layout.token_chain[t]] for t in (i, j)} != {"protein"}:
        return False
    if layout.token_name[i] == "PRO" or not i or layout.token_chain[i - 1] != layout.token_chain[i]:
        return False

    def x(token: int, name: str) -> np.ndarray:
        return atoms.coords[atoms.named(token, name)]

    carbonyl = x(i - 1, "C") - x(i - 1, "O")
    hydrogen = x(i, "N") + carbonyl / np.linalg.norm(carbonyl)
    n, c, o = (x(i, "N"), x(j, "C"), x(j, "O"))
    lengths = [np.linalg.norm(u - v) for u, v in ((n, o), (hydrogen, c), (hydrogen, o), (n, c))]
    if np.linalg.norm(x(i, "CA") - x(j, "CA")) >= 9 or lengths[0] > 5.2:
        return False
    if min(lengths) < 0.5:
        return True
    n_o, h_c, h_o, n_c = lengths
    return bool(27.9 * (1 / n_o + 1 / h_c - 1 / h_o - 1 / n_c) < -0.5)
