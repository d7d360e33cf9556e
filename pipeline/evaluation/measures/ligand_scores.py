"""Measures of a predicted ligand: RMSD in its superposed pocket, and lDDT-PLI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.matching.ligands import LigandPair
from foldcp.pipeline.evaluation.measures.dockq import MIN_ATOMS
from foldcp.pipeline.evaluation.measures.lddt import kept_share
from foldcp.pipeline.evaluation.measures.superposition import superposition
from foldcp.pipeline.evaluation.structures.chain import Chain

POCKET = 10.0  # Å, from the ligand to an atom of a residue of the pocket
PLI_INCLUSION = 6.0  # Å, of distances between ligand and polymers


@dataclass(frozen=True, eq=False)
class Pocket:
    """The surroundings of a ligand of the reference in some of its polymers, and the superposition
    of the prediction onto their backbone; `near` are atoms within 6 Å of the ligand.
    """

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, " 3"]
    near_model: Float[np.ndarray, "n 3"]
    near_pairs: Int[np.ndarray, "D 2"]  # (atom of the ligand in the reference, of `near_model`)
    near_distances: Float[np.ndarray, " D"]


def find_pocket(ligand: Chain, pairs: Sequence[ChainPair]) -> Pocket | None:
    """The pocket of a ligand of the reference; None where no residue near it is predicted.

    The backbone is that of residues with an atom within 10 Å, as DockQ superposes it.
    """
    moving = []
    target = []
    near_model = []
    near_pairs = []
    near_distances = []
    num_near = 0
    for pair in pairs:
        found = ligand.tree.sparse_distance_matrix(
            pair.reference.tree, POCKET, output_type="ndarray"
        )
        if not len(found):
            continue
        columns = pair.column_of_reference[pair.reference.atom_residue[found["j"]]]
        chosen = pair.is_backbone & np.isin(pair.atom_column, columns)
        moving.append(pair.model_coords[chosen])
        target.append(pair.reference_coords[chosen])
        atoms = pair.common_of_reference[found["j"]]
        is_near = (found["v"] < PLI_INCLUSION) & (atoms >= 0)
        near, index = np.unique(atoms[is_near], return_inverse=True)
        near_model.append(pair.model_coords[near])
        near_pairs.append(np.stack([found["i"][is_near], num_near + index], axis=1))
        near_distances.append(found["v"][is_near])
        num_near += len(near)
    if sum(map(len, moving)) < MIN_ATOMS:
        return None
    rotation, translation = superposition(np.concatenate(moving), np.concatenate(target))
    return Pocket(
        rotation,
        translation,
        np.concatenate(near_model),
        np.concatenate(near_pairs),
        np.concatenate(near_distances),
    )


def ligand_rmsd(ligand: LigandPair, pocket: Pocket) -> float:
    """RMSD of the ligand's atoms after superposing the pocket, in Å: the least of the mappings."""
    moved = ligand.model.coords @ pocket.rotation + pocket.translation
    target = ligand.reference.coords[ligand.reference_atoms]
    squared = np.square(moved[ligand.model_atoms] - target).sum(axis=-1).mean(axis=-1)
    return float(np.sqrt(squared.min()))


def lddt_pli(ligand: LigandPair, pocket: Pocket) -> float:
    """lDDT of the distances between ligand and polymers that are below 6 Å in the reference: the
    largest of the mappings. NaN without such distances.

    Source: Robin 2023 (CASP15), without a penalty for contacts that the reference lacks.
    """
    place = np.full(len(ligand.reference.coords), -1)
    place[ligand.reference_atoms] = np.arange(len(ligand.reference_atoms))
    of_ligand = place[pocket.near_pairs[:, 0]]
    is_common = of_ligand >= 0
    pairs = np.stack([of_ligand[is_common], pocket.near_pairs[is_common, 1]], axis=1)
    distances = pocket.near_distances[is_common]
    return max(
        kept_share(ligand.model.coords[atoms], pocket.near_model, pairs, distances)
        for atoms in ligand.model_atoms
    )
