"""Synthetic layouts, scores and predictions, for tests of what is written about them."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice

import numpy as np
import torch

from foldcp.complex import chain_names
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.interface.pae_blocks import PaeBlock, pae_blocks
from foldcp.metrics.interface.scores import CutoffScores, InterfaceScores, StructureScores
from foldcp.metrics.scores import Scores
from foldcp.predict import Prediction

PARTS = {  # residue -> its atoms
    "ALA": "N CA C O CB",
    "GLY": "N CA C O",
    "SER": "N CA C O CB OG",
    "MSE": "N CA C O CB CG SE CE",
    "UNK": "N CA C O CB",
    "DA": "P O5' C3' C1' N9",
    "DN": "P C3' C1'",
    "N": "P C3' C1'",
    "U": "P O5' C3' C1' N1",
    "ATP": "PG O1G C5' N9",
    "NAG": "C1 C2 O5",
    "ZN": "ZN",
}
ATOMIC_NUMBERS = {"C": 6, "N": 7, "O": 8, "P": 15, "S": 16, "SE": 34, "ZN": 30}
WHOLE = [field.name for field in fields(Scores) if field.type == "float"]
TOKEN_PER_ATOM = {"MSE", "ATP", "NAG", "ZN"}


def synthetic_layout(
    chains: list[tuple[str, list[str]]],
    names: list[str] | None = None,
    depths: list[int] | None = None,
) -> Layout:
    """A layout of (kind, residues) chains; equal chains are copies of one entity. Alignments are of
    one row, unless `depths` says otherwise.
    """
    entities: dict[tuple[str, ...], int] = {}
    chain = []
    residue = []
    name = []
    atom_token = []
    atom_name = []
    element = []
    for c, (_, residues) in enumerate(chains):
        for number, code in enumerate(residues, 1):
            for i, atom in enumerate(PARTS[code].split()):
                if i == 0 or code in TOKEN_PER_ATOM:
                    chain.append(c)
                    residue.append(number)
                    name.append(code)
                atom_token.append(len(chain) - 1)
                atom_name.append(atom)
                element.append(ATOMIC_NUMBERS[atom if atom in ("SE", "ZN") else atom[0]])
    return Layout(
        chain_names=names or list(islice(chain_names(), len(chains))),
        chain_kinds=[kind for kind, _ in chains],
        chain_accessions=[""] * len(chains),
        chain_smiles=[""] * len(chains),
        chain_entities=np.array([entities.setdefault((k, *r), len(entities)) for k, r in chains]),
        token_chain=np.array(chain),
        token_residue=np.array(residue),
        token_name=name,
        atom_token=np.array(atom_token),
        atom_name=atom_name,
        atom_element=np.array(element),
        atom_charge=np.zeros(len(element), dtype=np.int64),
        bonds=np.zeros((0, 3), dtype=np.int64),
        covalent=np.zeros((0, 2), dtype=np.int64),
        chain_msa_depth=np.array(depths or [1] * len(chains)),
    )


def synthetic_scores(layout: Layout, rng: np.random.Generator) -> Scores:
    """Scores of one sample: random and different everywhere; NaN where the network has none."""
    C = len(layout.chain_names)
    ligand = np.array(layout.chain_kinds) == "ligand"

    def pairs(high: float = 1.0) -> np.ndarray:
        values = rng.uniform(0, high, (C, C)).astype(np.float32)
        np.fill_diagonal(values, np.nan)
        return values

    boltz = pairs()
    np.fill_diagonal(boltz, rng.uniform(0, 1, C))
    cutoffs = {cutoff: synthetic_cutoff_scores(ligand, rng) for cutoff in (10, 12)}
    contacts = rng.integers(0, 9, (C, C)).astype(np.int32)
    contacts = np.triu(contacts, 1) + np.triu(contacts, 1).T
    return Scores(
        **{name: float(rng.uniform()) for name in WHOLE},
        chain_ptm=rng.uniform(0, 1, C).astype(np.float32),
        chain_plddt=rng.uniform(0, 1, C).astype(np.float32),
        pair_iptm=pairs(),
        pair_iptm_boltz=boltz,
        ipsae_d0res=cutoffs[10].ipsae_d0res,
        ipsae_d0chn=cutoffs[10].ipsae_d0chn,
        ipsae_d0dom=cutoffs[10].ipsae_d0dom,
        pae_mean=pairs(32),
        pae_min=pairs(16),
        contacts=contacts,
        interface_plddt=np.where(contacts > 0, pairs(), np.float32(np.nan)),
        cutoffs=cutoffs,
        chain_pdockq2=np.where(ligand, np.nan, rng.uniform(0, 1, C)).astype(np.float32),
        interface=synthetic_interface_scores(layout, ligand, rng),
        structure=StructureScores(
            **{field.name: float(rng.integers(0, 2)) for field in fields(StructureScores)}
        ),
    )


def synthetic_interface_scores(
    layout: Layout, ligand: np.ndarray, rng: np.random.Generator
) -> InterfaceScores:
    """Scores of pairs: whole numbers, as some are; NaN on the diagonal, some for ligands."""
    C = len(ligand)
    values = {
        field.name: np.where(np.eye(C), np.nan, rng.integers(0, 9, (C, C)))
        for field in fields(InterfaceScores)
    }
    values["pdockq"][ligand[:, None] | ligand] = np.nan
    text = tuple(
        tuple("" if a == b else f"{layout.chain_names[a]}:{1 + b}" for b in range(C))
        for a in range(C)
    )
    return InterfaceScores(**(values | {"interface_residues": text}))


def synthetic_cutoff_scores(ligand: np.ndarray, rng: np.random.Generator) -> CutoffScores:
    """Scores at one cutoff of PAE: random, NaN on the diagonal and for ligands."""
    C = len(ligand)
    undefined = ligand[:, None] | ligand[None, :] | np.eye(C, dtype=bool)
    values = {
        field.name: np.where(undefined, np.nan, rng.uniform(0, 1, (C, C))).astype(np.float32)
        for field in fields(CutoffScores)
    }
    counts = {
        name: np.where(undefined, np.nan, rng.integers(0, 99, (C, C))) for name in ("lia", "clia")
    }
    return CutoffScores(**(values | counts))


def pae_blocks_of(prediction: Prediction, sample: int) -> list[PaeBlock]:
    """The blocks of the whole PAE of a sample that one rank would keep."""
    spans = ChainSpans.of(prediction.layout)
    kept = np.ones((spans.num_chains, spans.num_chains), bool)
    return pae_blocks(torch.from_numpy(prediction.pae[sample]), 0, spans, kept, sample)


def synthetic_prediction(layout: Layout, num_samples: int, seed: int = 0) -> Prediction:
    """Samples with random scores, coordinates, pLDDT, PAE and PDE."""
    rng = np.random.default_rng(seed)
    A = len(layout.atom_token)
    T = len(layout.token_chain)

    def matrices() -> list[np.ndarray]:
        return [rng.uniform(0.25, 31.75, (T, T)).astype(np.float32) for _ in range(num_samples)]

    return Prediction(
        coords=rng.normal(0, 20, (num_samples, A, 3)).astype(np.float32),
        plddt=rng.uniform(0, 1, (num_samples, T)).astype(np.float32),
        scores=[synthetic_scores(layout, rng) for _ in range(num_samples)],
        pae=matrices(),
        pde=matrices(),
        layout=layout,
        seconds={"trunk": 1.5, "sampling": 2.5, "confidence": 0.25},
        peak_bytes=12345,
    )
