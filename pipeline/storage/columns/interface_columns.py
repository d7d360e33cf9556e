"""The score columns of `interfaces`, with units and when a score is null."""

from __future__ import annotations

from typing import get_args

from foldcp.pipeline.config import PaeCutoff
from foldcp.pipeline.storage.columns.column import Column, count, score

FRAMES = "frames in chain_a, scored tokens in chain_b"
NO_LIGAND = "null if either chain is a ligand"
PROTEINS = "null unless both are proteins"
HEAP = "in a heap of atoms (more than 300 within 6.6 Å of each)"
LOWER = "Å, lower is better"
# Å; the published cutoffs, whose columns have no number in their names
IPSAE_CUTOFF = 10
LIS_CUTOFF = 12
IPSAE_NAMES = ("ipsae_d0res", "ipsae_d0chn", "ipsae_d0dom")
LIS_NAMES = ("lis", "lia", "clis", "clia", "ilis")


def cutoff_column(name: str, cutoff: int) -> str:
    """The column of a score at a cutoff of PAE: ipSAE at 10 Å and LIS at 12 Å have the plain name,
    others end in the cutoff.
    """
    published = IPSAE_CUTOFF if name in IPSAE_NAMES else LIS_CUTOFF
    return name if cutoff == published else f"{name}_{cutoff}"


def _ipsae_columns(cutoff: int, reason: str) -> tuple[Column, ...]:
    tokens = {
        "ipsae_d0res": f"the tokens with PAE below {cutoff} Å from each frame",
        "ipsae_d0chn": "both chain lengths",
        "ipsae_d0dom": f"the tokens that have any pair with PAE below {cutoff} Å",
    }
    return tuple(
        score(
            cutoff_column(name, cutoff),
            f"ipSAE of the pairs with PAE below {cutoff} Å, d0 from {text}; {FRAMES}; {reason}",
        )
        for name, text in tokens.items()
    )


def _lis_columns(cutoff: int, reason: str) -> tuple[Column, ...]:
    below = f"pairs with PAE below {cutoff} Å"
    in_contact = f"{below} that are in contact (num_contacts)"

    def name(plain: str) -> str:
        return cutoff_column(plain, cutoff)

    return (
        score(
            name("lis"),
            f"LIS, mean of ({cutoff} - PAE) / {cutoff} over the {below}, 0 without any; {FRAMES}; "
            f"AFM-LIS's is the mean of both rows; {reason}",
        ),
        count(name("lia"), f"LIA, number of {below}; {FRAMES}; {reason}", nullable=True),
        score(name("clis"), f"cLIS, LIS of the {in_contact}; {FRAMES}; {reason}"),
        count(name("clia"), f"cLIA, number of {in_contact}; {FRAMES}; {reason}", nullable=True),
        score(
            name("ilis"),
            f"iLIS, square root of LIS times cLIS of this row; {FRAMES}; {reason}",
        ),
    )


def _other_cutoffs() -> tuple[Column, ...]:
    columns: list[Column] = []
    for cutoff in get_args(PaeCutoff):
        reason = f"{NO_LIGAND}, or unless scores.pae_cutoffs has {cutoff}"
        if cutoff != IPSAE_CUTOFF:
            columns += _ipsae_columns(cutoff, reason)
        if cutoff != LIS_CUTOFF:
            columns += _lis_columns(cutoff, reason)
    return tuple(columns)


