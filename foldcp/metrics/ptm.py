"""pTM and ipTM: the expected TM-score of the best frame, of the complex and of pairs of chains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.pae import BIN_CENTERS
from foldcp.metrics.reductions import RowValues

EPS = 1e-5  # added to numbers of tokens where Boltz does


@dataclass(frozen=True)
class ComplexTm(RowValues):
    """The mean E[TM] over the tokens that count for each frame, with d0 of all tokens; 0 for an
    invalid frame. The fields are those of `Scores`.
    """

    ptm: Float[Tensor, "*R"]
    iptm: Float[Tensor, "*R"]
    ligand_iptm: Float[Tensor, "*R"]
    protein_iptm: Float[Tensor, "*R"]


@dataclass(frozen=True)
class ChainPairTm(RowValues):
    """The mean E[TM] over the tokens of each chain for each frame: with d0 of the two chains, and
    -inf for an invalid frame; with Boltz's d0 of all tokens, and 0 for an invalid frame.
    """

    pair_iptm: Float[Tensor, "R C"]
    pair_iptm_boltz: Float[Tensor, "R C"]


@dataclass(frozen=True, eq=False)
class TmTables:
    """What the expected TM of a complex needs beside the logits."""

    lengths: Float[Tensor, " C"]  # tokens of each chain
    bins: Float[Tensor, " 64"]  # TM of each bin with d0 of all tokens
    pair_bins: Float[Tensor, "C C 64"]  # with d0 of two chains
    partners: Float[Tensor, "4 C C"]  # `iptm_partners`
    num_partners: Float[Tensor, "4 C"]  # tokens

    @classmethod
    def of(cls, spans: ChainSpans) -> TmTables:
        """The tables of a complex, in host memory."""
        lengths = torch.tensor(spans.lengths, dtype=torch.float32)
        partners = torch.from_numpy(iptm_partners(spans)).float()
        return cls(
            lengths=lengths,
            bins=tm_of_bins(spans.num_tokens),
            pair_bins=tm_of_bins(spans.pair_lengths),
            partners=partners,
            num_partners=(partners * lengths).sum(-1) + EPS,
        )


@dataclass(frozen=True, eq=False)
class ExpectedTm:
    """E[TM] of this rank's rows over the tokens of each chain."""

    total: Float[Tensor, "R C"]  # with d0 of all tokens
    pair_mean: Float[Tensor, "R C"]  # with d0 of the two chains

    @classmethod
    def zeros(cls, rows: ChainRows, device: torch.device) -> ExpectedTm:
        """Memory for these rows, which `update` fills."""
        shape = (2, rows.num_rows, rows.spans.num_chains)
        return cls(*torch.zeros(shape, dtype=torch.float32, device=device))

    def update(
        self, chunk: slice, probability: Float[Tensor, "r T 64"], rows: ChainRows, tables: TmTables
    ) -> None:
        """Add the PAE distribution of a chunk of this rank's rows.

        E[TM] is linear in the probabilities: added up by chain first, they serve every d0.
        """
        per_chain = rows.spans.sum_columns(probability)
        pair_bins = tables.pair_bins[rows.row_chain[chunk]]
        self.total[chunk] = (per_chain * tables.bins).sum(-1)
        self.pair_mean[chunk] = (per_chain * pair_bins).sum(-1) / tables.lengths

    def of_complex(self, valid: Bool[Tensor, " R"], rows: ChainRows, tables: TmTables) -> ComplexTm:
        """The values of each frame whose maxima are ptm, iptm, ligand_iptm and protein_iptm."""
        chain = rows.row_chain
        totals = (self.total * tables.partners[:, chain]).sum(-1)
        return ComplexTm(*(totals / tables.num_partners[:, chain] * valid))

    def of_chain_pairs(self, valid: Bool[Tensor, " R"], tables: TmTables) -> ChainPairTm:
        """The values of each frame whose maxima are pair_iptm, chain_ptm and pair_iptm_boltz."""
        invalid = ~valid[:, None]
        boltz = self.total / (tables.lengths + EPS)
        return ChainPairTm(
            pair_iptm=self.pair_mean.masked_fill(invalid, -torch.inf),
            pair_iptm_boltz=boltz.masked_fill(invalid, 0),
        )


def tm_d0(
    num_tokens: Int[np.ndarray, "*S"] | int,
) -> Float[np.ndarray, "*S"] | np.float64:
    """The TM-score's distance scale 1.24 (n - 15)^(1/3) - 1.8 in Å, n at least 19 (Yang &
    Skolnick 2004).
    """
    n = np.maximum(num_tokens, 19.0)
    return 1.24 * np.cbrt(n - 15.0) - 1.8


def tm_of_bins(num_tokens: Int[np.ndarray, "*S"] | int) -> Float[Tensor, "*S 64"]:
    """1 / (1 + (x / d0)^2) at the centre x of every PAE bin, with the d0 of so many tokens."""
    d0 = np.asarray(tm_d0(num_tokens))[..., None]
    tm = 1 / (1 + (BIN_CENTERS / d0) ** 2)
    return torch.tensor(tm, dtype=torch.float32)


def iptm_partners(spans: ChainSpans) -> Bool[np.ndarray, "4 C C"]:
    """[score, a, b]: whether tokens of chain b count for a frame in chain a; of ptm, iptm,
    ligand_iptm, protein_iptm (Boltz, `compute_ptms`).
    """
    ligand = spans.mask("ligand")
    protein = spans.mask("protein")
    other = ~np.eye(spans.num_chains, dtype=bool)
    ligand_to_protein = np.logical_and.outer(ligand, protein)
    proteins = np.logical_and.outer(protein, protein)
    return np.stack(
        [
            np.ones_like(other),
            other,
            other & (ligand_to_protein | ligand_to_protein.T),
            other & proteins,
        ]
    )
