"""Residues, instances and entities of a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import gemmi
import numpy as np
from jaxtyping import Int

from foldcp.features.layout import Layout
from foldcp.structure.tables import MAX_TEXT, plain_text

POLYMER_TYPES = {
    "protein": "polypeptide(L)",
    "dna": "polydeoxyribonucleotide",
    "rna": "polyribonucleotide",
}


@dataclass(frozen=True)
class Instance:
    """One copy of one molecule: a chain, or a component of a ligand that is not all sugars."""

    label: str  # label_asym_id
    chain: int
    residues: range
    entity: int  # index


@dataclass(frozen=True)
class Entity:
    """A molecule and its copies."""

    number: int  # from 1
    kind: str  # protein, dna, rna or ligand
    type: str  # polymer, branched or non-polymer
    names: list[str]  # of its residues
    instances: list[Instance] = field(default_factory=list)


class Molecules:
    """The residues (R), instances and entities of a layout.

    A residue is a run of tokens with one chain and one number.
    """

    def __init__(self, layout: Layout, is_sugar: Callable[[str], bool]) -> None:
        self.layout = layout
        chain = np.asarray(layout.token_chain)
        number = np.asarray(layout.token_residue)
        starts = np.append(True, (np.diff(chain) != 0) | (np.diff(number) != 0))
        first_token = np.flatnonzero(starts)
        self.num_residues = len(first_token)
        self.residue_of_token: Int[np.ndarray, " T"] = np.cumsum(starts) - 1
        self.residue_of_atom: Int[np.ndarray, " A"] = self.residue_of_token[layout.atom_token]
        residues = np.arange(self.num_residues + 1)
        self.first_atom: Int[np.ndarray, " R+1"] = np.searchsorted(self.residue_of_atom, residues)
        self.residue_chain: list[int] = chain[first_token].tolist()
        self.residue_number: list[int] = number[first_token].tolist()
        self.residue_name = [layout.token_name[token] for token in first_token]
        self.residue_kind = [layout.chain_kinds[chain] for chain in self.residue_chain]
        symbols = {
            int(number): gemmi.Element(int(number)).name.upper()
            for number in np.unique(layout.atom_element)
        }
        self.atom_symbol = [symbols[number] for number in layout.atom_element.tolist()]
        self.chain_names = _different(layout.chain_names)
        self.entities: list[Entity] = []
        self.instances: list[Instance] = []
        self._find_instances(is_sugar)
        self.instance_of_residue = [
            instance for instance in self.instances for _ in instance.residues
        ]

    def _find_instances(self, is_sugar: Callable[[str], bool]) -> None:
        layout = self.layout
        ends = np.searchsorted(self.residue_chain, np.arange(len(layout.chain_names) + 1)).tolist()
        labels = set(self.chain_names)
        indices: dict[object, int] = {}
        for chain, kind in enumerate(layout.chain_kinds):
            residues = range(ends[chain], ends[chain + 1])
            is_whole = kind != "ligand" or all(is_sugar(self.residue_name[r]) for r in residues)
            parts = [residues] if is_whole else [range(r, r + 1) for r in residues]
            for part, members in enumerate(parts):
                names = [self.residue_name[residue] for residue in members]
                molecule = layout.chain_entities[chain] if len(names) > 1 else (kind, *names)
                if kind in POLYMER_TYPES:
                    molecule = layout.chain_entities[chain]
                index = indices.setdefault(molecule, len(indices))
                label = self.chain_names[chain]
                if part:
                    label = _new_label(label, labels)
                if index == len(self.entities):
                    type = _entity_type(kind, len(names))
                    self.entities.append(Entity(index + 1, kind, type, names))
                instance = Instance(label, chain, members, index)
                self.entities[index].instances.append(instance)
                self.instances.append(instance)

    def label_number(self, residue: int) -> int | None:
        """label_seq_id: the position in a polymer; others have none."""
        is_polymer = self.residue_kind[residue] in POLYMER_TYPES
        return self.residue_number[residue] if is_polymer else None


def _entity_type(kind: str, num_residues: int) -> str:
    if kind in POLYMER_TYPES:
        return "polymer"
    return "branched" if num_residues > 1 else "non-polymer"


def _new_label(name: str, labels: set[str]) -> str:
    """The first of name_2, name_3, .. that is no label; it becomes one."""
    stem = name[: MAX_TEXT - len("_1000000")]
    label = next(label for n in count(2) if (label := f"{stem}_{n}") not in labels)
    labels.add(label)
    return label


def _different(names: list[str]) -> list[str]:
    """The names as they are written, with a number where truncation has made two of them equal."""
    written = [plain_text(name) for name in names]
    labels = set(written)
    seen: set[str] = set()
    for index, name in enumerate(written):
        if name in seen:
            written[index] = _new_label(name, labels)
        seen.add(name)
    return written
