"""How good is a predicted structure? Scores of the whole, of each chain and of each pair of chains.

Everything is reduced on the rows where the logits are born: `add` turns a block of logits into sums
per row and chain, `finish` reduces those over the rows and the ranks. What crosses the wire is O(N
C), never N x N.

Direction: a directed score [a, b] has its frames (the aligned tokens, the rows of PAE) in chain a
and its scored tokens (the columns) in chain b. PAE[i, j] is the error of token j seen from the
frame of token i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.metrics.interfaces import (
    BIN_CENTERS,
    ChainSpans,
    contact_counts,
    domain_sizes,
    ipsae_d0,
    ipsae_floor,
    ipsae_rows,
    iptm_partners,
    max_by_chain,
    sum_by_chain,
    tm_of_bins,
    valid_frames,
)

CONTACT_BINS = 20  # of the 64 of the distogram: up to about 8 Å
# of pLDDT in complex_iplddt
LIGAND_WEIGHT = 20.0
INTERFACE_WEIGHT = 10.0


@dataclass(frozen=True)
class Scores:
    """The scores of one sample. C chains in input order, no padding anywhere; numpy arrays are
    float32 but `contacts`.

    TM(x, d) = 1 / (1 + (x / d)^2); d0(n) = 1.24 (max(n, 19) - 15)^(1/3) - 1.8 Å; E[TM] is the
    expectation over the 64 PAE bins; a frame is valid if `valid_frames` says so; T is the number of
    all tokens, n_a of those of chain a. pLDDT runs from 0 to 1. A token is a residue of a polymer
    or a heavy atom of a ligand.

    Whole complex, as Boltz (`compute_ptms`, `ConfidenceHeads`, `Boltz2.predict_step`):
        ptm: max over valid frames i of the mean over all j of E[TM(PAE_ij, d0(T))]; 0 without a
        valid frame.
        iptm: the same, j in other chains than i; 0 for one chain or without a valid frame.
        ligand_iptm: as iptm, pairs of a ligand and a protein token only, either as frame; 0 if
        there are none.
        protein_iptm: as iptm, pairs of protein tokens only; 0 if there are none.
        complex_plddt: mean pLDDT of all tokens.
        complex_iplddt: mean pLDDT with weight 20 for ligand tokens, 10 for others in contact with
        another chain
            (representative atoms nearer than 8 Å), 1 for the rest. Not restricted to interfaces,
            despite its name.
        complex_pde: mean expected PDE in Å over i != j, weighted by the contact probability; NaN
        for one token.
        complex_ipde: the same over tokens of different chains, in Å; 0 for one chain.
        confidence_score: (4 complex_plddt + iptm) / 5, with ptm where iptm is 0 (Boltz asks all
        samples for that,
            we ask each).
    Chains [C]:
        chain_ptm: max over valid frames i in a of the mean over j in a of E[TM(PAE_ij, d0(n_a))];
        NaN without a
            valid frame (AlphaFold 3, the diagonal of chain_pair_iptm).
        chain_plddt: mean pLDDT of the chain.
    Chain pairs [C, C], directed, the diagonal NaN unless said otherwise; ligand tokens count as any
    unless said:
        pair_iptm: max over valid frames i in a of the mean over j in b of E[TM(PAE_ij, d0(n_a +
        n_b))]; NaN
            without a valid frame in a. AlphaFold 3's symmetric chain_pair_iptm is np.fmax(x, x.T).
        pair_iptm_boltz: the same with d0(T), 0 without a valid frame; Boltz's
        pair_chains_iptm[b][a] (its first
            key is the scored chain). The diagonal is Boltz's chains_ptm.
        ipsae_d0res, ipsae_d0chn, ipsae_d0dom: max over all i in a of the mean of TM(PAE_ij, d0)
        over the j in b
            with expected PAE_ij < 10 Å; 0 if there are none, NaN if either chain is a ligand
            (ipsae.py v4, Dunbrack 2025; one token per polymer residue, frames not asked for). d0
            from the number of those j (d0res), from n_a + n_b (d0chn), or from the residues of a
            and b that have any such pair in this direction (d0dom); at least 1 Å, 2 Å if either
            chain is a nucleic acid. The tool's undirected score is np.fmax(x, x.T).
        pae_mean, pae_min: of expected PAE_ij in Å, over valid frames i in a and all j in b; NaN
        without a valid
            frame in a (AlphaFold 3, `chain_pair_pae`).
        contacts: int32, pairs of tokens whose representative atoms are nearer than 8 Å; symmetric,
        diagonal 0.
        interface_plddt: mean pLDDT of the tokens of a in contact with b; NaN without contact.
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
    pair_iptm: Float[np.ndarray, "C C"]
    pair_iptm_boltz: Float[np.ndarray, "C C"]
    ipsae_d0res: Float[np.ndarray, "C C"]
    ipsae_d0chn: Float[np.ndarray, "C C"]
    ipsae_d0dom: Float[np.ndarray, "C C"]
    pae_mean: Float[np.ndarray, "C C"]
    pae_min: Float[np.ndarray, "C C"]
    contacts: Int[np.ndarray, "C C"]
    interface_plddt: Float[np.ndarray, "C C"]


