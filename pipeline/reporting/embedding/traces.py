"""Structures reduced to what a ribbon needs: CA and O of proteins, all atoms of everything else.

Above MAX_DETAILED_RESIDUES only CA is kept, and P of nucleic acids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np
from biotite.structure import AtomArray, annotate_sse
from scipy.spatial import cKDTree

from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn

MAX_DETAILED_RESIDUES = 2_500
MAX_CONTACTS = 4_000  # residue pairs of a complex
CONTACT_DISTANCE = 8.0  # Å, between representative atoms
COORDINATE_STEP = 0.05  # Å
PROTEIN_ATOMS = ("CA", "O")
# Cartoons of nucleic acids follow these atoms.
NUCLEIC_ATOMS = ("P", "O5'", "C5'", "C4'", "C3'", "O3'", "C2'", "C1'", "N1", "N3", "C2", "C6")
REPRESENTATIVE = ("CB", "CA", "C1'", "P")


@dataclass(eq=False)
class _Atoms:
    """The atoms kept so far, and the residues that they belong to."""

    names: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    places: list[tuple[float, float, float]] = field(default_factory=list)
    residues: list[int] = field(default_factory=list)

    def add(self, atom: gemmi.Atom, residue: int) -> None:
        """Keep an atom of a residue."""
        self.names.append(atom.name)
        self.elements.append(atom.element.name)
        self.places.append((atom.pos.x, atom.pos.y, atom.pos.z))
        self.residues.append(residue)


def read_trace(path: Path, chain_names: list[str]) -> dict[str, PackedColumn]:
    """Columns of the page about the structure in a file: atoms, residues, contacts.

    Residues are in the order of the file; `residue_chain` is the place of their chain in
    `chain_names`. pLDDT are 0 to 100. Raises ValueError for a file that gemmi cannot read.
    """
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    numbers = {name: number for number, name in enumerate(chain_names)}
    atoms = _Atoms()
    chains: list[int] = []
    sequence_numbers: list[int] = []
    residue_names: list[str] = []
    is_polymer: list[int] = []
    plddts: list[float] = []
    contact_places: list[tuple[float, float, float]] = []
    model = structure[0]
    is_large = sum(len(chain) for chain in model) > MAX_DETAILED_RESIDUES
    for chain in model:
        for residue in chain:
            kept = _kept_atoms(residue, is_large)
            for atom in kept:
                atoms.add(atom, len(chains))
            chains.append(numbers.get(chain.name, 0))
            sequence_numbers.append(residue.seqid.num or 0)
            residue_names.append(residue.name)
            is_polymer.append(int(_is_polymer(residue)))
            plddts.append(kept[0].b_iso)
            place = _representative(residue).pos
            contact_places.append((place.x, place.y, place.z))
    xyz = np.array(atoms.places)
    chain_numbers = np.array(chains)
    pairs = _contacts(np.array(contact_places), chain_numbers)
    return {
        "atom_name": columns.texts(atoms.names),
        "atom_element": columns.texts(atoms.elements),
        "atom_residue": columns.differences(np.array(atoms.residues), 1),
        **{
            f"atom_{axis}": columns.differences(xyz[:, number], COORDINATE_STEP)
            for number, axis in enumerate("xyz")
        },
        "residue_chain": columns.differences(chain_numbers, 1),
        "residue_number": columns.differences(np.array(sequence_numbers), 1),
        "residue_name": columns.texts(residue_names),
        "residue_polymer": columns.differences(np.array(is_polymer), 1),
        "residue_plddt": columns.small_numbers(np.array(plddts), 0.5),
        "residue_fold": columns.texts(_folds(atoms, chain_numbers)),
        "contact_a": columns.integers(pairs[:, 0]),
        "contact_b": columns.integers(pairs[:, 1]),
    }


def _is_polymer(residue: gemmi.Residue) -> bool:
    return any(residue.find_atom(name, "*") is not None for name in ("CA", "C1'"))


def _kept_atoms(residue: gemmi.Residue, is_large: bool) -> list[gemmi.Atom]:
    """The atoms of a residue that the page has; at least one."""
    if residue.find_atom("CA", "*") is not None and residue.find_atom("N", "*") is not None:
        wanted: tuple[str, ...] = PROTEIN_ATOMS[:1] if is_large else PROTEIN_ATOMS
    elif residue.find_atom("C1'", "*") is not None and residue.find_atom("C3'", "*") is not None:
        wanted = NUCLEIC_ATOMS[:1] if is_large else NUCLEIC_ATOMS
    else:
        return list(residue)
    found = [residue.find_atom(name, "*") for name in wanted]
    return [atom for atom in found if atom is not None] or [residue[0]]


def _representative(residue: gemmi.Residue) -> gemmi.Atom:
    for name in REPRESENTATIVE:
        atom = residue.find_atom(name, "*")
        if atom is not None:
            return atom
    return residue[0]


def _contacts(places: np.ndarray, chains: np.ndarray) -> np.ndarray:
    """Pairs of residues of different chains that are in contact, up to a number of them."""
    pairs = cKDTree(places).query_pairs(CONTACT_DISTANCE, output_type="ndarray")
    pairs = pairs[chains[pairs[:, 0]] != chains[pairs[:, 1]]]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order][:MAX_CONTACTS]


def _folds(atoms: _Atoms, chains: np.ndarray) -> list[str]:
    """h, s or c of every residue: helix, strand or neither, from the CA atoms."""
    folds = np.full(len(chains), "c", object)
    alphas = [place for place, name in enumerate(atoms.names) if name == "CA"]
    residues = np.array(atoms.residues)[alphas]
    for chain in np.unique(chains):
        places = [p for p, r in zip(alphas, residues, strict=True) if chains[r] == chain]
        if len(places) < 5:
            continue
        array = AtomArray(len(places))
        array.coord = np.array([atoms.places[place] for place in places], np.float32)
        array.atom_name[:] = "CA"
        array.res_id[:] = np.arange(1, len(places) + 1)
        array.res_name[:] = "ALA"
        array.chain_id[:] = "A"
        letters = annotate_sse(array)
        named = np.where(letters == "a", "h", np.where(letters == "b", "s", "c"))
        folds[[atoms.residues[place] for place in places]] = named
    return folds.tolist()
