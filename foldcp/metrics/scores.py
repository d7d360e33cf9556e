"""The scores of a predicted structure: of the whole, of each chain and of each pair of chains.

Direction: a directed score [a, b] has its frames (the aligned tokens, the rows of PAE) in chain a
and its scored tokens (the columns) in chain b. PAE[i, j] is the error of token j seen from the
frame of token i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foldcp.metrics.interface.scores import CutoffScores, InterfaceScores, StructureScores


@dataclass(frozen=True)
class Scores:
    """The scores of one sample, in input order of the C chains, without padding.

    TM(x, d) = 1 / (1 + (x / d)^2); d0(n) = 1.24 (max(n, 19) - 15)^(1/3) - 1.8 Å; E[TM] is the
    expectation over the 64 PAE bins; a frame is valid if `valid_frames` says so; T is the number of
    all tokens, n_a of those of chain a. pLDDT runs from 0 to 1. A token is a residue of a polymer
    or a heavy atom of a ligand. Arrays are float32, but for `contacts`.

    Whole complex, as Boltz (`compute_ptms`, `ConfidenceHeads`, `Boltz2.predict_step`):
        ptm: max over valid frames i of the mean over all j of E[TM(PAE_ij, d0(T))]; 0 without a
            valid frame.
        iptm: the same, j in other chains than i; 0 without a valid frame, NaN for one chain, where
            Boltz gives 0.
        ligand_iptm: as iptm, pairs of a ligand and a protein token only, either as frame; NaN if
            there are no such chains, where Boltz gives 0.
        protein_iptm: as iptm, pairs of protein tokens only; NaN for fewer than two proteins, where
            Boltz gives 0.
        complex_plddt: mean pLDDT of all tokens.
        complex_iplddt: mean pLDDT with weight 20 for ligand tokens, 10 for others in contact with
            another chain (representative atoms nearer than 8 Å), 1 for the rest. Not restricted to
            interfaces, despite its name.
        complex_pde: mean expected PDE in Å over i != j, weighted by the contact probability; NaN
            for one token.
        complex_ipde: the same over tokens of different chains, in Å; NaN for one chain, where
            Boltz gives 0.
        confidence_score: (4 complex_plddt + iptm) / 5, with ptm where iptm is 0 or NaN (Boltz
            decides that for all samples together, this for each).
    Chains [C]:
        chain_ptm: max over valid frames i in a of the mean over j in a of E[TM(PAE_ij, d0(n_a))];
            NaN without a valid frame (AlphaFold 3, the diagonal of chain_pair_iptm).
        chain_plddt: mean pLDDT of the chain.
        chain_pdockq2: pDockQ2 as published, over the CA contacts with all other proteins; 0 without
            contact, NaN for other kinds and for fewer than two proteins.
    Chain pairs [C, C], directed, the diagonal NaN unless said otherwise; ligand tokens count as any
    unless said:
        pair_iptm: max over valid frames i in a of the mean over j in b of E[TM(PAE_ij, d0(n_a +
            n_b))]; NaN without a valid frame in a. AlphaFold 3's symmetric chain_pair_iptm is
            np.fmax(x, x.T).
        pair_iptm_boltz: the same with d0(T), 0 without a valid frame; Boltz's
            pair_chains_iptm[b][a] (its first key is the scored chain). The diagonal is Boltz's
            chains_ptm.
        ipsae_d0res, ipsae_d0chn, ipsae_d0dom: max over all i in a of the mean of TM(PAE_ij, d0)
            over the j in b with expected PAE_ij < 10 Å; 0 if there are none, NaN if either chain is
            a ligand (ipsae.py v4, Dunbrack 2025; one token per polymer residue, whether or not its
            frame is valid). d0 from the number of those j (d0res), from n_a + n_b (d0chn), or from
            the residues of a and b that have any such pair in this direction (d0dom); at least 1 Å,
            2 Å if either chain is a nucleic acid. The program's undirected score is
            np.fmax(x, x.T).
        pae_mean, pae_min: of expected PAE_ij in Å, over valid frames i in a and all j in b; NaN
            without a valid frame in a (AlphaFold 3, `chain_pair_pae`).
        contacts: int32, pairs of tokens whose representative atoms (CB, CA of glycine, C4 or C2 of
            a base, the atom of a ligand; of a modified residue its own CB or base) are nearer than
            8 Å; symmetric, diagonal 0.
        interface_plddt: mean pLDDT of the tokens of a in contact with b; NaN without contact.
        interface: all other scores of pairs.
        cutoffs: scores that depend on a cutoff of PAE, by that cutoff in Å; 10 and 12 always.
    Whole complex, beside Boltz's:
        structure: ranking, clashes, disorder, stereochemistry.

    >>> import foldcp, numpy as np
    >>> chains = (foldcp.Chain("A", "protein", "MKTAYIAKQR"), foldcp.Chain("B", "dna", "GATTACA"))
    >>> model = foldcp.load_model("untrained:tiny", device="cpu")
    >>> scores = foldcp.fold(model, foldcp.Complex("pair", chains), steps=2).scores[0]
    >>> ipsae = np.fmax(scores.ipsae_d0res, scores.ipsae_d0res.T)[0, 1]  # of A and B, undirected
    >>> bool(0 < ipsae < 1)
    True
    """

    ptm: float
    iptm: float
    ligand_iptm: float
    protein_iptm: float
    complex_plddt: float
    complex_iplddt: float
    complex_pde: float
    complex_ipde: float
    confidence_score: float
    chain_ptm: Float[np.ndarray, " C"]
    chain_plddt: Float[np.ndarray, " C"]
    chain_pdockq2: Float[np.ndarray, " C"]
    pair_iptm: Float[np.ndarray, "C C"]
    pair_iptm_boltz: Float[np.ndarray, "C C"]
    ipsae_d0res: Float[np.ndarray, "C C"]
    ipsae_d0chn: Float[np.ndarray, "C C"]
    ipsae_d0dom: Float[np.ndarray, "C C"]
    pae_mean: Float[np.ndarray, "C C"]
    pae_min: Float[np.ndarray, "C C"]
    contacts: Int[np.ndarray, "C C"]
    interface_plddt: Float[np.ndarray, "C C"]
    interface: InterfaceScores
    cutoffs: dict[int, CutoffScores]
    structure: StructureScores
