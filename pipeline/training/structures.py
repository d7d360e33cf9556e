"""Structures of a training example, as evaluation reads them: predicted, and in experiment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import get_args

import gemmi
import numpy as np
from jaxtyping import Bool, Float, Int

from foldcp.features.layout import Layout
from foldcp.pipeline.evaluation.structures.chain import Chain, Kind, Structure
from foldcp.structure.components import parent_letter


def structure_of(
    layout: Layout, coords: Float[np.ndarray, "A 3"], present: Bool[np.ndarray, " A"]
) -> Structure:
    """The chains of a layout with the atoms that are present, at coordinates in Å."""
    token_of_atom = layout.atom_token
    chain_of_atom = layout.token_chain[token_of_atom]
    chains = []
    for number in range(len(layout.chain_names)):
        tokens = np.flatnonzero(layout.token_chain == number)
        atoms = np.flatnonzero((chain_of_atom == number) & present)
        if len(tokens) and len(atoms):
            chains.append(_chain(layout, number, tokens, atoms, coords))
    return Structure(tuple(chains), _bonds(layout))


def _chain(
    layout: Layout,
    number: int,
    tokens: Int[np.ndarray, " n"],
    atoms: Int[np.ndarray, " a"],
    coords: Float[np.ndarray, "A 3"],
) -> Chain:
    """A chain, its residues numbered without those that a crop has left out."""
    residues, first = np.unique(layout.token_residue[tokens], return_index=True)
    codes = tuple(layout.token_name[tokens[i]] for i in first)
    kind = layout.chain_kinds[number]
    assert kind in get_args(Kind)
    return Chain(
        name=layout.chain_names[number],
        kind=kind,  # type: ignore[arg-type]
        codes=codes,
        letters="".join(parent_letter(code).upper() for code in codes),
        atom_residue=np.searchsorted(residues, layout.token_residue[layout.atom_token[atoms]]),
        atom_names=np.array([layout.atom_name[i] for i in atoms]),
        elements=np.array([gemmi.Element(int(layout.atom_element[i])).name.upper() for i in atoms]),
        coords=coords[atoms].astype(float),
    )


def _bonds(layout: Layout) -> dict[str, frozenset[tuple[str, str]]]:
    """The bonds within residues that are not standard, by component."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    bonds: Iterable[tuple[int, int, int]] = layout.bonds.tolist()
    for first, second, _ in bonds:
        code = layout.token_name[layout.atom_token[first]]
        found[code].add((layout.atom_name[first], layout.atom_name[second]))
    return {code: frozenset(pairs) for code, pairs in found.items()}
