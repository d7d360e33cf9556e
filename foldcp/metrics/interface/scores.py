"""Scores of directed pairs of chains: those of one PAE cutoff, and all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Å; the cutoffs of PAE that can be asked for, and those of the publications
PAE_CUTOFFS = (8, 10, 12, 15)
IPSAE_CUTOFF = 10
LIS_CUTOFF = 12
DEFAULT_CUTOFFS = (IPSAE_CUTOFF, LIS_CUTOFF)


@dataclass(frozen=True)
class CutoffScores:
    """Scores [C, C] of the pairs of tokens i in a, j in b with expected PAE_ij below a cutoff c in
    Å; the diagonal and pairs with a ligand are NaN. Arrays are float32, but for numbers of pairs.

        ipsae_d0res, ipsae_d0chn, ipsae_d0dom: as those of `Scores`, with this cutoff.
        lis: mean of (c - PAE_ij) / c over these pairs; 0 if there are none (AFM-LIS, Kim 2024). The
            program's score is the mean of both directions.
        lia: float64, number of these pairs. AFM-LIS's script gives the mean of both directions, the
            notebooks of 2024 their sum.
        clis, clia: lis and lia of the pairs that are in contact, too (see `Scores.contacts`).
        ilis: sqrt(lis clis), in this direction, as AFM-LIS's script takes it.
    """

    ipsae_d0res: Float[np.ndarray, "C C"]
    ipsae_d0chn: Float[np.ndarray, "C C"]
    ipsae_d0dom: Float[np.ndarray, "C C"]
    lis: Float[np.ndarray, "C C"]
    lia: Float[np.ndarray, "C C"]
    clis: Float[np.ndarray, "C C"]
    clia: Float[np.ndarray, "C C"]
    ilis: Float[np.ndarray, "C C"]


@dataclass(frozen=True)
class InterfaceScores:
    """Scores [C, C] of directed pairs of chains; the diagonal is NaN, and the empty text. Arrays
    are float32, but numbers of things are float64.

    "Contact" is that of `Scores.contacts`. What needs pairs of atoms is NaN for a heap of atoms, in
    which all are neighbours of all (more than 300 atoms within 6.6 Å of each on average).

        pdockq: 0.724 / (1 + exp(-0.052 (x - 152.611))) + 0.018, x the mean pLDDT (0..100) of the
            residues in contact of both sides times log10 of the number of contacts; 0 without
            contact, NaN unless both are proteins; symmetric (Bryant 2022, as in ipsae.py).
        pdockq2: 1.31 / (1 + exp(-0.075 (x - 84.733))) + 0.005, x the same mean pLDDT times the mean
            over contacts of TM(PAE_ij, 10 Å); 0 and NaN as pdockq. ipsae.py's form, which takes the
            larger of both directions.
        pdockq2_original: as published (Zhu 2023): CA atoms nearer than 8 Å, pLDDT of a alone with
            every contact counted, the constants 1.31034849, 84.7326239, 0.0747157696,
            0.00501886443; 0 and NaN as pdockq. With partners pooled: `Scores.chain_pdockq2`.
        contact_pae: mean of PAE_ij over contacts in Å; NaN without contact.
        pde_mean, pde_min: of expected PDE in Å over all i in a, j in b (AlphaFold 3,
            `chain_pair_pde`).
        contact_prob_max, contact_prob_top10, expected_contacts: largest probability of a contact
            within about 8 Å by the distogram, mean of the ten largest, and sum over all pairs.
        contacts_pae4: pairs of residues in contact by the rules of Interactome3D with PAE_ij < 4 Å
            (CCC, Lambourne et al.); NaN with a ligand.
        contacts_pae15: SPOC's contacts: heavy atoms nearer than 5 Å, pLDDT >= 0.5 on both sides,
            the lower of PAE_ij and PAE_ji at most 15 Å, without residues nearer than 1 Å to
            another chain; symmetric; NaN unless both are proteins.
        actifptm: max over valid frames i in a of the mean of E[TM(PAE_ij, d0(T))], both over the
            residues that likely touch the other chain (contact probability at least 0.6); 0 if
            none do, NaN without a valid frame in a. ColabFold's is the larger of both directions.
        pitm: max over valid frames i in a of the sum over j of E[TM(PAE_ij, d0)] / n, both over the
            n residues of a and b with atoms nearer than 4.5 Å to the other chain, d0 = d0(n), 0.02
            n where that is below 0.5 Å; 0 without such, NaN with a ligand. AF2Complex's piTM of the
            two chains is the larger of both directions.
        af2complex_score: AF2Complex's interface-score of the two chains: as pitm with j in the
            other chain only, summed over both directions; symmetric.
        ligand_iptm: the larger pair_iptm of both directions, for a protein and a ligand; NaN for
            others. Boltz's, with d0 of the pair's own tokens.
        num_interface_residues, interface_residues: residues (or components) of a with an atom
            nearer than 5 Å to b: their number, and which, as `A:3-9,14`.
        clashes: pairs of atoms nearer than 1.1 Å, symmetric (Chai-1).
        clashing_atoms: atoms of a at most 1.1 Å from an atom of b (AlphaFold 3); NaN with a ligand.
        buried_area: SASA(a) + SASA(b) - SASA(ab) in Å², probe 1.4 Å; symmetric. NaN for chains that
            run through each other, too.
        backbone_hbonds: N-H of a to C=O of b, by DSSP's energy; NaN unless both are proteins.
        salt_bridges: pairs of a Lys or Arg of a and an Asp or Glu of b with charged atoms at most 4
            Å apart; NaN unless both are proteins.
    """

    pdockq: Float[np.ndarray, "C C"]
    pdockq2: Float[np.ndarray, "C C"]
    pdockq2_original: Float[np.ndarray, "C C"]
    contact_pae: Float[np.ndarray, "C C"]
    pde_mean: Float[np.ndarray, "C C"]
    pde_min: Float[np.ndarray, "C C"]
    contact_prob_max: Float[np.ndarray, "C C"]
    contact_prob_top10: Float[np.ndarray, "C C"]
    expected_contacts: Float[np.ndarray, "C C"]
    contacts_pae4: Float[np.ndarray, "C C"]
    contacts_pae15: Float[np.ndarray, "C C"]
    actifptm: Float[np.ndarray, "C C"]
    pitm: Float[np.ndarray, "C C"]
    af2complex_score: Float[np.ndarray, "C C"]
    ligand_iptm: Float[np.ndarray, "C C"]
    num_interface_residues: Float[np.ndarray, "C C"]
    interface_residues: tuple[tuple[str, ...], ...]
    clashes: Float[np.ndarray, "C C"]
    clashing_atoms: Float[np.ndarray, "C C"]
    buried_area: Float[np.ndarray, "C C"]
    backbone_hbonds: Float[np.ndarray, "C C"]
    salt_bridges: Float[np.ndarray, "C C"]


@dataclass(frozen=True)
class StructureScores:
    """Scores of a whole complex beside those of Boltz; NaN where they do not apply, and where a
    coordinate is not finite.

        ranking_score: 0.8 ipTM + 0.2 pTM + 0.5 fraction_disordered - 100 has_clash, with pTM for
            ipTM if there is one chain (AlphaFold 3).
        fraction_disordered: share of the residues of proteins with a mean relative accessibility
            over 25 residues above 0.581, each chain alone (AlphaFold 3).
        has_clash: 1 if more than 100 atoms, or half of the atoms, of a polymer are at most 1.1 Å
            from another polymer, or from a residue that is not the next; else 0 (AlphaFold 3).
        mpdockq: 0.827 / (1 + exp(-0.036 (x - 261.398))) + 0.221, x the sum over ordered pairs of
            proteins of log10(contacts + 1) times the mean pLDDT of both sides of the contacts; NaN
            for fewer than two proteins (AlphaPulldown).
        ligand_chiral_centers, ligand_chirality_errors: chiral carbons of ligands, and how many have
            the other hand than the reference conformer.
        residue_chirality_errors: residues of proteins whose CA has.
        cis_peptides: peptide bonds with |omega| < 30 degrees before others than proline.
        twisted_peptides: those with 30 <= |omega| < 150 degrees.
        bad_peptide_bonds: those whose length is more than 5 sigma from 1.336 Å, sigma 0.023 Å.
    """

    ranking_score: float
    fraction_disordered: float
    has_clash: float
    mpdockq: float
    ligand_chiral_centers: float
    ligand_chirality_errors: float
    residue_chirality_errors: float
    cis_peptides: float
    twisted_peptides: float
    bad_peptide_bonds: float
