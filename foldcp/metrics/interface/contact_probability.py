"""Contact probability of pairs of chains, from the distogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.reductions import RowValues

NUM_LARGEST = 10
LIKELY = 0.6  # from this probability on, a contact counts for actifpTM


@dataclass(frozen=True)
class ExpectedContacts(RowValues):
    """Sums of the probability over the tokens of each chain."""

    contacts: Float[Tensor, "R C"]


class ContactProbability:
    """The contact probability of this rank's rows with each chain: its sum, its ten largest
    values.
    """

    def __init__(self, rows: ChainRows, device: torch.device) -> None:
        self.rows = rows
        shape = (rows.num_rows, rows.spans.num_chains)
        self.expected = ExpectedContacts(torch.zeros(shape, dtype=torch.float32, device=device))
        self.largest = torch.zeros((*shape, NUM_LARGEST), dtype=torch.float32, device=device)

    def update(self, chunk: slice, probability: Float[Tensor, "r T"]) -> None:
        """Add the probabilities of a chunk of this rank's rows."""
        spans = self.rows.spans
        self.expected.contacts[chunk] = spans.sum_columns(probability)
        for chain in range(spans.num_chains):
            columns = probability[:, spans.starts[chain] : spans.starts[chain + 1]]
            number = min(NUM_LARGEST, columns.shape[1])
            self.largest[chunk, chain, :number] = columns.topk(number, dim=1).values

    def likely(self) -> Bool[Tensor, "R C"]:
        """Whether each row likely touches each chain."""
        return self.largest[:, :, 0] >= LIKELY

    def largest_by_chain(self, cp: ContextParallel) -> Float[np.ndarray, "C C 10"]:
        """The ten largest probabilities of each pair of chains, descending; 0 where there are fewer
        pairs of tokens. Collective.
        """
        C = self.rows.spans.num_chains
        own = self.largest.new_zeros((C, C, NUM_LARGEST))
        for chain, rows in self.rows.slices():
            values = self.largest[rows].transpose(0, 1).flatten(1)
            own[chain] = values.topk(NUM_LARGEST, dim=1).values
        by_rank = cp.all_gather(own[None])
        values = by_rank.permute(1, 2, 0, 3).flatten(2)
        return values.topk(NUM_LARGEST, dim=2).values.cpu().numpy()


def mean_of_largest(
    largest: Float[np.ndarray, "C C 10"], num_pairs: Int[np.ndarray, "C C"]
) -> Float[np.ndarray, "C C"]:
    """Mean of the ten largest probabilities, or of all if there are fewer."""
    return largest.astype(np.float64).sum(2) / np.minimum(num_pairs, NUM_LARGEST)
