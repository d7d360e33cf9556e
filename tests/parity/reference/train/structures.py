"""Experimental structures as the features of Boltz that its losses read."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import biotite.structure as structure
import numpy as np
import torch
from biotite.structure.io import pdbx
from boltz.data import const
from torch import Tensor
from torch.nn.functional import one_hot

from train.truth import labels

MAX_RESIDUES = 40  # of a chain; the rest is cropped away
PROTEIN, DNA, RNA, LIGAND = (
    const.chain_type_ids[kind] for kind in ("PROTEIN", "DNA", "RNA", "NONPOLYMER")
)


def read(path: Path) -> dict[str, Any]:
    """Features of the first residues of each chain, in order, with their symmetries."""
    with gzip.open(path, "rt") as file:
        atoms = pdbx.get_structure(
            pdbx.CIFFile.read(file), model=1, extra_fields=["b_factor"], use_author_fields=False
        )
    table = _Table()
    for chain in dict.fromkeys(atoms.chain_id.tolist()):
        table.add_chain(atoms[atoms.chain_id == chain])
    return table.features()


class _Table:
    def __init__(self) -> None:
        self.tokens: list[dict[str, Any]] = []
        self.coords: list[np.ndarray] = []
        self.resolved: list[bool] = []
        self.bfactors: list[float] = []
        self.entities: dict[tuple[str, ...], int] = {}
        self.num_chains = 0

    def add_chain(self, atoms: Any) -> None:
        residues = list(structure.residue_iter(atoms))[:MAX_RESIDUES]
        names = tuple(residue.res_name[0] for residue in residues)
        entity = self.entities.setdefault(names, len(self.entities))
        kind = _kind(names)
        for number, residue in enumerate(residues):
            name = names[number]
            about = {
                "asym_id": self.num_chains,
                "entity_id": entity,
                "mol_type": kind,
                "residue": number,
            }
            if kind != LIGAND and name in const.ref_atoms and name in const.res_to_disto_atom:
                self._add_residue(name, residue, about)
            else:
                for atom in residue:
                    self._add_token(about, [atom], "", 0, 0, (0, 0, 0))
        self.num_chains += 1

    def _add_residue(self, name: str, residue: Any, about: dict[str, Any]) -> None:
        names = const.ref_atoms[name]
        found = {atom.atom_name: atom for atom in residue}
        frame = ("N", "CA", "C") if about["mol_type"] == PROTEIN else ("C1'", "C3'", "C4'")
        self._add_token(
            about,
            [found.get(atom) for atom in names],
            name,
            names.index(const.res_to_disto_atom[name]),
            names.index(const.res_to_center_atom[name]),
            tuple(names.index(atom) for atom in frame),
        )

    def _add_token(
        self, about: dict, atoms: list, name: str, rep: int, center: int, frame: tuple
    ) -> None:
        first = len(self.coords)
        for atom in atoms:
            self.coords.append(np.zeros(3) if atom is None else atom.coord)
            self.resolved.append(atom is not None)
            self.bfactors.append(0.0 if atom is None else float(atom.b_factor))
        self.tokens.append(
            {
                **about,
                "name": name,
                "atoms": range(first, len(self.coords)),
                "rep": first + rep,
                "center": first + center,
                "frame": [first + atom for atom in frame],
            }
        )

    def features(self) -> dict[str, Any]:
        A = len(self.coords)
        padding = -A % 32
        N = len(self.tokens)
        column = {
            name: torch.tensor([[token[name] for token in self.tokens]])
            for name in ("asym_id", "entity_id", "mol_type", "rep", "center", "frame")
        }
        atom_token = torch.zeros(A + padding, N, dtype=torch.long)
        for number, token in enumerate(self.tokens):
            atom_token[token["atoms"].start : token["atoms"].stop, number] = 1
        mask = torch.ones(1, A + padding)
        mask[:, A:] = 0
        feats: dict[str, Any] = {
            "asym_id": column["asym_id"],
            "entity_id": column["entity_id"],
            "mol_type": column["mol_type"],
            "token_pad_mask": torch.ones(1, N),
            "atom_pad_mask": mask,
            "atom_to_token": atom_token[None],
            "token_to_rep_atom": one_hot(column["rep"], A + padding),
            "token_to_center_atom": one_hot(column["center"], A + padding),
            "frames_idx": column["frame"][:, None],
        }
        pad = torch.nn.functional.pad
        coords = pad(torch.tensor(np.array(self.coords)).double(), (0, 0, 0, padding))[None]
        resolved = pad(torch.tensor(self.resolved).float(), (0, padding))[None]
        bfactor = pad(torch.tensor(self.bfactors), (0, padding))[None]
        feats |= labels(feats, coords, resolved, bfactor)
        feats["residue_swaps"] = self._residue_swaps()
        return feats

    def _residue_swaps(self) -> list[list[list[tuple[int, int]]]]:
        """Symmetries of standard residues, and of the first ligand a made-up one."""
        swaps = []
        for token in self.tokens:
            first = token["atoms"].start
            symmetries = const.ref_symmetries.get(token["name"], [])
            if symmetries:
                swaps.append([[(first + i, first + j) for i, j in sym] for sym in symmetries])
        ligand = [token["atoms"].start for token in self.tokens if token["mol_type"] == LIGAND]
        if len(ligand) > 5:
            a, b, c, d = ligand[:4]
            swaps.append([[(a, b), (b, a)], [(a, c), (c, d), (d, a)]])
        return swaps


def _kind(names: tuple[str, ...]) -> int:
    if any(name in const.prot_token_to_letter for name in names):
        return PROTEIN
    if any(name in ("DA", "DG", "DC", "DT") for name in names):
        return DNA
    return RNA if any(name in ("A", "G", "C", "U") for name in names) else LIGAND


def as_prediction(feats: dict[str, Any], seed: int) -> Tensor:
    """Coordinates [1, A, 3] as a network might predict them: noise, with copies of chains, and some
    symmetric atoms, exchanged.
    """
    generator = torch.Generator().manual_seed(seed)
    coords = feats["coords"][0, 0].double()
    moved = coords.clone()
    for swaps in feats["symmetries"]["chains"][-1]:
        start, stop, other, other_stop, *_ = swaps
        moved[start:stop] = coords[other:other_stop]
    start = moved.clone()
    for number, alternatives in enumerate(feats["symmetries"]["residues"]):
        for i, j in alternatives[-1] if number % 2 else []:
            moved[i] = start[j]
    return (moved + 0.7 * torch.randn(moved.shape, generator=generator).double())[None]