def contact_probability(
    distogram_logits: Float[Tensor, "R N 64"],
) -> Float[Tensor, "R N"]:
    """Probability of a distance up to about 8 Å: the first 20 of the 64 bins (Boltz,
    `ConfidenceHeads`).
    """
    return torch.softmax(distogram_logits, -1, dtype=torch.float32)[..., :CONTACT_BINS].sum(-1)


class SampleScorer:
    """Scores one diffusion sample; every rank of the group makes one, adds its own rows, and
    finishes with the others.

        scorer = SampleScorer(features, coords, rows) for start in this rank's chunks:
        scorer.add(start, pae_logits, pde_logits, contact_probability) scores = scorer.finish(plddt)

    It holds 4 bytes per pair of this rank's rows (the expected PAE; 8 with `keep_pairs`), O(I C)
    sums, and during `add` one float32 copy of the block of logits.

    Args:
        features: the complex; whole on every rank.
        coords: the sample's atoms in Å; whole on every rank.
        rows: this rank's place.
        keep_pairs: keep `pae` and `pde` after `finish`, for whoever writes them.
    """

    def __init__(
        self,
        features: Features,
        coords: Float[Tensor, "A 3"],
        cp: ContextParallel,
        *,
        keep_pairs: bool = False,
    ) -> None:
        device = coords.device
        N = features.token_mask.shape[0]
        self._cp = cp
        self._first = cp.first_row(N)
        self._keep_pairs = keep_pairs
        self._spans = spans = ChainSpans.of(features.layout)
        self._num_rows = N // cp.size
        # The rows behind this are padding: they are accepted by `add` and left out.
        self._num_real = max(0, min(self._num_rows, spans.num_tokens - self._first))
        self._num_added = 0

        self._column_chain = spans.token_chain(device)
        self._row_chain = self._column_chain[self._first : self._first + self._num_real]
        self._lengths = torch.tensor(spans.lengths, dtype=torch.float32, device=device)
        self._points = coords.float()[features.rep_atom[: spans.num_tokens]]
        self._valid = valid_frames(features, coords, spans)[
            self._first : self._first + self._num_real
        ]

        self._centers = torch.tensor(BIN_CENTERS, dtype=torch.float32, device=device)
        self._tm_bins = tm_of_bins(spans.num_tokens).to(device)
        self._tm_pair_bins = tm_of_bins(spans.pair_lengths).to(device)

        self._tm = coords.new_zeros((self._num_rows, spans.num_chains), dtype=torch.float32)
        self._tm_pair = torch.zeros_like(self._tm)
        self._pde_sums = coords.new_zeros((self._num_rows, 4), dtype=torch.float32)
        self._pae: Tensor | None = coords.new_zeros((self._num_rows, N), dtype=torch.float32)
        self._pde: Tensor | None = torch.zeros_like(self._pae) if keep_pairs else None

    @property
    def pae(self) -> Float[Tensor, "I N"]:
        """Expected PAE of this rank's rows in Å, 0 in padding; after `finish` only with
        `keep_pairs`.
        """
        assert self._pae is not None, "PAE rows are kept on request"
        return self._pae

    @property
    def pde(self) -> Float[Tensor, "I N"]:
        """Expected PDE of this rank's rows in Å, 0 in padding; only with `keep_pairs`."""
        assert self._pde is not None, "PDE rows are kept on request"
        return self._pde

    @torch.no_grad()
    def add(
        self,
        start: int,
        pae_logits: Float[Tensor, "R N 64"],
        pde_logits: Float[Tensor, "R N 64"],
        contact_probability: Float[Tensor, "R N"],
    ) -> None:
        """Take in the rows start .. start + R - 1 of the whole array, which are this rank's;
        each row once.
        """
        R = pae_logits.shape[0]
        T = self._spans.num_tokens
        at = start - self._first
        assert at >= 0 and at + R <= self._num_rows, (
            f"rows {start} .. {start + R - 1} belong to another rank"
        )
        self._num_added += R
        real = min(R, self._num_real - at)
        if real <= 0:
            return
        rows = slice(at, at + real)
        chain = self._row_chain[at : at + real]

        # E[TM] is linear in the probabilities: added up per chain first, they serve every d0.
        probability = torch.softmax(pae_logits[:real, :T], -1, dtype=torch.float32)
        per_chain = self._spans.sum(probability)
        self._tm[rows] = (per_chain * self._tm_bins).sum(-1)
        self._tm_pair[rows] = (per_chain * self._tm_pair_bins[chain]).sum(-1) / self._lengths
        self.pae[rows, :T] = probability.mul_(self._centers).sum(-1)
        del probability, per_chain

        pde = (
            torch.softmax(pde_logits[:real, :T], -1, dtype=torch.float32)
            .mul_(self._centers)
            .sum(-1)
        )
        if self._pde is not None:
            self._pde[rows, :T] = pde
        weight = contact_probability[:real, :T].to(torch.float32, copy=True)
        weight.diagonal(start).zero_()
        for column in (0, 2):  # all pairs, then those between chains
            self._pde_sums[rows, column] = (pde * weight).sum(1)
            self._pde_sums[rows, column + 1] = weight.sum(1)
            weight.mul_(self._column_chain != chain[:, None])

    @torch.no_grad()
    def finish(self, plddt: Float[Tensor, " N"]) -> Scores:
        """The scores, the same on every rank; all ranks call it together, after their last row.

        `plddt`: 0..1 per token, whole on every rank.
        """
        assert self._num_added == self._num_rows, (
            f"{self._num_added} of {self._num_rows} rows were added"
        )
        T = self._spans.num_tokens
        plddt = plddt[:T].float()
        pae = self.pae[: self._num_real, :T]
        if not self._keep_pairs:
            self._pae = None
        best = self._cp.all_gather(
            max_by_chain(self._maxima(pae), self._spans, self._first)[None]
        ).amax(0)
        whole = self._cp.all_gather(self._whole()[None]).amax(0)
        pair_sums, row_sums = self._sums(pae, plddt[self._first : self._first + self._num_real])
        pair_sums = self._cp.all_gather(
            sum_by_chain(pair_sums, self._spans, self._first)[None]
        ).sum(0)
        row_sums = self._cp.all_gather(row_sums.sum(0, keepdim=True, dtype=torch.float64)).sum(0)
        chain_plddt = self._spans.sum(plddt[None].double())[0]
        return _assemble(
            self._spans,
            *(x.cpu().numpy() for x in (best, whole, pair_sums, row_sums, chain_plddt)),
        )

    def _maxima(self, pae: Float[Tensor, "R T"]) -> Float[Tensor, "R C 6"]:
        """Per row and chain, what the largest over the rows is wanted of: `_assemble` names the
        six.
        """
        spans = self._spans
        invalid = ~self._valid[:, None]
        tm_pair = self._tm_pair[: self._num_real].masked_fill(invalid, -torch.inf)
        tm_boltz = (self._tm[: self._num_real] / (self._lengths + 1e-5)).masked_fill(invalid, 0)
        nearest = spans.amin(pae)
        domains = domain_sizes(pae, nearest, spans, self._first, self._cp)
        floor = ipsae_floor(spans)
        d0s = (ipsae_d0(spans.pair_lengths, floor), ipsae_d0(domains, floor), floor)
        tables = (torch.tensor(d0, dtype=torch.float32, device=pae.device) for d0 in d0s)
        ipsae = ipsae_rows(pae, spans, self._row_chain, *tables)
        rest = torch.stack([tm_pair, tm_boltz, -nearest.masked_fill(invalid, torch.inf)], -1)
        return torch.cat([rest, ipsae], -1)

    def _whole(self) -> Float[Tensor, " 4"]:
        """ptm, iptm, ligand_iptm and protein_iptm of this rank's rows; 0 without a row that
        counts.
        """
        chain = self._row_chain
        tm = self._tm[: self._num_real]
        partners = torch.from_numpy(iptm_partners(self._spans)).to(tm)
        counts = (partners * self._lengths).sum(-1) + 1e-5
        means = [(tm * p[chain]).sum(1) / n[chain] for p, n in zip(partners, counts, strict=True)]
        scores = torch.stack(means) * self._valid
        return torch.cat([scores.new_zeros((4, 1)), scores], 1).amax(1)

    def _sums(
        self, pae: Float[Tensor, "R T"], plddt: Float[Tensor, " R"]
    ) -> tuple[Float[Tensor, "R C 5"], Float[Tensor, "R 6"]]:
        """Per row and chain, and per row, what the sum over the rows is wanted of: `_assemble`
        names them.
        """
        spans = self._spans
        R = self._num_real
        contacts = contact_counts(self._points, spans, self._first, R)
        contacts.scatter_(1, self._row_chain[:, None], 0.0)
        touching = (contacts > 0).float()
        valid = self._valid[:, None].float().expand_as(contacts)
        pairs = (
            spans.sum(pae) * valid,
            valid,
            contacts,
            touching,
            touching * plddt[:, None],
        )
        ligand = torch.from_numpy(spans.mask("ligand")).to(pae.device)[self._row_chain]
        weight = torch.where(touching.any(1), INTERFACE_WEIGHT, 1.0).masked_fill(
            ligand, LIGAND_WEIGHT
        )
        rows = torch.cat([self._pde_sums[:R], torch.stack([weight * plddt, weight], 1)], 1)
        return torch.stack(pairs, -1), rows


