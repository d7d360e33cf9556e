"""Which ligands of a prediction and a reference are the same molecule, and atom by atom."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import networkx as nx
import numpy as np
from jaxtyping import Int
from networkx.algorithms.isomorphism import GraphMatcher, categorical_node_match

from foldcp.chemistry.ccd import ccd_column
from foldcp.pipeline.evaluation.structures.chain import Chain, Structure

MAX_MAPPINGS = 1_000  # of the atoms of a ligand, the symmetric ones among them
SAME_ELEMENT = categorical_node_match("element", "")
Bonds = frozenset[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class LigandPair:
    """A ligand of a prediction and one of the reference, of K common atoms.

    Each of the S mappings has the predicted atom of every atom in `reference_atoms`.
    """

    model: Chain
    reference: Chain
    model_atoms: Int[np.ndarray, "S K"]
    reference_atoms: Int[np.ndarray, " K"]


@dataclass(eq=False)
class LigandMatcher:
    """Finds the mappings of ligands of two structures; equal ones are looked up once."""

    model: Structure
    reference: Structure
    _known: dict[object, tuple[np.ndarray, np.ndarray] | None] = field(default_factory=dict)

    def match(self, model: Chain, reference: Chain) -> LigandPair | None:
        """The common atoms of two ligands; None for different molecules.

        Of equal components, atoms have equal names, but for the symmetries of the component's
        bonds, of which at most 1,000 are looked at. Others, such as those made from SMILES, are the
        same molecule when elements and bonds are. Ligands of several components need the same ones
        in the same order; their symmetries are not looked for.
        """
        key = (_identity(model), _identity(reference))
        if key not in self._known:
            self._known[key] = self._map(model, reference)
        found = self._known[key]
        return None if found is None else LigandPair(model, reference, *found)

    def _map(self, model: Chain, reference: Chain) -> tuple[np.ndarray, np.ndarray] | None:
        if model.codes == reference.codes:
            common = _common_atoms(model, reference)
            if not len(common[0]):
                return None
            if len(model.codes) != 1 or not _bonds(self.model.bonds, model.codes[0]):
                return common[0][None], common[1]
            found = self._mappings(model, reference, common[1])
            return found or (common[0][None], common[1])
        elements = [Counter(ligand.elements.tolist()) for ligand in (model, reference)]
        if max(len(model.codes), len(reference.codes)) > 1 or elements[0] != elements[1]:
            return None
        return self._mappings(model, reference, np.arange(len(reference.coords)))

    def _mappings(
        self, model: Chain, reference: Chain, atoms: Int[np.ndarray, " K"]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The mappings of some atoms of the reference to predicted atoms; None without any."""
        whole = _graph(model, _bonds(self.model.bonds, model.codes[0]))
        bonds = _bonds(self.reference.bonds, reference.codes[0])
        part = _graph(reference, bonds).subgraph(atoms.tolist())
        if len(atoms) > 1 and not part.number_of_edges():
            return None
        is_other = model.codes != reference.codes
        if is_other and not nx.faster_could_be_isomorphic(whole, part):
            return None
        matcher = GraphMatcher(whole, part, node_match=SAME_ELEMENT)
        mappings = itertools.islice(matcher.subgraph_monomorphisms_iter(), MAX_MAPPINGS)
        found = [sorted(mapping, key=lambda atom: mapping[atom]) for mapping in mappings]
        return (np.array(found), np.sort(atoms)) if found else None


def _identity(ligand: Chain) -> tuple[object, ...]:
    return (ligand.codes, tuple(ligand.atom_names), tuple(ligand.atom_residue))


def _common_atoms(
    model: Chain, reference: Chain
) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Atoms of equal residue and name."""
    sides = [
        np.array(
            [
                f"{residue} {name}"
                for residue, name in zip(chain.atom_residue, chain.atom_names, strict=True)
            ]
        )
        for chain in (model, reference)
    ]
    _, first, second = np.intersect1d(sides[0], sides[1], return_indices=True)
    return first, second


def _graph(ligand: Chain, bonds: Bonds) -> nx.Graph:
    graph = nx.Graph()
    position = {name: atom for atom, name in enumerate(ligand.atom_names.tolist())}
    for atom, element in enumerate(ligand.elements.tolist()):
        graph.add_node(atom, element=element)
    graph.add_edges_from(
        (position[a], position[b]) for a, b in bonds if a in position and b in position
    )
    return graph


def _bonds(own: Mapping[str, Bonds], code: str) -> Bonds:
    """The bonds of a component: of its own file, else of the CCD; none where neither has it."""
    return own.get(code) or _ccd_bonds(code)


@cache
def _ccd_bonds(code: str) -> Bonds:
    columns = [ccd_column("chem_comp_bond", code, name) for name in ("atom_id_1", "atom_id_2")]
    ends = [column for column in columns if column is not None]
    return frozenset(zip(*ends, strict=True)) if len(ends) == 2 else frozenset()
