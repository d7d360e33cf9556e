"""Scores of pairs of chains of one sample, reduced on the rows where the logits are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.contacts import Contacts
from foldcp.metrics.geometry.geometry import Geometry
from foldcp.metrics.geometry.token_contacts import AF2COMPLEX, INTERFACE, residue_ranges
from foldcp.metrics.interface.actifptm import actifptm
from foldcp.metrics.interface.af2complex import InterfaceTmSums
from foldcp.metrics.interface.confident_contacts import (
    confident_contacts,
    contact_pae,
    spoc_contacts,
)
from foldcp.metrics.interface.contact_probability import ContactProbability, mean_of_largest
from foldcp.metrics.interface.contact_sums import ContactSums, contact_sums
from foldcp.metrics.interface.docking import (
    mpdockq,
    pdockq,
    pdockq2,
    pdockq2_original,
)
from foldcp.metrics.interface.lis import (
    LocalInteraction,
    local_interaction,
)
from foldcp.metrics.interface.pair_pde import PairPde
from foldcp.metrics.interface.scores import CutoffScores, InterfaceScores
from foldcp.metrics.ipsae import Ipsae, ipsae

PairArray = Float[np.ndarray, "C C"]


@dataclass(frozen=True)
class PairValues:
    """What is known of this rank's rows when all have been seen."""

    pae: Float[Tensor, "R T"]  # expected, Å
    least_pae: Float[Tensor, "R C"]  # Å, of each row and chain
    least_column_pae: Float[Tensor, "C T"]  # Å, of each chain and column
    tm: Float[Tensor, "I N"]  # E[TM] with d0 of all tokens; padded
    points: Float[Tensor, "T 3"]  # Å, atoms between which contacts are measured
    alpha_points: Float[Tensor, "T 3"]  # Å, CA; not finite where there is none
    plddt: Float[Tensor, " T"]  # 0..1
    valid: Bool[Tensor, " R"]


@dataclass(frozen=True)
class InterfaceResult:
    """Scores of pairs, and those of chains and of the complex that are made of the same sums."""

    interface: InterfaceScores
    cutoffs: dict[int, CutoffScores]
    chain_pdockq2: Float[np.ndarray, " C"]
    mpdockq: float


