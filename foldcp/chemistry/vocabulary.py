"""Vocabulary of tokens, and the atoms of each residue, after the CCD.

The vocabulary, the atoms of a standard residue and their order, the centre and representative atoms
are those of Boltz-2 (`boltz.data.const`, 2.2.1): its weights are tied to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import gemmi
import numpy as np
from jaxtyping import Float, Int

from foldcp.chemistry.ccd import ccd_column
from foldcp.complex import Kind

PROTEIN_LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER",
    "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL",
}  # fmt: skip
TOKENS = (
    "<pad>", "-", *PROTEIN_LETTERS.values(), "UNK", "A", "G", "C", "U", "N", "DA", "DG", "DC",
    "DT", "DN",
)  # fmt: skip
TOKEN_IDS = {name: index for index, name in enumerate(TOKENS)}
NUM_TOKENS = len(TOKENS)
GAP = TOKEN_IDS["-"]

# The four types of molecule, in the order of their index `mol_type`.
KINDS: tuple[Kind, ...] = ("protein", "dna", "rna", "ligand")
MOL_TYPES = {kind: index for index, kind in enumerate(KINDS)}

# A letter that is not in the table (X, B, U, ..) is the unknown residue.
LETTERS: dict[Kind, dict[str, str]] = {
    "protein": PROTEIN_LETTERS,
    "dna": {"A": "DA", "G": "DG", "C": "DC", "T": "DT"},
    "rna": {"A": "A", "G": "G", "C": "C", "U": "U"},
}
UNKNOWN: dict[Kind, str] = {"protein": "UNK", "dna": "DN", "rna": "N", "ligand": "UNK"}

_BACKBONE = "N CA C O"
_RIBOSE = "P OP1 OP2 O5' C5' C4' O4' C3' O3' C2' O2' C1'"
_DEOXYRIBOSE = _RIBOSE.replace(" O2'", "")
_SIDE_CHAINS = {
    "UNK": "CB",
    "ALA": "CB",
    "ARG": "CB CG CD NE CZ NH1 NH2",
    "ASN": "CB CG OD1 ND2",
    "ASP": "CB CG OD1 OD2",
    "CYS": "CB SG",
    "GLN": "CB CG CD OE1 NE2",
    "GLU": "CB CG CD OE1 OE2",
    "GLY": "",
    "HIS": "CB CG ND1 CD2 CE1 NE2",
    "ILE": "CB CG1 CG2 CD1",
    "LEU": "CB CG CD1 CD2",
    "LYS": "CB CG CD CE NZ",
    "MET": "CB CG SD CE",
    "PHE": "CB CG CD1 CD2 CE1 CE2 CZ",
    "PRO": "CB CG CD",
    "SER": "CB OG",
    "THR": "CB OG1 CG2",
    "TRP": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2",
    "TYR": "CB CG CD1 CD2 CE1 CE2 CZ OH",
    "VAL": "CB CG1 CG2",
}
_BASES = {
    "A": "N9 C8 N7 C5 C6 N6 N1 C2 N3 C4",
    "G": "N9 C8 N7 C5 C6 O6 N1 C2 N2 N3 C4",
    "C": "N1 C2 O2 N3 C4 N4 C5 C6",
    "U": "N1 C2 O2 N3 C4 O4 C5 C6",
    "T": "N1 C2 O2 N3 C4 O4 C5 C7 C6",
    "N": "",
}
STANDARD_ATOMS: dict[str, tuple[str, ...]] = {
    **{code: tuple(f"{_BACKBONE} {chain}".split()) for code, chain in _SIDE_CHAINS.items()},
    **{code: tuple(f"{_RIBOSE} {_BASES[code]}".split()) for code in "AGCUN"},
    **{f"D{base}": tuple(f"{_DEOXYRIBOSE} {_BASES[base]}".split()) for base in "AGCTN"},
}

BOND_TYPES = ("OTHER", "SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", "COVALENT")
COVALENT = BOND_TYPES.index("COVALENT")

MAX_NAME_CHARS = 4


@dataclass(frozen=True, eq=False)
class Component:
    """One residue or ligand: heavy atoms in the order of the network, A of them."""

    code: str
    standard: bool  # a word of the vocabulary
    atom_names: tuple[str, ...]
    elements: Int[np.ndarray, " A"]  # atomic numbers; 0 unknown
    charges: Int[np.ndarray, " A"]
    positions: Float[np.ndarray, "A 3"]  # Å, the reference conformer
    bonds: Int[np.ndarray, "E 3"]  # (atom, atom, index in BOND_TYPES); empty for standard residues
    center: int
    representative: int
    frame: tuple[int, int, int]

    @property
    def num_atoms(self) -> int:
        """Number of heavy atoms."""
        return len(self.atom_names)


@dataclass(frozen=True, eq=False)
class CcdAtoms:
    """The rows of one CCD component, hydrogens included."""

    names: list[str]
    elements: Int[np.ndarray, " A"]  # atomic numbers, 1 for deuterium too; 0 unknown
    charges: Int[np.ndarray, " A"]
    leaving: list[bool]
    positions: Float[np.ndarray, "A 3"]


@cache
def ccd_atoms(code: str) -> CcdAtoms:
    """Atoms of a component of the Chemical Component Dictionary.

    Positions are its ideal coordinates (Å), or its model coordinates where the ideal ones lack a
    heavy atom. Raises ValueError for an unknown code.
    """

    def column(name: str) -> list[str]:
        values = ccd_column("chem_comp_atom", code, name)
        if values is None:
            raise ValueError(f"{code!r} is not in the Chemical Component Dictionary (CCD)")
        return values

    symbols = column("type_symbol")
    elements = np.array([gemmi.Element(symbol).atomic_number for symbol in symbols])
    for name in ("pdbx_model_Cartn_{}_ideal", "model_Cartn_{}"):
        positions = np.stack([_numbers(column(name.format(axis))) for axis in "xyz"], axis=1)
        if np.isfinite(positions[elements != 1]).all():
            break
    else:
        raise ValueError(f"CCD component {code!r} has no complete set of coordinates")
    charges = np.nan_to_num(_numbers(column("charge")))
    return CcdAtoms(
        names=column("atom_id"),
        elements=elements,
        charges=charges.astype(np.int64),
        leaving=[flag == "Y" for flag in column("pdbx_leaving_atom_flag")],
        positions=positions,
    )


def _numbers(values: list[str]) -> Float[np.ndarray, " A"]:
    """Numbers of a column; NaN where one is not known."""
    return np.array([np.nan if value in ("?", ".") else float(value) for value in values])


@cache
def standard_residue(code: str) -> Component:
    """The component of a word of the vocabulary, without leaving atoms, in the network's order."""
    ccd = ccd_atoms(code)
    names = STANDARD_ATOMS[code]
    rows = [ccd.names.index(name) for name in names]
    if code in _SIDE_CHAINS:
        center = "CA"
        representative = "CA" if code == "GLY" else "CB"
    else:
        representatives = {
            "A": "C4",
            "G": "C4",
            "C": "C2",
            "U": "C2",
            "T": "C2",
            "N": "C1'",
        }
        center = "C1'"
        representative = representatives[code[-1]]
    return Component(
        code=code,
        standard=True,
        atom_names=names,
        elements=ccd.elements[rows],
        charges=ccd.charges[rows],
        positions=ccd.positions[rows],
        bonds=np.zeros((0, 3), dtype=np.int64),
        center=names.index(center),
        representative=names.index(representative),
        frame=(0, 0, 0)
        if code == "UNK"
        else frame_atoms(names, nucleotide=code not in _SIDE_CHAINS),
    )


def frame_atoms(names: tuple[str, ...], nucleotide: bool) -> tuple[int, int, int]:
    """Indices of C1', C3', C4' of a nucleotide or of N, CA, C; 0 for an absent atom."""
    frame = ("C1'", "C3'", "C4'") if nucleotide else ("N", "CA", "C")
    a, b, c = (names.index(name) if name in names else 0 for name in frame)
    return a, b, c


def residue_codes(
    kind: Kind, sequence: str, modifications: tuple[tuple[int, str], ...]
) -> list[str]:
    """CCD codes of a polymer's residues. Selenomethionine is read as methionine, as in Boltz."""
    codes = [LETTERS[kind].get(letter, UNKNOWN[kind]) for letter in sequence]
    for position, code in modifications:
        codes[position - 1] = "MET" if code == "MSE" else code
    return codes
