"""A complex with every kind of molecule that a structure file can hold, and its structures."""

from __future__ import annotations

import numpy as np

from foldcp.complex import Bond, Chain, Complex
from foldcp.features.featurize import featurize
from foldcp.structure.predicted import PredictedStructure
from tests.support.synthetic import synthetic_scores

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)[O-]"
PEPTIDE = "MKTNASIAKCQRQISFCK"
GLYCAN_BONDS = (
    Bond(("A", 4, "ND2"), ("G1", 1, "C1")),
    Bond(("G1", 1, "O4"), ("G1", 2, "C1")),
    Bond(("G1", 2, "O4"), ("G1", 3, "C1")),
    Bond(("G1", 3, "O3"), ("G1", 4, "C1")),
    Bond(("G1", 3, "O6"), ("G1", 5, "C1")),
    Bond(("G2", 1, "O6"), ("G2", 2, "C2")),
)
OTHER_BONDS = (
    Bond(("A", 10, "SG"), ("A", 17, "SG")),
    Bond(("cap", 1, "C"), ("cap", 2, "N")),
    Bond(("cap", 2, "C"), ("cap", 3, "N")),
    Bond(("Z", 1, "ZN"), ("A", 1, "SD")),
)


def protein(
    name: str,
    sequence: str,
    accession: str = "",
    cyclic: bool = False,
    modifications: tuple[tuple[int, str], ...] = (),
) -> Chain:
    return Chain(name, "protein", sequence, accession, cyclic=cyclic, modifications=modifications)


def mixed_complex() -> Complex:
    """Copies, modified and D-residues, a cyclic peptide, one residue, DNA and RNA with unknown
    residues, glycans, ligands of the CCD and from SMILES with charges, an ion, capped alanine.
    """
    chains = (
        protein("A", PEPTIDE, "P12345:5-22", modifications=((3, "TPO"),)),
        protein("B", PEPTIDE, "Q9JLM8", modifications=((3, "TPO"),)),
        protein("cyc", "GPCAGSCK", cyclic=True),
        protein("one", "K", "ENSP00000001"),
        protein("D1", "GAG", "O00001-2", modifications=((2, "DAL"),)),
        Chain("D", "dna", "ACGTN"),
        Chain("R", "rna", "ACGUN", cyclic=True),
        Chain("G1", "ligand", ccd=("NAG", "NAG", "BMA", "MAN", "MAN")),
        Chain("G2", "ligand", ccd=("GAL", "SIA")),
        Chain("L", "ligand", ccd=("ATP",)),
        Chain("L2", "ligand", ccd=("ATP",)),
        Chain("Z", "ligand", ccd=("ZN",)),
        Chain("H", "ligand", ccd=("HEM",)),
        Chain("cap", "ligand", ccd=("ACE", "ALA", "NME")),
        Chain("S", "ligand", smiles=ASPIRIN),
        Chain("S2", "ligand", smiles="C[N+](C)(C)CC=CC#N"),
    )
    bonds = GLYCAN_BONDS + OTHER_BONDS
    return Complex("mixed", chains, "A title; of 'two'\n;lines", bonds=bonds)


def structure_of(complex: Complex, seed: int = 0) -> PredictedStructure:
    """A structure with random coordinates, pLDDT and scores."""
    layout = featurize(complex).layout
    rng = np.random.default_rng(seed)
    return PredictedStructure(
        layout=layout,
        coords=rng.normal(0, 100, (len(layout.atom_token), 3)).astype(np.float32),
        plddt=rng.uniform(0, 1, len(layout.token_chain)).astype(np.float32),
        name=complex.name,
        title=complex.title,
        details="made by nobody",
        scores=synthetic_scores(layout, rng),
        weights="sha256:abc",
        parameters={"seed": 7, "precision": "bf16"},
    )