class InterfaceScorer:
    """Scores pairs of chains; `SampleScorer` updates it with its rows and computes the scores."""

    def __init__(
        self,
        rows: ChainRows,
        layout: Layout,
        geometry: Geometry,
        cutoffs: Sequence[int],
        device: torch.device,
    ) -> None:
        self._rows = rows
        self._layout = layout
        self._geometry = geometry
        self._cutoffs = cutoffs
        self._pde = PairPde(rows, device)
        self._probability = ContactProbability(rows, device)
        touching = np.zeros((rows.spans.num_tokens, rows.spans.num_chains), dtype=bool)
        if geometry.contacts is not None:
            touching = geometry.contacts.touching(layout, AF2COMPLEX)
        self._interface_tm = InterfaceTmSums(touching, rows, device)

    def update_pae(self, chunk: slice, probability: Float[Tensor, "r T 64"]) -> None:
        """Add the PAE distribution of a chunk of this rank's rows."""
        self._interface_tm.update(chunk, probability)

    def update_pde(
        self, chunk: slice, pde: Float[Tensor, "r T"], contact_probability: Float[Tensor, "r T"]
    ) -> None:
        """Add the expected PDE in Å and the contact probability of a chunk of this rank's rows."""
        self._pde.update(chunk, pde)
        self._probability.update(chunk, contact_probability.float())

    def compute(
        self,
        values: PairValues,
        contacts: Contacts,
        pair_iptm: PairArray,
        cp: ContextParallel,
    ) -> InterfaceResult:
        """The scores, equal on every rank. Collective, after the last row of every rank.

        `contacts` are the sums over all rows; `pair_iptm` is NaN without a valid frame.
        """
        spans = self._rows.spans
        protein = spans.mask("protein")
        pae, plddt = values.pae, values.plddt
        sums = contact_sums(values.points, pae, plddt, self._rows, self._cutoffs, cp)
        alpha = contact_sums(values.alpha_points, pae, plddt, self._rows, (), cp)
        by_chain = [x.sum(1) for x in (alpha.contacts, alpha.plddt, alpha.tm)]
        chain_pdockq2 = np.where(protein, pdockq2_original(*by_chain), np.nan)
        if protein.sum() < 2:
            chain_pdockq2[:] = np.nan
        number_of_residues, residues = self._residues()
        interface = InterfaceScores(
            **self._docking(sums, alpha, contacts),
            **self._distance_errors(cp),
            **self._probabilities(cp),
            **self._expected_tm(values, pair_iptm, cp),
            **self._confident(values, cp),
            **self._structure(),
            num_interface_residues=number_of_residues,
            interface_residues=residues,
        )
        return InterfaceResult(
            interface,
            self._cutoff_scores(values, sums, cp),
            chain_pdockq2.astype(np.float32),
            mpdockq(sums, protein),
        )

    def _docking(
        self, sums: ContactSums, alpha: ContactSums, contacts: Contacts
    ) -> dict[str, PairArray]:
        """Scores of docking quality, and the PAE of contacts."""
        proteins = self._of_kinds("protein")
        number = sums.contacts
        touching = contacts.touching.numpy()
        plddt = contacts.touching_plddt.numpy()
        both_plddt = (plddt + plddt.T) / np.maximum(touching + touching.T, 1)
        original = pdockq2_original(alpha.contacts, alpha.plddt, alpha.tm)
        pae = sums.pae / np.maximum(number, 1)
        return {
            "pdockq": _scores(pdockq(number, both_plddt), proteins),
            "pdockq2": _scores(pdockq2(sums, both_plddt), proteins),
            "pdockq2_original": _scores(original, proteins),
            "contact_pae": _scores(pae, number > 0),
        }

    def _probabilities(self, cp: ContextParallel) -> dict[str, PairArray]:
        """Contact probabilities of the distogram."""
        expected = self._probability.expected.sum_by_chain(self._rows, cp)
        largest = self._probability.largest_by_chain(cp)
        lengths = self._rows.spans.lengths
        top10 = mean_of_largest(largest, np.multiply.outer(lengths, lengths))
        return {
            "contact_prob_max": _scores(largest[:, :, 0]),
            "contact_prob_top10": _scores(top10),
            "expected_contacts": _scores(expected.contacts.numpy()),
        }

    def _expected_tm(
        self, values: PairValues, pair_iptm: PairArray, cp: ContextParallel
    ) -> dict[str, PairArray]:
        """Scores that are expected TM-scores of parts of the chains."""
        rows = self._rows
        likely = self._probability.likely()
        active = actifptm(values.tm, likely, values.valid, rows, cp).max_by_chain(rows, cp)
        of_frames = self._interface_tm.of_frames(values.valid)
        interface = of_frames.max_by_chain(rows, cp)
        other = interface.other.numpy()
        polymers = self._known() & self._of_kinds("protein", "dna", "rna")
        ligand = rows.spans.mask("ligand")
        protein = rows.spans.mask("protein")
        mixed = np.logical_and.outer(ligand, protein)
        return {
            "actifptm": _scores(active.actifptm.numpy(), ~np.isnan(pair_iptm)),
            "pitm": _scores(interface.both.numpy(), polymers),
            "af2complex_score": _scores(other + other.T, polymers),
            "ligand_iptm": _scores(np.fmax(pair_iptm, pair_iptm.T), mixed | mixed.T),
        }

    def _confident(self, values: PairValues, cp: ContextParallel) -> dict[str, PairArray]:
        """Contacts with a low PAE."""
        contacts = self._geometry.contacts
        if contacts is None:
            unknown = self._unknown()
            return {"contacts_pae4": unknown, "contacts_pae15": unknown}
        pae = contact_pae(values.pae, contacts, self._rows, cp)
        plddt = values.plddt.double().cpu().numpy()
        close = confident_contacts(contacts, pae, self._layout)
        spoc = spoc_contacts(contacts, pae, plddt, self._layout)
        return {
            "contacts_pae4": _counts(close, self._of_kinds("protein", "dna", "rna")),
            "contacts_pae15": _counts(spoc, self._of_kinds("protein")),
        }

    def _structure(self) -> dict[str, PairArray]:
        """Scores of the coordinates alone."""
        geometry = self._geometry
        unknown = self._unknown()
        polymers = self._of_kinds("protein", "dna", "rna")
        proteins = self._of_kinds("protein")
        clashes = geometry.clashes
        buried = unknown if geometry.buried is None else geometry.buried
        bonds = unknown if geometry.backbone_bonds is None else geometry.backbone_bonds
        bridges = unknown if geometry.salt_bridges is None else geometry.salt_bridges
        return {
            "clashes": _counts(unknown if clashes is None else clashes.pairs),
            "clashing_atoms": _counts(unknown if clashes is None else clashes.atoms, polymers),
            "buried_area": _scores(buried + buried.T),
            "backbone_hbonds": _counts(bonds, proteins),
            "salt_bridges": _counts(bridges, proteins),
        }

    def _residues(self) -> tuple[PairArray, tuple[tuple[str, ...], ...]]:
        """The residues of each chain at the interface with each other one: number and text."""
        C = self._rows.spans.num_chains
        if self._geometry.contacts is None:
            return self._unknown(), (("",) * C,) * C
        layout = self._layout
        touching = self._geometry.contacts.touching(layout, INTERFACE)
        number = np.zeros((C, C))
        for a in range(C):
            own = layout.token_chain == a
            for b in np.flatnonzero(touching[own].any(0)).tolist():
                number[a, b] = len(np.unique(layout.token_residue[own & touching[:, b]]))
        text = tuple(
            tuple(
                residue_ranges(layout, touching[:, b], a) if number[a, b] else "" for b in range(C)
            )
            for a in range(C)
        )
        return _counts(number), text

    def _distance_errors(self, cp: ContextParallel) -> dict[str, PairArray]:
        """PDE of all pairs of tokens."""
        lengths = self._rows.spans.lengths
        sums = self._pde.sums.sum_by_chain(self._rows, cp)
        minima = self._pde.minima.min_by_chain(self._rows, cp)
        return {
            "pde_mean": _scores(sums.pde.numpy() / np.multiply.outer(lengths, lengths)),
            "pde_min": _scores(minima.pde.numpy()),
        }

    def _cutoff_scores(
        self, values: PairValues, sums: ContactSums, cp: ContextParallel
    ) -> dict[int, CutoffScores]:
        """The scores of each cutoff of PAE."""
        rows = self._rows
        pae = values.pae
        polymers = self._of_kinds("protein", "dna", "rna")
        of_rows = ipsae(pae, values.least_pae, values.least_column_pae, rows, self._cutoffs, cp)
        return {
            cutoff: _cutoff_scores(
                polymers,
                of_cutoff.max_by_chain(rows, cp),
                local_interaction(pae, rows, cutoff).sum_by_chain(rows, cp),
                clis,
                clia,
            )
            for cutoff, of_cutoff, clis, clia in zip(
                self._cutoffs, of_rows, sums.clis, sums.clia, strict=True
            )
        }

    def _of_kinds(self, *kinds: str) -> Bool[np.ndarray, "C C"]:
        """Pairs whose chains are both of these kinds."""
        mask = self._rows.spans.mask(*kinds)
        return np.logical_and.outer(mask, mask)

    def _known(self) -> bool:
        """Whether the pairs of atoms are known."""
        return self._geometry.contacts is not None

    def _unknown(self) -> PairArray:
        C = self._rows.spans.num_chains
        return np.full((C, C), np.nan)