def _assemble(
    spans: ChainSpans,
    best: Float[np.ndarray, "C C 6"],
    whole: Float[np.ndarray, " 4"],
    pair_sums: Float[np.ndarray, "C C 5"],
    row_sums: Float[np.ndarray, " 6"],
    chain_plddt: Float[np.ndarray, " C"],
) -> Scores:
    """Reduced sums and maxima -> scores, on the host."""
    nan = np.float32(np.nan)
    diagonal = np.eye(spans.num_chains, dtype=bool)
    polymer = ~spans.mask("ligand")
    best = np.where(np.isinf(best), nan, best)
    pair_iptm, pair_iptm_boltz, negative_pae, *ipsae = np.moveaxis(best, -1, 0)
    pae, num_frames, contacts, touching, touching_plddt = np.moveaxis(pair_sums, -1, 0)
    pde, pde_weight, ipde, ipde_weight, weighted_plddt, plddt_weight = (float(x) for x in row_sums)
    ptm, iptm, ligand_iptm, protein_iptm = (float(x) for x in whole)
    complex_plddt = float(chain_plddt.sum() / spans.num_tokens)

    def directed(
        x: Float[np.ndarray, "C C"], defined: Bool[np.ndarray, "C C"] = ~diagonal
    ) -> Float[np.ndarray, "C C"]:
        return np.where(defined & ~diagonal, x, nan).astype(np.float32)

    with np.errstate(divide="ignore", invalid="ignore"):
        pae_mean = pae / (num_frames * spans.lengths)
        interface_plddt = touching_plddt / touching
        complex_pde = float(np.divide(pde, pde_weight))
    ipsae_d0res, ipsae_d0chn, ipsae_d0dom = (
        directed(x, np.logical_and.outer(polymer, polymer)) for x in ipsae
    )
    return Scores(
        ptm=ptm,
        iptm=iptm,
        ligand_iptm=ligand_iptm,
        protein_iptm=protein_iptm,
        complex_plddt=complex_plddt,
        complex_iplddt=weighted_plddt / plddt_weight,
        complex_pde=complex_pde,
        complex_ipde=ipde / (ipde_weight + 1e-5),
        confidence_score=(4 * complex_plddt + (iptm if iptm > 1e-8 else ptm)) / 5,
        chain_ptm=np.diagonal(pair_iptm).astype(np.float32),
        chain_plddt=(chain_plddt / spans.lengths).astype(np.float32),
        pair_iptm=directed(pair_iptm),
        pair_iptm_boltz=pair_iptm_boltz.astype(np.float32),
        ipsae_d0res=ipsae_d0res,
        ipsae_d0chn=ipsae_d0chn,
        ipsae_d0dom=ipsae_d0dom,
        pae_mean=directed(pae_mean),
        pae_min=directed(-negative_pae),
        contacts=contacts.astype(np.int32),
        interface_plddt=directed(interface_plddt),
    )
