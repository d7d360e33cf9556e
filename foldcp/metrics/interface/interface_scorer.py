"""Scores of pairs of chains of one sample, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.geometry.geometry import Geometry
from foldcp.metrics.geometry.token_contacts import INTERFACE, residue_ranges
from foldcp.metrics.interface.confident_contacts import confident_contacts, spoc_contacts
from foldcp.metrics.interface.contact_probability import mean_of_largest
from foldcp.metrics.interface.contacts import Contacts
from foldcp.metrics.interface.docking import (
    mpdockq,
    pdockq,
    pdockq2,
    pdockq2_original,
)
from foldcp.metrics.interface.lis import LocalInteraction
from foldcp.metrics.interface.scores import CutoffScores, InterfaceScores
from foldcp.metrics.ipsae import Ipsae
from foldcp.metrics.sample_reduction import PairMaxima, Reduced

PairArray = Float[np.ndarray, "C C"]


@dataclass(frozen=True)
class InterfaceResult:
    """Scores of pairs, and those of chains and of the complex that are made of the same sums."""

    interface: InterfaceScores
    cutoffs: dict[int, CutoffScores]
    chain_pdockq2: Float[np.ndarray, " C"]
    mpdockq: float


class InterfaceScorer:
    """Scores pairs of chains from what was reduced over their rows, on the host.

    Args:
        spans: the chains.
        layout: the complex.
        geometry: that of the sample.
        cutoffs: cutoffs of PAE in Å, in the order in which they were reduced.
    """

    def __init__(
        self, spans: ChainSpans, layout: Layout, geometry: Geometry, cutoffs: Sequence[int]
    ) -> None:
        self._spans = spans
        self._layout = layout
        self._geometry = geometry
        self._cutoffs = cutoffs

    def compute(
        self,
        reduced: Reduced,
        contact_pae: Float[Tensor, " n"] | None,
        pair_iptm: PairArray,
    ) -> InterfaceResult:
        """The scores, from tensors in host memory.

        `contact_pae` is the PAE of the contacts of the geometry in Å, None where they are not
        known; `pair_iptm` is NaN without a valid frame.
        """
        protein = self._spans.mask("protein")
        contacts = reduced.sums.contacts
        alphas = contacts.of_alphas
        by_chain = [x.numpy().sum(1) for x in (alphas.contacts, alphas.plddt, alphas.tm)]
        chain_pdockq2 = np.where(protein, pdockq2_original(*by_chain), np.nan)
        if protein.sum() < 2:
            chain_pdockq2[:] = np.nan
        number_of_residues, residues = self._residues()
        interface = InterfaceScores(
            **self._docking(contacts),
            **self._distance_errors(reduced),
            **self._probabilities(reduced),
            **self._expected_tm(reduced.maxima, pair_iptm),
            **self._confident(reduced, contact_pae),
            **self._structure(),
            num_interface_residues=number_of_residues,
            interface_residues=residues,
        )
        tokens = contacts.of_tokens
        return InterfaceResult(
            interface,
            self._cutoff_scores(reduced),
            chain_pdockq2.astype(np.float32),
            mpdockq(tokens.contacts.numpy(), tokens.plddt.numpy(), protein),
        )

    def _docking(self, contacts: Contacts) -> dict[str, PairArray]:
        """Scores of docking quality, and the PAE of contacts."""
        proteins = self._of_kinds("protein")
        number = contacts.of_tokens.contacts.numpy()
        tm = contacts.of_tokens.tm.numpy()
        touching = contacts.touching.numpy()
        plddt = contacts.touching_plddt.numpy()
        both_plddt = (plddt + plddt.T) / np.maximum(touching + touching.T, 1)
        alphas = contacts.of_alphas
        original = pdockq2_original(
            alphas.contacts.numpy(), alphas.plddt.numpy(), alphas.tm.numpy()
        )
        pae = contacts.pae.numpy() / np.maximum(number, 1)
        return {
            "pdockq": _scores(pdockq(number, both_plddt), proteins),
            "pdockq2": _scores(pdockq2(number, tm, both_plddt), proteins),
            "pdockq2_original": _scores(original, proteins),
            "contact_pae": _scores(pae, number > 0),
        }

    def _probabilities(self, reduced: Reduced) -> dict[str, PairArray]:
        """Contact probabilities of the distogram."""
        largest = reduced.largest_probability.numpy()
        return {
            "contact_prob_max": _scores(largest[:, :, 0]),
            "contact_prob_top10": _scores(mean_of_largest(largest, self._num_pairs())),
            "expected_contacts": _scores(reduced.sums.probability.numpy()),
        }

    def _expected_tm(self, maxima: PairMaxima, pair_iptm: PairArray) -> dict[str, PairArray]:
        """Scores that are expected TM-scores of parts of the chains."""
        other = maxima.interface_tm.other.numpy()
        polymers = self._known() & self._of_kinds("protein", "dna", "rna")
        ligand = self._spans.mask("ligand")
        protein = self._spans.mask("protein")
        mixed = np.logical_and.outer(ligand, protein)
        return {
            "actifptm": _scores(maxima.actifptm.numpy(), ~np.isnan(pair_iptm)),
            "pitm": _scores(maxima.interface_tm.both.numpy(), polymers),
            "af2complex_score": _scores(other + other.T, polymers),
            "ligand_iptm": _scores(np.fmax(pair_iptm, pair_iptm.T), mixed | mixed.T),
        }

    def _confident(
        self, reduced: Reduced, contact_pae: Float[Tensor, " n"] | None
    ) -> dict[str, PairArray]:
        """Contacts with a low PAE."""
        contacts = self._geometry.contacts
        if contacts is None or contact_pae is None:
            unknown = self._unknown()
            return {"contacts_pae4": unknown, "contacts_pae15": unknown}
        pae = contact_pae.numpy().astype(np.float64)
        plddt = reduced.plddt.numpy().astype(np.float64)
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
        C = self._spans.num_chains
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

    def _distance_errors(self, reduced: Reduced) -> dict[str, PairArray]:
        """PDE of all pairs of tokens."""
        return {
            "pde_mean": _scores(reduced.sums.pde.numpy() / self._num_pairs()),
            "pde_min": _scores(-reduced.maxima.minus_pde.numpy()),
        }

    def _cutoff_scores(self, reduced: Reduced) -> dict[int, CutoffScores]:
        """The scores of each cutoff of PAE."""
        polymers = self._of_kinds("protein", "dna", "rna")
        contacts = reduced.sums.contacts
        return {
            cutoff: _cutoff_scores(polymers, ipsae, local, clis.numpy(), clia.numpy())
            for cutoff, ipsae, local, clis, clia in zip(
                self._cutoffs,
                reduced.maxima.ipsae,
                reduced.sums.local,
                contacts.clis,
                contacts.clia,
                strict=True,
            )
        }

    def _num_pairs(self) -> Int[np.ndarray, "C C"]:
        """Pairs of tokens of each pair of chains."""
        return np.multiply.outer(self._spans.lengths, self._spans.lengths)

    def _of_kinds(self, *kinds: str) -> Bool[np.ndarray, "C C"]:
        """Pairs whose chains are both of these kinds."""
        mask = self._spans.mask(*kinds)
        return np.logical_and.outer(mask, mask)

    def _known(self) -> bool:
        """Whether the pairs of atoms are known."""
        return self._geometry.contacts is not None

    def _unknown(self) -> PairArray:
        C = self._spans.num_chains
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
