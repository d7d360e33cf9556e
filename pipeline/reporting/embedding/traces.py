"""Structures reduced to what a ribbon needs: CA and O of proteins, all atoms of everything else.

Above MAX_DETAILED_RESIDUES only CA is kept, and P of nucleic acids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np
from biotite.structure import AtomArray, annotate_sse
from biotite.structure.io.pdbx import BinaryCIFFile

from foldcp.files import reading
from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn

MAX_DETAILED_RESIDUES = 2_500
COORDINATE_STEP = 0.05  # Å
PLDDT_STEP = 0.5
# Of a box around a chain whose helices and strands are sought, in Å³: biotite makes a cell of every
# 5 Å of it. A ribosome has 2e7; a structure that has fallen apart can have any volume.
MAX_FOLD_VOLUME = 1e9
MIN_FOLD_RESIDUES = 5  # of a chain whose helices and strands are sought
PROTEIN_ATOMS = ("CA", "O")
# Cartoons of nucleic acids follow these atoms; OP2, after its P, gives a ribbon its plane.
NUCLEIC_ATOMS = (
    "P", "OP2", "O5'", "C5'", "C4'", "C3'", "O3'", "C2'", "C1'", "N1", "N3", "C2", "C6",
)  # fmt: skip


@dataclass(eq=False)
class _Trace:
    """What is kept of a structure: atoms, and the residues that they belong to."""

    atom_names: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)
    places: list[tuple[float, float, float]] = field(default_factory=list)
    atom_residues: list[int] = field(default_factory=list)
    chains: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    polymers: list[int] = field(default_factory=list)
    plddts: list[float] = field(default_factory=list)

    def add(self, residue: gemmi.Residue, chain: int, is_large: bool) -> None:
        """Keep a residue of a chain and what is needed of its atoms."""
        kept = _kept_atoms(residue, is_large)
        for atom in kept:
            self.atom_names.append(atom.name)
            self.elements.append(atom.element.name)
            self.places.append((atom.pos.x, atom.pos.y, atom.pos.z))
            self.atom_residues.append(len(self.chains))
        self.chains.append(chain)
        self.numbers.append(residue.seqid.num or 0)
        self.names.append(residue.name)
        self.polymers.append(int(_is_polymer(residue)))
        self.plddts.append(kept[0].b_iso)


def read_trace(path: Path, chain_names: list[str]) -> dict[str, PackedColumn]:
    """Columns of the page about the structure in a file: atoms, residues.

    Residues are in the order of the file; `residue_chain` is the place of their chain in
    `chain_names`. pLDDT are 0 to 100. Raises ValueError for a file that gemmi cannot read.
    """
    with reading(str(path)):
        try:
            structure = _read_structure(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    numbers = {name: number for number, name in enumerate(chain_names)}
    model = structure[0] if len(structure) > 0 else ()
    chains = [(numbers.get(chain.name, 0), chain) for chain in model if len(chain)]
    if not chains:
        raise ValueError(f"{path}: no atoms")
    return trace_of_chains(chains)


def trace_of_chains(chains: Sequence[tuple[int, gemmi.Chain]]) -> dict[str, PackedColumn]:
    """The same columns of chains with their numbers, which have an atom at least."""
    is_large = sum(len(chain) for _, chain in chains) > MAX_DETAILED_RESIDUES
    trace = _Trace()
    for number, chain in chains:
        for residue in chain:
            trace.add(residue, number, is_large)
    return _columns(trace)


def _read_structure(path: Path) -> gemmi.Structure:
    """The structure in a file: mmCIF, also gzipped, or BinaryCIF."""
    if path.suffix != ".bcif":
        return gemmi.read_structure(str(path))
    atoms = BinaryCIFFile.read(path).block["atom_site"]
    columns_of_atoms = [column.as_array(str).tolist() for column in atoms.values()]
    values = [[_cif_value(text) for text in texts] for texts in columns_of_atoms]
    block = gemmi.cif.Block("structure")
    block.init_loop("_atom_site.", list(atoms)).set_all_values(values)
    return gemmi.make_structure_from_block(block)


def _cif_value(text: str) -> str:
    """A value as CIF has it; `?` and `.` are no texts but stand for none."""
    return text or "?" if text in ("", "?", ".") else gemmi.cif.quote(text)


def _columns(trace: _Trace) -> dict[str, PackedColumn]:
    xyz = np.array(trace.places)
    chains = np.array(trace.chains)
    return {
        "atom_name": columns.texts(trace.atom_names),
        "atom_element": columns.texts(trace.elements),
        "atom_residue": columns.differences(np.array(trace.atom_residues), 1),
        **{
            f"atom_{axis}": columns.differences(xyz[:, number], COORDINATE_STEP)
            for number, axis in enumerate("xyz")
        },
        "residue_chain": columns.differences(chains, 1),
        "residue_number": columns.differences(np.array(trace.numbers), 1),
        "residue_name": columns.texts(trace.names),
        "residue_polymer": columns.differences(np.array(trace.polymers), 1),
        "residue_plddt": columns.small_numbers(np.array(trace.plddts), PLDDT_STEP),
        "residue_fold": columns.texts(_folds(trace)),
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


def _folds(trace: _Trace) -> list[str]:
    """h, s or c of every residue: helix, strand or neither, from the CA atoms."""
    folds = np.full(len(trace.chains), "c", object)
    chains = np.array(trace.chains)
    alphas = np.array([n for n, name in enumerate(trace.atom_names) if name == "CA"], int)
    residues = np.array(trace.atom_residues)[alphas]
    xyz = np.array(trace.places, np.float32)
    for chain in np.unique(chains):
        of_chain = chains[residues] == chain
        if of_chain.sum() >= MIN_FOLD_RESIDUES:
            folds[residues[of_chain]] = _fold_letters(xyz[alphas[of_chain]])
    return folds.tolist()


def _fold_letters(alphas: np.ndarray) -> np.ndarray:
    """h, s or c of the residues of a chain; c of one that has fallen apart."""
    if np.ptp(alphas, axis=0).prod(dtype=float) > MAX_FOLD_VOLUME:
        return np.full(len(alphas), "c")
    array = AtomArray(len(alphas))
    array.coord = alphas
    array.set_annotation("atom_name", np.full(len(alphas), "CA"))
    array.set_annotation("res_id", np.arange(1, len(alphas) + 1))
    array.set_annotation("res_name", np.full(len(alphas), "ALA"))
    array.set_annotation("chain_id", np.full(len(alphas), "A"))
    letters = annotate_sse(array)
    return np.where(letters == "a", "h", np.where(letters == "b", "s", "c"))
