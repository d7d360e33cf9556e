"""Scores of one sample, reduced on the rows where the logits are computed.

`SampleScorer.update` turns a chunk of logits into values per row and chain, `compute` reduces those
over the rows and the ranks. What crosses the wire is O(N C), never N x N.

A new score is a function in the file of its family, a field there whose name says what is reduced,
a field of `Scores`, and a column of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.contacts import Contacts, chain_contacts
from foldcp.metrics.frames import valid_frames
from foldcp.metrics.geometry.atoms import backbone_atoms
from foldcp.metrics.geometry.contact_atoms import modified_contact_atoms
from foldcp.metrics.geometry.geometry import Geometry
from foldcp.metrics.geometry.structure_scores import structure_scores
from foldcp.metrics.interface.interface_scorer import (
    InterfaceResult,
    InterfaceScorer,
    PairValues,
)
from foldcp.metrics.interface.scores import (
    DEFAULT_CUTOFFS,
    IPSAE_CUTOFF,
    LIS_CUTOFF,
)
from foldcp.metrics.pae import BIN_CENTERS, PaeMinima, PaeSums, pae_minima, pae_sums
from foldcp.metrics.pde import WeightedPde
from foldcp.metrics.plddt import WeightedPlddt, plddt_sums, weighted_plddt
from foldcp.metrics.ptm import EPS, ChainPairTm, ComplexTm, ExpectedTm
from foldcp.metrics.scores import Scores


class SampleScorer:
    """Scores one diffusion sample. Every rank of the group makes one, updates it with its own rows,
    and computes the scores together with the others:

        scorer = SampleScorer(features, coords, cp)
        for start in first rows of this rank's chunks:
            scorer.update(start, pae_logits, pde_logits, contact_probability)
        scores = scorer.compute(plddt)

    From the first `update` on it holds 8 bytes per pair of this rank's rows (expected PAE and TM;
    12 with `keep_pde`), O(I C) sums, and during `update` one float32 copy of the chunk of logits.

    Args:
        features: the complex; whole on every rank.
        coords: the sample's atoms in Å; whole on every rank.
        cp: this rank's place among the ranks.
        geometry: that of `coords`, from `foldcp.metrics.geometry.geometry`.
        pae_cutoffs: cutoffs of PAE in Å for ipSAE and LIS, beside those of the publications.
        keep_pae: keep `pae` after `compute`.
        keep_pde: keep `pde`.
    """

    def __init__(
        self,
        features: Features,
        coords: Float[Tensor, "A 3"],
        cp: ContextParallel,
        geometry: Geometry,
        *,
        pae_cutoffs: Sequence[int] = DEFAULT_CUTOFFS,
        keep_pae: bool = False,
        keep_pde: bool = False,
    ) -> None:
        device = coords.device
        N = features.token_mask.shape[0]
        spans = ChainSpans.of(features.layout)
        T = spans.num_tokens
        first = cp.first_row(N)
        self._cp = cp
        self._geometry = geometry
        self._keep_pae = keep_pae
        self._num_padded_rows = N // cp.size
        self._num_updated = 0
        # The rows behind these are padding: `update` accepts and ignores them.
        num_rows = max(0, min(self._num_padded_rows, T - first))
        self._rows = ChainRows(spans, first, num_rows, device)
        contact_atoms = features.rep_atom[:T].clone()
        modified = modified_contact_atoms(features.layout)
        tokens = torch.tensor(list(modified), dtype=torch.int64, device=device)
        own_atoms = torch.tensor(list(modified.values()), dtype=torch.int64, device=device)
        contact_atoms[tokens] = own_atoms
        self._points = coords.float()[contact_atoms]
        alpha = torch.from_numpy(backbone_atoms(features.layout)["CA"]).to(device)
        self._alpha_points = coords.float()[alpha].masked_fill(alpha[:, None] < 0, torch.nan)
        # Boltz weighs the tokens at interfaces by the contacts of the representative atoms.
        self._boltz_points = coords.float()[features.rep_atom[:T]] if modified else None
        self._valid = self._rows.own(valid_frames(features, coords, spans))
        self._centers = torch.tensor(BIN_CENTERS, dtype=torch.float32, device=device)
        self._tm = ExpectedTm(self._rows, device)
        self._weighted_pde = WeightedPde.zeros(num_rows, device)
        cutoffs = sorted({IPSAE_CUTOFF, LIS_CUTOFF, *pae_cutoffs})
        self._interfaces = InterfaceScorer(self._rows, features.layout, geometry, cutoffs, device)
        self._keep_pde = keep_pde
        self._pae: Tensor | None = None
        self._pair_tm: Tensor | None = None
        self._pde: Tensor | None = None

    @property
    def rows(self) -> ChainRows:
        """This rank's rows without padding."""
        return self._rows

    @property
    def pae(self) -> Float[Tensor, "I N"]:
        """Expected PAE of this rank's rows in Å, 0 in padding; after `compute` only with
        `keep_pae`.
        """
        assert self._pae is not None, "PAE is kept with keep_pae only"
        return self._pae

    @property
    def pde(self) -> Float[Tensor, "I N"]:
        """Expected PDE of this rank's rows in Å, 0 in padding; only with `keep_pde`."""
        assert self._pde is not None, "PDE is kept with keep_pde only"
        return self._pde

    @torch.no_grad()
    def update(
        self,
        start: int,
        pae_logits: Float[Tensor, "R N 64"],
        pde_logits: Float[Tensor, "R N 64"],
        contact_probability: Float[Tensor, "R N"],
    ) -> None:
        """Add the rows start .. start + R - 1 of the whole array, which are this rank's;
        each row once. Not collective, and does not wait for the device.
        """
        R, N, _ = pae_logits.shape
        if self._num_updated == 0:
            self._allocate(N, pae_logits.device)
        T = self._rows.spans.num_tokens
        offset = start - self._rows.first
        assert offset >= 0 and offset + R <= self._num_padded_rows, (
            f"rows {start} .. {start + R - 1} belong to another rank"
        )
        self._num_updated += R
        num_rows = min(R, self._rows.num_rows - offset)
        if num_rows <= 0:
            return
        chunk = slice(offset, offset + num_rows)
        contact = contact_probability[:num_rows, :T]
        self._update_pae(chunk, pae_logits[:num_rows, :T])
        self._update_pde(chunk, pde_logits[:num_rows, :T], contact)

    def _allocate(self, N: int, device: torch.device) -> None:
        """The arrays of pairs, which a scorer that still waits for its sample does not have."""
        shape = (self._num_padded_rows, N)
        self._pae = torch.zeros(shape, dtype=torch.float32, device=device)
        self._pair_tm = torch.zeros_like(self._pae)
        self._pde = torch.zeros_like(self._pae) if self._keep_pde else None

    def _update_pae(self, chunk: slice, logits: Float[Tensor, "R T 64"]) -> None:
        probability = torch.softmax(logits, -1, dtype=torch.float32)
        self._tm.update(chunk, probability)
        self._interfaces.update_pae(chunk, probability)
        assert self._pair_tm is not None
        self._pair_tm[chunk, : logits.shape[1]] = probability @ self._tm.bins
        pae = probability.mul_(self._centers).sum(-1)
        self.pae[chunk, : pae.shape[1]] = pae

    def _update_pde(
        self,
        chunk: slice,
        logits: Float[Tensor, "R T 64"],
        contact_probability: Float[Tensor, "R T"],
    ) -> None:
        probability = torch.softmax(logits, -1, dtype=torch.float32)
        pde = probability.mul_(self._centers).sum(-1)
        if self._pde is not None:
            self._pde[chunk, : pde.shape[1]] = pde
        self._weighted_pde.update(chunk, pde, contact_probability, self._rows)
        self._interfaces.update_pde(chunk, pde, contact_probability)

    @torch.no_grad()
    def compute(self, plddt: Float[Tensor, " N"]) -> Scores:
        """The scores, equal on every rank. Collective, after the last row of every rank; waits for
        the device.

        `plddt`: 0..1 per token, whole on every rank.
        """
        assert self._num_updated == self._num_padded_rows, (
            f"{self._num_updated} of {self._num_padded_rows} rows were given"
        )
        cp = self._cp
        rows = self._rows
        valid = self._valid
        plddt = plddt[: rows.spans.num_tokens].float()
        pae = self.pae[: rows.num_rows, : rows.spans.num_tokens]
        assert self._pair_tm is not None
        values = PairValues(
            pae=pae,
            least_pae=rows.spans.min_columns(pae),
            least_column_pae=rows.min_rows(pae),
            tm=self._pair_tm,
            points=self._points,
            alpha_points=self._alpha_points,
            plddt=plddt,
            valid=valid,
        )
        self._pair_tm = None
        if not self._keep_pae:
            self._pae = None
        own_contacts = chain_contacts(self._points, plddt, rows)
        contacts = own_contacts.sum_by_chain(rows, cp)
        at_interface = own_contacts.touching.any(1)
        if self._boltz_points is not None:
            at_interface = chain_contacts(self._boltz_points, plddt, rows).touching.any(1)
        pair_tm = self._tm.of_chain_pairs(valid).max_by_chain(rows, cp)
        interfaces = self._interfaces.compute(values, contacts, _finite(pair_tm.pair_iptm), cp)
        return _scores(
            rows.spans,
            complex_tm=self._tm.of_complex(valid).max(cp),
            pair_tm=pair_tm,
            pae=pae_sums(pae, valid, rows).sum_by_chain(rows, cp),
            pae_min=pae_minima(values.least_pae, valid).min_by_chain(rows, cp),
            pde=self._weighted_pde.sum(cp),
            contacts=contacts,
            iplddt=weighted_plddt(plddt, at_interface, rows).sum(cp),
            plddt=plddt_sums(plddt, rows.spans).cpu().numpy(),
            interfaces=interfaces,
            geometry=self._geometry,
        )


