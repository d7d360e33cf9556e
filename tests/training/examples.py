"""Training examples with a structure that is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from foldcp.complex import Chain, Complex
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.training.example import Symmetries, TrainingExample, Truth, lddt_atoms


def trimer() -> Complex:
    """A protein in two copies, DNA and a ligand; 29 tokens divide by neither 2 nor 3."""
    return Complex(
        "trimer",
        (
            Chain("A", "protein", "MKDAYIAF"),
            Chain("B", "protein", "MKDAYIAF"),
            Chain("D", "dna", "GATTA"),
            Chain("L", "ligand", smiles="CC(=O)NCCO"),
        ),
    )


def example(conformers: int = 1, seed: int = 3) -> TrainingExample:
    """A random walk as the structure, with a tenth of the atoms missing."""
    features = featurize(trimer())
    return TrainingExample(features, truth_of(features, conformers, seed), "trimer")


def truth_of(features: Features, conformers: int, seed: int) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    A = features.num_atoms
    mask = features.atom_mask
    resolved = (torch.rand(A, generator=generator) > 0.1) * mask
    walk = torch.randn((conformers, A, 3), generator=generator).cumsum(1)
    return Truth(
        conformers=walk * resolved[:, None],
        resolved=resolved,
        bfactors=torch.rand(A, generator=generator) * 100 * (torch.arange(A) % 5 > 0),
        lddt_atoms=lddt_atoms(features, resolved),
    )


def with_symmetries(example: TrainingExample) -> TrainingExample:
    """The two copies may be exchanged, and the oxygens of the aspartate of each."""
    layout = example.features.layout
    truth = example.truth
    A = len(layout.atom_token)
    chain_of_atom = layout.token_chain[layout.atom_token]
    spans = [np.flatnonzero(chain_of_atom == chain)[[0, -1]] + [0, 1] for chain in (0, 1)]
    (a, a_stop), (b, b_stop) = (tuple(int(x) for x in span) for span in spans)
    oxygens = [
        [i for i in range(start, stop) if layout.atom_name[i] in ("OD1", "OD2")]
        for start, stop in ((a, a_stop), (b, b_stop))
    ]
    symmetries = Symmetries(
        coords=truth.coords[:A],
        resolved=truth.resolved[:A],
        atoms=torch.arange(A),
        chains=[[(a, a_stop, a), (b, b_stop, b)], [(a, a_stop, b), (b, b_stop, a)]],
        residues=[[np.array([pair, pair[::-1]])] for pair in oxygens],
    )
    return replace(example, truth=replace(truth, symmetries=symmetries))


def grad_of(x: Tensor) -> Tensor:
    """The gradient, which must be there."""
    assert x.grad is not None
    return x.grad