def _cutoff_scores(
    defined: Bool[np.ndarray, "C C"],
    ipsae: Ipsae,
    all_pairs: LocalInteraction,
    clis_sum: PairArray,
    clia: PairArray,
) -> CutoffScores:
    """The scores of one cutoff, from maxima and sums over all rows."""
    lia = all_pairs.lia.numpy()
    lis = all_pairs.lis.numpy() / np.maximum(lia, 1)
    clis = clis_sum / np.maximum(clia, 1)
    return CutoffScores(
        ipsae_d0res=_scores(ipsae.d0res.numpy(), defined),
        ipsae_d0chn=_scores(ipsae.d0chn.numpy(), defined),
        ipsae_d0dom=_scores(ipsae.d0dom.numpy(), defined),
        lis=_scores(lis, defined),
        lia=_counts(lia, defined),
        clis=_scores(clis, defined),
        clia=_counts(clia, defined),
        ilis=_scores(np.sqrt(lis * clis), defined),
    )


def _counts(x: PairArray, defined: Bool[np.ndarray, "C C"] | bool = True) -> PairArray:
    """Numbers of things of different chains; NaN where there is no such number."""
    different = ~np.eye(len(x), dtype=bool)
    return np.where(different & defined, x, np.nan)


def _scores(x: PairArray, defined: Bool[np.ndarray, "C C"] | bool = True) -> PairArray:
    """Scores of different chains; NaN where there is none."""
    return _counts(x, defined).astype(np.float32)
