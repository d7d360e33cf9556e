"""pLDDT of chains and of the complex."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.metrics.chains import ChainRows, ChainSpans
from foldcp.metrics.reductions import RowValues

LIGAND_WEIGHT = 20.0
INTERFACE_WEIGHT = 10.0


@dataclass(frozen=True)
class WeightedPlddt(RowValues):
    """pLDDT of each token times its weight in complex_iplddt, and that weight."""

    plddt: Float[Tensor, "*R"]
    weight: Float[Tensor, "*R"]


def weighted_plddt(
    plddt: Float[Tensor, " T"], at_interface: Bool[Tensor, " R"], rows: ChainRows
) -> WeightedPlddt:
    """The terms of complex_iplddt: weight 20 for ligand tokens, 10 for others at an interface, 1
    for the rest (Boltz, `ConfidenceHeads`).
    """
    ligand_chains = torch.from_numpy(rows.spans.mask("ligand")).to(plddt.device)
    weight = torch.where(at_interface, INTERFACE_WEIGHT, 1.0)
    weight = weight.masked_fill(ligand_chains[rows.row_chain], LIGAND_WEIGHT)
    return WeightedPlddt(weight * rows.own(plddt), weight)


def plddt_sums(plddt: Float[Tensor, " T"], spans: ChainSpans) -> Float[Tensor, " C"]:
    """Sums of pLDDT over the tokens of each chain, in double precision."""
    return spans.sum_columns(plddt[None].double())[0]
