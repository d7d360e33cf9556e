"""The score columns of `interfaces`, with units and when a score is null."""

from __future__ import annotations

from typing import get_args

from foldcp.pipeline.config import PaeCutoff
from foldcp.pipeline.storage.columns.column import Column, count, score

FRAMES = "frames in chain_a, scored tokens in chain_b"
NO_LIGAND = "null if either chain is a ligand"
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
)
