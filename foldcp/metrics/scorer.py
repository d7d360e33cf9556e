"""Scores of one sample, reduced on the rows where the logits are computed.

`SampleScorer.update` turns a chunk of logits into values per row and chain. `compute` reduces those
over the rows and the ranks on the device (`sample_reduction.py`), moves the results to the host at
once, and makes scores of them there. What crosses the wire is O(N C), never N x N.

A new score is a function in the file of its family, a field of `sample_reduction.py` where it is
reduced, a field of `Scores`, and a column of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.frames import valid_frames
from foldcp.metrics.geometry.atoms import backbone_atoms
from foldcp.metrics.geometry.contact_atoms import modified_contact_atoms
from foldcp.metrics.geometry.geometry import Geometry
from foldcp.metrics.geometry.structure_scores import structure_scores
from foldcp.metrics.geometry.token_contacts import AF2COMPLEX
from foldcp.metrics.geometry.weak_cache import weak_cache
from foldcp.metrics.interface.af2complex import InterfaceTmSums
from foldcp.metrics.interface.confident_contacts import ContactPae
from foldcp.metrics.interface.contact_probability import ContactProbability
from foldcp.metrics.interface.interface_scorer import InterfaceResult, InterfaceScorer
from foldcp.metrics.interface.pair_pde import PairPde
from foldcp.metrics.interface.scores import (
    DEFAULT_CUTOFFS,
    IPSAE_CUTOFF,
    LIS_CUTOFF,
)
from foldcp.metrics.pae import BIN_CENTERS
from foldcp.metrics.pde import WeightedPde
from foldcp.metrics.plddt import plddt_sums
from foldcp.metrics.ptm import EPS, ExpectedTm
from foldcp.metrics.reductions import to_device, to_host
from foldcp.metrics.sample_reduction import Reduced, SampleValues, Tables, reduce_sample
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
        self._keep_pde = keep_pde
        self._num_padded_rows = N // cp.size
        self._num_updated = 0
        # The rows behind these are padding: `update` accepts and ignores them.
        num_rows = max(0, min(self._num_padded_rows, T - first))
        self._rows = ChainRows(spans, first, num_rows, device)
        self._constants = _constants(features)
        self._points = self._constants.points(coords)
        self._valid = valid_frames(features, coords, spans)[:T]
        self._chain_tm = ExpectedTm.zeros(self._rows, device)
        self._weighted_pde = WeightedPde.zeros(num_rows, device)
        self._pair_pde = PairPde.zeros(self._rows, device)
        self._probability = ContactProbability.zeros(self._rows, device)
        touching = np.zeros((T, spans.num_chains), dtype=bool)
        self._contact_pae: ContactPae | None = None
        if geometry.contacts is not None:
            touching = geometry.contacts.touching(features.layout, AF2COMPLEX)
            self._contact_pae = ContactPae(geometry.contacts, self._rows, device)
        self._interface_tm = InterfaceTmSums(touching, self._rows, device)
        cutoffs = sorted({IPSAE_CUTOFF, LIS_CUTOFF, *pae_cutoffs})
        self._cutoffs = torch.tensor(cutoffs, dtype=torch.float32, device=device)[:, None, None]
        self._interfaces = InterfaceScorer(spans, features.layout, geometry, cutoffs)
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
        tables = self._constants.tables.tm
        self._chain_tm.update(chunk, probability, self._rows, tables)
        self._interface_tm.update(chunk, probability)
        assert self._pair_tm is not None
        self._pair_tm[chunk, : logits.shape[1]] = probability @ tables.bins
        pae = probability.mul_(self._constants.bin_centers).sum(-1)
        self.pae[chunk, : pae.shape[1]] = pae

    def _update_pde(
        self,
        chunk: slice,
        logits: Float[Tensor, "R T 64"],
        contact_probability: Float[Tensor, "R T"],
    ) -> None:
        probability = torch.softmax(logits, -1, dtype=torch.float32)
        pde = probability.mul_(self._constants.bin_centers).sum(-1)
        if self._pde is not None:
            self._pde[chunk, : pde.shape[1]] = pde
        self._weighted_pde.update(chunk, pde, contact_probability, self._rows)
        self._pair_pde.update(chunk, pde, self._rows)
        self._probability.update(chunk, contact_probability.float(), self._rows)

    @torch.no_grad()
    def compute(self, plddt: Float[Tensor, " N"]) -> Scores:
        """The scores, equal on every rank. Collective, after the last row of every rank; waits for
        the device once.

        `plddt`: 0..1 per token, whole on every rank.
        """
        reduced, contact_pae = to_host(self.reduce(plddt))
        pair_iptm = _finite(reduced.maxima.tm.pair_iptm)
        return _scores(
            self._rows.spans,
            reduced,
            pair_iptm,
            self._interfaces.compute(reduced, contact_pae, pair_iptm),
            self._geometry,
        )

    @torch.no_grad()
    def reduce(self, plddt: Float[Tensor, " N"]) -> tuple[Reduced, Float[Tensor, " n"] | None]:
        """What `compute` makes scores of, on the device: the sums and maxima, and the PAE of the
        contacts of the geometry in Å. Collective, once, after the last row of every rank; does not
        wait for the device. The arrays of pairs are no longer held afterwards.
        """
        assert self._num_updated == self._num_padded_rows, (
            f"{self._num_updated} of {self._num_padded_rows} rows were given"
        )
        values = self._values(plddt)
        self._pair_tm = None
        if not self._keep_pae:
            self._pae = None
        reduced = reduce_sample(values, self._rows, self._cutoffs, self._constants.tables, self._cp)
        if self._contact_pae is None:
            return reduced, None
        return reduced, self._contact_pae.of(values.pae, self._cp)

    def _values(self, plddt: Float[Tensor, " N"]) -> SampleValues:
        assert self._pair_tm is not None
        num_tokens = self._rows.spans.num_tokens
        return SampleValues(
            pae=self.pae[: self._rows.num_rows, :num_tokens],
            tm=self._pair_tm,
            plddt=plddt[:num_tokens].float(),
            valid=self._valid,
            points=self._points,
            chain_tm=self._chain_tm,
            interface_tm=self._interface_tm.values,
            weighted_pde=self._weighted_pde,
            pair_pde=self._pair_pde,
            probability=self._probability,
        )


@dataclass(frozen=True, eq=False)
class _Constants:
    """What all samples of a complex have in common, on its device."""

    tables: Tables
    bin_centers: Float[Tensor, " 64"]  # Å, of PAE and PDE
    atoms: Int[Tensor, "S T"]  # whose coordinates are the points of `chain_contacts`
    missing: Bool[Tensor, "S T 1"]  # where there is no such atom

    def points(self, coords: Float[Tensor, "A 3"]) -> Float[Tensor, "S T 3"]:
        """The points of a sample in Å; NaN where there is no atom."""
        return coords.float()[self.atoms].masked_fill(self.missing, torch.nan)


@weak_cache
def _constants(features: Features) -> _Constants:
    layout = features.layout
    spans = ChainSpans.of(layout)
    device = features.token_mask.device
    modified = modified_contact_atoms(layout)
    tokens = torch.tensor(list(modified), dtype=torch.int64, device=device)
    own_atoms = torch.tensor(list(modified.values()), dtype=torch.int64, device=device)
    representative = features.rep_atom[: spans.num_tokens]
    alphas = torch.from_numpy(backbone_atoms(layout)["CA"]).to(device)
    atoms = [alphas, representative.index_copy(0, tokens, own_atoms)]
    if modified:  # Boltz weighs tokens at interfaces by contacts of the representative atoms.
        atoms.append(representative)
    index = torch.stack(atoms)
    return _Constants(
        tables=to_device(Tables.of(spans), device),
        bin_centers=torch.tensor(BIN_CENTERS, dtype=torch.float32, device=device),
        atoms=index.clamp(min=0),
        missing=(index < 0)[..., None],
    )


def _scores(
    spans: ChainSpans,
    reduced: Reduced,
    pair_iptm: Float[np.ndarray, "C C"],
    interfaces: InterfaceResult,
    geometry: Geometry,
) -> Scores:
    """Scores from sums and maxima over all rows, on the host."""
    published = interfaces.cutoffs[IPSAE_CUTOFF]
    complex_tm = reduced.complex_tm
    ptm = float(complex_tm.ptm)
    iptm = float(complex_tm.iptm)
    interface_tm = iptm if iptm > 1e-8 else ptm
    defined = _defined(spans)
    plddt = plddt_sums(reduced.plddt.numpy(), spans)
    complex_plddt = float(plddt.sum() / spans.num_tokens)
    pae = reduced.sums.pae
    contacts = reduced.sums.contacts
    pde = reduced.complex_sums.pde
    iplddt = reduced.complex_sums.plddt
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
        pair_iptm_boltz=reduced.maxima.tm.pair_iptm_boltz.numpy().astype(np.float32),
        ipsae_d0res=published.ipsae_d0res,
        ipsae_d0chn=published.ipsae_d0chn,
        ipsae_d0dom=published.ipsae_d0dom,
        pae_mean=_directed(pae_mean),
        pae_min=_directed(_finite(-reduced.maxima.minus_pae)),
        contacts=contacts.of_tokens.contacts.numpy().astype(np.int32),
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
