"""pLDDT of chains and of the complex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.reductions import RowValues

LIGAND_WEIGHT = 20.0
INTERFACE_WEIGHT = 10.0


@dataclass(frozen=True)
class WeightedPlddt(RowValues):
    """pLDDT of each token times its weight in complex_iplddt, and that weight."""

    plddt: Float[Tensor, "*R"]
    weight: Float[Tensor, "*R"]


def weighted_plddt(
    plddt: Float[Tensor, " R"], at_interface: Bool[Tensor, " R"], ligand: Bool[Tensor, " R"]
) -> WeightedPlddt:
    """The terms of complex_iplddt: weight 20 for ligand tokens, 10 for others at an interface, 1
    for the rest (Boltz, `ConfidenceHeads`).
    """
    weight = torch.where(at_interface, INTERFACE_WEIGHT, 1.0)
    weight = weight.masked_fill(ligand, LIGAND_WEIGHT)
    return WeightedPlddt(weight * plddt, weight)


def plddt_sums(plddt: Float[np.ndarray, " T"], spans: ChainSpans) -> Float[np.ndarray, " C"]:
    """Sums of pLDDT over the tokens of each chain, in double precision."""
    return np.add.reduceat(plddt.astype(np.float64), spans.starts[:-1])
