"""What the scores of a sample are made of: sums and maxima over all rows, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.interface.actifptm import actifptm
from foldcp.metrics.interface.af2complex import InterfaceTm
from foldcp.metrics.interface.contact_probability import ContactProbability
from foldcp.metrics.interface.contacts import Contacts, chain_contacts
from foldcp.metrics.interface.lis import LocalInteraction, local_interaction
from foldcp.metrics.interface.pair_pde import PairPde
from foldcp.metrics.ipsae import D0Tables, Ipsae, ipsae
from foldcp.metrics.pae import PaeSums, pae_sums
from foldcp.metrics.pde import WeightedPde
from foldcp.metrics.plddt import WeightedPlddt, weighted_plddt
from foldcp.metrics.ptm import ChainPairTm, ComplexTm, ExpectedTm, TmTables
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True, eq=False)
class SampleValues:
    """What is known of a sample when this rank has seen all its rows."""

    pae: Float[Tensor, "R T"]  # expected, Å
    tm: Float[Tensor, "I N"]  # E[TM] with d0 of all tokens; padded
    plddt: Float[Tensor, " T"]  # 0..1
    valid: Bool[Tensor, " T"]  # frames
    points: Float[Tensor, "S T 3"]  # Å, between which contacts are measured: see `chain_contacts`
    chain_tm: ExpectedTm
    interface_tm: InterfaceTm
    weighted_pde: WeightedPde
    pair_pde: PairPde
    probability: ContactProbability


@dataclass(frozen=True, eq=False)
class Tables:
    """What all samples of a complex need beside their values."""

    tm: TmTables
    d0: D0Tables
    ligand: Bool[Tensor, " T"]  # tokens

    @classmethod
    def of(cls, spans: ChainSpans) -> Tables:
        """The tables of a complex, in host memory."""
        ligand = torch.from_numpy(spans.mask("ligand").repeat(spans.lengths))
        return cls(TmTables.of(spans), D0Tables.of(spans), ligand)


@dataclass(frozen=True)
class PairMaxima(RowValues):
    """Values of the rows with each chain of which scores need maxima; of what they need the minima,
    the negative values.
    """

    tm: ChainPairTm
    minus_pae: Float[Tensor, "R C"]  # the least expected PAE; -inf for an invalid frame
    minus_pde: Float[Tensor, "R C"]
    actifptm: Float[Tensor, "R C"]
    interface_tm: InterfaceTm
    ipsae: tuple[Ipsae, ...]  # with each cutoff


@dataclass(frozen=True)
class PairSums(RowValues):
    """Values of the rows with each chain of which scores need sums."""

    contacts: Contacts
    pae: PaeSums
    pde: Float[Tensor, "R C"]
    probability: Float[Tensor, "R C"]  # of contacts
    local: tuple[LocalInteraction, ...]  # with each cutoff


@dataclass(frozen=True)
class ComplexSums(RowValues):
    """Values of the rows of which scores need sums."""

    pde: WeightedPde
    plddt: WeightedPlddt


@dataclass(frozen=True, eq=False)
class Reduced:
    """Sums and maxima over all rows, equal on every rank."""

    complex_tm: ComplexTm
    complex_sums: ComplexSums
    maxima: PairMaxima
    sums: PairSums
    largest_probability: Float[Tensor, "C C 10"]  # of contacts, descending
    plddt: Float[Tensor, " T"]


def reduce_sample(
    values: SampleValues,
    rows: ChainRows,
    cutoffs: Float[Tensor, "K 1 1"],
    tables: Tables,
    cp: ContextParallel,
) -> Reduced:
    """The sums and maxima of a sample, with cutoffs of PAE in Å. Collective.

    Does not wait for the device, and moves nothing to it: which kernels run, and the shapes they
    see, depend on the layout, the rows and the number of cutoffs alone.
    """
    pae = values.pae
    valid = rows.own(values.valid)
    least_pae = rows.spans.min_columns(pae)
    contacts, boltz_contacts = chain_contacts(values.points, pae, values.plddt, rows, cutoffs)
    at_interface = (boltz_contacts > 0).any(1)
    likely = values.probability.likely()
    maxima = PairMaxima(
        tm=values.chain_tm.of_chain_pairs(valid, tables.tm),
        minus_pae=(-least_pae).masked_fill(~valid[:, None], -torch.inf),
        minus_pde=-values.pair_pde.minima,
        actifptm=actifptm(values.tm, likely, valid, rows, cp),
        interface_tm=values.interface_tm.of_frames(valid),
        ipsae=ipsae(pae, least_pae, rows.min_rows(pae), rows, cutoffs, tables.d0, cp),
    )
    sums = PairSums(
        contacts=contacts,
        pae=pae_sums(pae, valid, rows),
        pde=values.pair_pde.sums,
        probability=values.probability.sums,
        local=local_interaction(pae, rows, cutoffs),
    )
    ligand = rows.own(tables.ligand)
    plddt = weighted_plddt(rows.own(values.plddt), at_interface, ligand)
    return Reduced(
        complex_tm=values.chain_tm.of_complex(valid, rows, tables.tm).max(cp),
        complex_sums=ComplexSums(values.weighted_pde, plddt).sum(cp),
        maxima=maxima.max_by_chain(rows, cp),
        sums=sums.sum_by_chain(rows, cp),
        largest_probability=values.probability.largest_by_chain(rows, cp),
        plddt=values.plddt,
    )