def _scores(
    spans: ChainSpans,
    complex_tm: ComplexTm,
    pair_tm: ChainPairTm,
    pae: PaeSums,
    pae_min: PaeMinima,
    pde: WeightedPde,
    contacts: Contacts,
    iplddt: WeightedPlddt,
    plddt: Float[np.ndarray, " C"],
    interfaces: InterfaceResult,
    geometry: Geometry,
) -> Scores:
    """Scores from sums and maxima over all rows, on the host."""
    published = interfaces.cutoffs[IPSAE_CUTOFF]
    ptm = float(complex_tm.ptm)
    iptm = float(complex_tm.iptm)
    interface_tm = iptm if iptm > 1e-8 else ptm
    defined = _defined(spans)
    pair_iptm = _finite(pair_tm.pair_iptm)
    complex_plddt = float(plddt.sum() / spans.num_tokens)
    with np.errstate(divide="ignore", invalid="ignore"):
        num_pairs = pae.num_frames.numpy() * spans.lengths
        pae_mean = pae.pae.numpy() / num_pairs
        interface_plddt = contacts.touching_plddt.numpy() / contacts.touching.numpy()
        complex_pde = float(pde.pde.numpy() / pde.weight.numpy())
    complex_ipde = float(pde.interface_pde) / (float(pde.interface_weight) + EPS)
    return Scores(
        ptm=ptm,
        iptm=iptm if defined.iptm else float("nan"),
        ligand_iptm=float(complex_tm.ligand_iptm) if defined.ligand_iptm else float("nan"),
        protein_iptm=float(complex_tm.protein_iptm) if defined.protein_iptm else float("nan"),
        complex_plddt=complex_plddt,
        complex_iplddt=float(iplddt.plddt) / float(iplddt.weight),
        complex_pde=complex_pde,
        complex_ipde=complex_ipde if defined.iptm else float("nan"),
        confidence_score=(4 * complex_plddt + interface_tm) / 5,
        chain_ptm=np.diagonal(pair_iptm).astype(np.float32),
        chain_plddt=(plddt / spans.lengths).astype(np.float32),
        chain_pdockq2=interfaces.chain_pdockq2,
        pair_iptm=_directed(pair_iptm),
        pair_iptm_boltz=pair_tm.pair_iptm_boltz.numpy().astype(np.float32),
        ipsae_d0res=published.ipsae_d0res,
        ipsae_d0chn=published.ipsae_d0chn,
        ipsae_d0dom=published.ipsae_d0dom,
        pae_mean=_directed(pae_mean),
        pae_min=_directed(_finite(pae_min.pae)),
        contacts=contacts.contacts.numpy().astype(np.int32),
        interface_plddt=_directed(interface_plddt),
        interface=interfaces.interface,
        cutoffs=interfaces.cutoffs,
        structure=structure_scores(
            geometry, ptm, iptm if defined.iptm else None, interfaces.mpdockq
        ),
    )


@dataclass(frozen=True)
class _Defined:
    """Which scores of the complex apply."""

    iptm: bool
    ligand_iptm: bool
    protein_iptm: bool


def _defined(spans: ChainSpans) -> _Defined:
    num_proteins = int(spans.mask("protein").sum())
    return _Defined(
        iptm=spans.num_chains > 1,
        ligand_iptm=num_proteins > 0 and bool(spans.mask("ligand").any()),
        protein_iptm=num_proteins > 1,
    )


def _finite(x: Float[Tensor, "C C"]) -> Float[np.ndarray, "C C"]:
    """NaN for a maximum or minimum over no frame."""
    values = x.numpy()
    return np.where(np.isinf(values), np.float32(np.nan), values)


def _directed(x: Float[np.ndarray, "C C"]) -> Float[np.ndarray, "C C"]:
    """Scores of different chains; NaN on the diagonal."""
    different = ~np.eye(len(x), dtype=bool)
    scores = np.where(different, x, np.float32(np.nan))
    return scores.astype(np.float32)