INTERFACE_COLUMNS = (
    *_ipsae_columns(IPSAE_CUTOFF, NO_LIGAND),
    score(
        "iptm",
        f"ipTM of the pair with d0 from both chain lengths (as AlphaFold 3); {FRAMES}; null if no "
        "token of chain_a has a valid frame",
    ),
    score(
        "iptm_boltz",
        f"ipTM of the pair with d0 from all tokens of the complex; {FRAMES}: Boltz's "
        "pair_chains_iptm[b][a]",
    ),
    score(
        "pae_mean",
        f"mean predicted aligned error; {FRAMES}; null if no token of chain_a has a valid frame",
        LOWER,
    ),
    score(
        "pae_min",
        f"smallest predicted aligned error; {FRAMES}; null if no token of chain_a has a valid "
        "frame",
        LOWER,
    ),
    count(
        "num_contacts",
        "token pairs with representative atoms within 8 Å (CB, CA of glycine, C4 or C2 of a base, "
        "an atom of a ligand); equal both ways",
    ),
    score(
        "interface_plddt",
        "mean pLDDT of the tokens of chain_a in contact with chain_b; null without contact",
    ),
    *_lis_columns(LIS_CUTOFF, NO_LIGAND),
    *_other_cutoffs(),
    score(
        "pdockq",
        "pDockQ from contacts and pLDDT (Bryant 2022), at most 0.742; 0 without contact, equal "
        f"both ways; {PROTEINS}",
    ),
    score(
        "pdockq2",
        "pDockQ2 in the form of ipsae.py: CB contacts, mean pLDDT of both sides, their PAE; "
        f"{FRAMES}; the program takes the larger row; 0 without contact; {PROTEINS}",
    ),
    score(
        "pdockq2_original",
        "pDockQ2 as published (Zhu 2023): CA contacts, pLDDT of chain_a, which counts for every "
        f"contact; {FRAMES}; with partners pooled: chains.pdockq2; 0 without contact; {PROTEINS}",
    ),
    score(
        "contact_pae",
        f"mean predicted aligned error of the contacts (num_contacts); {FRAMES}; null without "
        "contact",
        LOWER,
    ),
    score("pde_mean", "mean expected distance error of all token pairs", LOWER),
    score("pde_min", "smallest expected distance error of all token pairs", LOWER),
    score(
        "contact_prob_max",
        "largest probability of a contact, within about 8 Å, by the distogram; equal both ways",
    ),
    score(
        "contact_prob_top10",
        "mean of the ten largest probabilities of a contact by the distogram; equal both ways",
    ),
    Column(
        "expected_contacts",
        "float32",
        "sum of the probabilities of a contact by the distogram over all token pairs; equal both "
        "ways",
        "count",
        nullable=True,
    ),
    count(
        "contacts_pae4",
        "residue pairs with C-C within 5 Å, N-O within 5.5 Å or a disulfide, and PAE below 4 Å; "
        f"{FRAMES}; {NO_LIGAND} or in a heap of atoms",
        nullable=True,
    ),
    count(
        "contacts_pae15",
        "residue pairs with heavy atoms nearer than 5 Å, pLDDT of both at least 50 of 100, PAE at "
        "most 15 Å in the better direction, without residues that clash (SPOC); equal both ways; "
        f"{PROTEINS} or in a heap of atoms",
        nullable=True,
    ),
    score(
        "actifptm",
        "actifpTM, ipTM over the tokens with a probable contact (at least 0.6) with the other "
        f"chain; {FRAMES}; ColabFold takes the larger row; 0 without such; null if no token of "
        "chain_a has a valid frame",
    ),
    score(
        "pitm",
        "piTM of the two chains, over the residues with atoms nearer than 4.5 Å to the other "
        "chain; frames in chain_a; AF2Complex takes the larger row; 0 without such; "
        f"{NO_LIGAND} or in a heap of atoms",
    ),
    score(
        "af2complex_score",
        "interface-score of AF2Complex of the two chains: the sum of both directions, over the "
        f"same residues; equal both ways; 0 without such; {NO_LIGAND} or in a heap of atoms",
        "0..2, higher is better",
    ),
    score(
        "ligand_iptm",
        "ipTM of a protein and a ligand with d0 from the tokens of both: the larger iptm of both "
        "rows; null for other pairs, and without a valid frame in either",
    ),
    count(
        "num_interface_residues_a",
        f"residues of chain_a with an atom nearer than 5 Å to chain_b; null {HEAP}",
        nullable=True,
    ),
    count(
        "num_interface_residues_b",
        f"residues of chain_b with an atom nearer than 5 Å to chain_a; null {HEAP}",
        nullable=True,
    ),
    Column(
        "interface_residues_a",
        "string",
        "these residues of chain_a, numbered from 1, as A:3-9,14; empty for none, null with their "
        "number",
        nullable=True,
    ),
    Column(
        "interface_residues_b",
        "string",
        "these residues of chain_b, numbered from 1, as B:3-9,14; empty for none, null with their "
        "number",
        nullable=True,
    ),
    count(
        "num_clashes",
        "pairs of atoms of both chains nearer than 1.1 Å (Chai-1); equal both ways; null where "
        "atoms lie on top of one another everywhere",
        nullable=True,
    ),
    count(
        "num_clashing_atoms",
        "atoms of chain_a at most 1.1 Å from an atom of chain_b (AlphaFold 3); null if either "
        "chain is a ligand, or where atoms lie on top of one another everywhere",
        nullable=True,
    ),
    score(
        "buried_area",
        "surface that the two chains bury: SASA(a) + SASA(b) - SASA(ab), both sides, probe 1.4 Å; "
        "equal both ways; null where the chains run through each other or in a heap of atoms",
        "Å²",
    ),
    count(
        "num_backbone_hbonds",
        "hydrogen bonds from N-H of chain_a to C=O of chain_b, by the energy of DSSP; "
        f"{PROTEINS} or in a heap of atoms",
        nullable=True,
    ),
    count(
        "num_salt_bridges",
        "pairs of a Lys or Arg of chain_a and an Asp or Glu of chain_b with charged atoms within 4 "
        f"Å; {PROTEINS} or in a heap of atoms",
        nullable=True,
    ),
)

# Column -> field of InterfaceScores, of pairs [a, b]
INTERFACE_FIELDS = {
    "pdockq": "pdockq",
    "pdockq2": "pdockq2",
    "pdockq2_original": "pdockq2_original",
    "contact_pae": "contact_pae",
    "pde_mean": "pde_mean",
    "pde_min": "pde_min",
    "contact_prob_max": "contact_prob_max",
    "contact_prob_top10": "contact_prob_top10",
    "expected_contacts": "expected_contacts",
    "contacts_pae4": "contacts_pae4",
    "contacts_pae15": "contacts_pae15",
    "actifptm": "actifptm",
    "pitm": "pitm",
    "af2complex_score": "af2complex_score",
    "ligand_iptm": "ligand_iptm",
    "num_interface_residues_a": "num_interface_residues",
    "num_clashes": "clashes",
    "num_clashing_atoms": "clashing_atoms",
    "buried_area": "buried_area",
    "num_backbone_hbonds": "backbone_hbonds",
    "num_salt_bridges": "salt_bridges",
}
