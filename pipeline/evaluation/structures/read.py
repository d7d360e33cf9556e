"""Reading of structures: mmCIF, BinaryCIF and PDB files."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import gemmi
import numpy as np
import pandas as pd
from biotite.structure.io.pdbx import BinaryCIFFile

from foldcp.features.msa.parse import decode_plain
from foldcp.files import INPUT_ERRORS, FileContent, describe_error, read_file, unpacked_name
from foldcp.pipeline.evaluation.structures.chain import Chain, Kind, Structure
from foldcp.structure.components import parent_letter

PDB_ENDINGS = (".pdb", ".ent")
BINARY_ENDING = ".bcif"
ENDINGS = (".cif", ".mmcif", *PDB_ENDINGS, BINARY_ENDING)
WATER = ("HOH", "DOD", "WAT")
HYDROGEN = ("H", "D", "T")
MISSING = (".", "?")
MAX_COORDINATE = 1e6  # Å
AMINO_ACIDS = (
    gemmi.ResidueKind.AA,
    gemmi.ResidueKind.AAD,
    gemmi.ResidueKind.PAA,
    gemmi.ResidueKind.MAA,
)
# Column -> what stands in for it where a file has none.
SUBSTITUTES = {
    "label_atom_id": "auth_atom_id",
    "label_comp_id": "auth_comp_id",
    "label_asym_id": "auth_asym_id",
    "auth_asym_id": "label_asym_id",
    "auth_seq_id": "label_seq_id",
}
DataFrame = Any  # of pandas, whose columns have no static types
Column = Any  # of such a frame
Category = Callable[[str], list[str]]  # column -> its values, none where it is not there


def read_structure(
    path: Path, chains_by: Literal["label", "author"], content: FileContent | None = None
) -> Structure:
    """The chains of a file's first model, without water and hydrogens.

    Where an atom has alternative positions, it is the one of the largest occupancy; where a residue
    has alternative components, the first. Chains are those of `label_asym_id`, or of `auth_asym_id`
    for a prediction, whose chains may hold several components. In the first case a polymer has the
    author's name and a ligand the name `chain:component:number`, unless several have it.

    `content` is that of the file, where it has been read already.

    Raises ValueError naming the file: absent, damaged, without atoms.
    """
    content = content or read_file(path)
    try:
        categories = _categories(unpacked_name(path.name.lower()), content.data)
        return _structure(categories, by_label=chains_by == "label")
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    except (TypeError, *INPUT_ERRORS) as error:  # gemmi and biotite raise them all
        raise ValueError(f"{path}: {describe_error(error)}") from error


def _categories(name: str, data: bytes) -> Callable[[str], Category]:
    """Category -> its columns."""
    if name.endswith(BINARY_ENDING):
        return _binary_categories(data)
    if name.endswith(PDB_ENDINGS):
        structure = gemmi.read_pdb_string(decode_plain(data))
        structure.setup_entities()
        structure.assign_label_seq_id()
        block = structure.make_mmcif_document()[0]
    else:
        document = gemmi.cif.read_string(decode_plain(data))
        if not len(document):
            raise ValueError("it has no data block")
        block = document[0]

    def category(category: str) -> Category:
        return lambda column: [
            gemmi.cif.as_string(value) for value in block.find_values(f"_{category}.{column}")
        ]

    return category


def _binary_categories(data: bytes) -> Callable[[str], Category]:
    block = BinaryCIFFile.read(io.BytesIO(data)).block

    def category(category: str) -> Category:
        def column(name: str) -> list[str]:
            if category not in block or name not in block[category]:
                return []
            values = block[category][name].as_array(str).tolist()
            return ["" if value in MISSING else value for value in values]

        return column

    return category


def _structure(categories: Callable[[str], Category], by_label: bool) -> Structure:
    atoms = _read_atoms(categories("atom_site"))
    sequences = _sequences(categories("entity_poly_seq"))
    groups = atoms.groupby("label_asym_id" if by_label else "auth_asym_id", sort=False)
    chains = [_chain(str(label), rows, sequences, by_label) for label, rows in groups]
    if by_label:
        counts = Counter(chain.name for chain, _ in chains)
        chains = [
            (replace(chain, name=label) if counts[chain.name] > 1 else chain, label)
            for chain, label in chains
        ]
    bonds = _bonds(categories("chem_comp_bond"))
    return Structure(tuple(chain for chain, _ in chains), bonds)


def _read_atoms(column: Category) -> DataFrame:
    """A row of each heavy atom of the first model that is not of water, one position each."""
    x = column("Cartn_x")
    if not x:
        raise ValueError("it has no atoms")
    names = [
        "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id", "label_entity_id",
        "label_seq_id", "auth_seq_id", "auth_asym_id", "pdbx_PDB_ins_code", "pdbx_PDB_model_num",
        "occupancy",
    ]  # fmt: skip
    values = {name: column(name) or column(SUBSTITUTES.get(name, name)) for name in names}
    atoms: DataFrame = pd.DataFrame(
        {name: found or [""] * len(x) for name, found in values.items()}
    )
    for name, texts in zip("xyz", (x, column("Cartn_y"), column("Cartn_z")), strict=True):
        atoms[name] = np.array(texts, dtype=float)
    if not (atoms[["x", "y", "z"]].abs() < MAX_COORDINATE).all(axis=None):
        raise ValueError(f"a coordinate is not a number, or exceeds {MAX_COORDINATE:,.0f} Å")
    is_kept = (
        atoms["pdbx_PDB_model_num"].eq(atoms["pdbx_PDB_model_num"].iloc[0])
        & ~atoms["type_symbol"].str.upper().isin(HYDROGEN)
        & ~atoms["label_comp_id"].isin(WATER)
    )
    atoms = _without_alternatives(atoms[is_kept].reset_index(drop=True))
    if atoms.empty:
        raise ValueError("it has no heavy atoms but those of water")
    return atoms


def _without_alternatives(atoms: DataFrame) -> DataFrame:
    """One component of each residue, and the position of largest occupancy of each atom."""
    residue = ["label_asym_id", "auth_asym_id", "label_seq_id", "auth_seq_id", "pdbx_PDB_ins_code"]
    atoms["residue"] = atoms.groupby(residue, sort=False).ngroup()
    first = atoms.groupby("residue", sort=False)["label_comp_id"].transform("first")
    atoms = atoms[atoms["label_comp_id"].eq(first)]
    occupancy: Column = pd.to_numeric(atoms["occupancy"], errors="coerce")
    best = (
        atoms.assign(occupancy=-occupancy.fillna(1.0), order=np.arange(len(atoms)))
        .sort_values(["occupancy", "order"])
        .drop_duplicates(["residue", "label_atom_id"])
    )
    return best.sort_values("order")


def _sequences(column: Category) -> dict[str, tuple[str, ...]]:
    """Entity -> components of its sequence; of alternatives the first."""
    found: dict[str, dict[int, str]] = {}
    for entity, number, code in zip(
        column("entity_id"), column("num"), column("mon_id"), strict=True
    ):
        found.setdefault(entity, {}).setdefault(int(number), code)
    sequences = {}
    for entity, codes in found.items():
        if sorted(codes) != list(range(1, len(codes) + 1)):
            raise ValueError(f"the residues of entity {entity} are not numbered from 1")
        sequences[entity] = tuple(codes[number] for number in sorted(codes))
    return sequences


def _chain(
    label: str, rows: DataFrame, sequences: Mapping[str, tuple[str, ...]], by_label: bool
) -> tuple[Chain, str]:
    """A chain and its label."""
    numbers = rows["label_seq_id"]
    sequence = sequences.get(str(rows["label_entity_id"].iloc[0]))
    observed = rows.drop_duplicates("residue")["label_comp_id"].tolist()
    if sequence is not None:
        residues = np.array([int(n) - 1 if n.isdecimal() else -1 for n in numbers])
        if residues.min() < 0 or residues.max() >= len(sequence):
            raise ValueError(f"chain {label} has residues beyond the sequence of its entity")
        codes = sequence
        kind = _polymer_kind(codes) or "protein"
    else:
        residues = pd.factorize(rows["residue"])[0]
        codes = tuple(observed)
        kind = _kind_without_sequence(codes, numbers)
    order = np.argsort(residues, kind="stable")
    author = str(rows["auth_asym_id"].iloc[0])
    number = f"{rows['auth_seq_id'].iloc[0]}{rows['pdbx_PDB_ins_code'].iloc[0]}"
    is_named = kind == "ligand" and by_label
    chain = Chain(
        name=f"{author}:{codes[0]}:{number}" if is_named else author,
        kind=kind,
        codes=codes,
        letters="".join(map(_letter, codes)),
        atom_residue=residues[order],
        atom_names=rows["label_atom_id"].to_numpy(dtype=str)[order],
        elements=rows["type_symbol"].str.upper().to_numpy(dtype=str)[order],
        coords=rows[["x", "y", "z"]].to_numpy(dtype=float)[order],
    )
    return chain, label


def _kind_without_sequence(codes: Sequence[str], numbers: Column) -> Kind:
    """The kind of a chain whose entity has no sequence: a polymer if its residues are numbered
    along one, or if there are several of which most are known residues of polymers.
    """
    kind = _polymer_kind(codes)
    is_numbered = bool(numbers.ne("").all())
    return kind if kind and (is_numbered or len(codes) > 1) else "ligand"


def _polymer_kind(codes: Sequence[str]) -> Kind | None:
    """What most of the known residues of a chain are; None where fewer than half are known."""
    known: list[Kind] = [kind for code in codes if (kind := _residue_kind(code))]
    kinds = Counter(known)
    num_unknown = len(codes) - len(known)
    if not kinds or len(known) < num_unknown:
        return None
    return max(known, key=lambda kind: kinds[kind])


@cache
def _residue_kind(code: str) -> Kind | None:
    kind = gemmi.find_tabulated_residue(code).kind
    if kind in AMINO_ACIDS:
        return "protein"
    if kind == gemmi.ResidueKind.DNA:
        return "dna"
    return "rna" if kind == gemmi.ResidueKind.RNA else None


@cache
def _letter(code: str) -> str:
    return parent_letter(code).upper()


def _bonds(column: Category) -> dict[str, frozenset[tuple[str, str]]]:
    """Component -> pairs of the names of bonded atoms."""
    found: dict[str, set[tuple[str, str]]] = {}
    ends = (column("comp_id"), column("atom_id_1"), column("atom_id_2"))
    for code, first, second in zip(*ends, strict=True):
        found.setdefault(code, set()).add((first, second))
    return {code: frozenset(pairs) for code, pairs in found.items()}
