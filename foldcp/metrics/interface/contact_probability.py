"""Contact probability of pairs of chains, from the distogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.chains import ChainRows

NUM_LARGEST = 10
LIKELY = 0.6  # from this probability on, a contact counts for actifpTM


@dataclass(frozen=True, eq=False)
class ContactProbability:
    """The contact probability of this rank's rows with the tokens of each chain."""

    sums: Float[Tensor, "R C"]
    largest: Float[Tensor, "R C 10"]  # descending; 0 where the chain has fewer tokens

    @classmethod
    def zeros(cls, rows: ChainRows, device: torch.device) -> ContactProbability:
        """Memory for these rows, which `update` fills."""
        shape = (rows.num_rows, rows.spans.num_chains)
        return cls(
            sums=torch.zeros(shape, dtype=torch.float32, device=device),
            largest=torch.zeros((*shape, NUM_LARGEST), dtype=torch.float32, device=device),
        )

    def update(self, chunk: slice, probability: Float[Tensor, "r T"], rows: ChainRows) -> None:
        """Add the probabilities of a chunk of this rank's rows."""
        spans = rows.spans
        self.sums[chunk] = spans.sum_columns(probability)
        for chain in range(spans.num_chains):
            columns = probability[:, spans.starts[chain] : spans.starts[chain + 1]]
            number = min(NUM_LARGEST, columns.shape[1])
            self.largest[chunk, chain, :number] = columns.topk(number, dim=1).values

    def likely(self) -> Bool[Tensor, "R C"]:
        """Whether each row likely touches each chain."""
        return self.largest[:, :, 0] >= LIKELY

    def largest_by_chain(self, rows: ChainRows, cp: ContextParallel) -> Float[Tensor, "C C 10"]:
        """The ten largest probabilities of each pair of chains, descending; 0 where there are fewer
        pairs of tokens. Collective.
        """
        C = rows.spans.num_chains
        own = self.largest.new_zeros((C, C, NUM_LARGEST))
        for chain, of_chain in rows.slices():
            values = self.largest[of_chain].transpose(0, 1).flatten(1)
            own[chain] = values.topk(NUM_LARGEST, dim=1).values
        by_rank = cp.all_gather(own[None])
        values = by_rank.permute(1, 2, 0, 3).flatten(2)
        return values.topk(NUM_LARGEST, dim=2).values


def mean_of_largest(
    largest: Float[np.ndarray, "C C 10"], num_pairs: Int[np.ndarray, "C C"]
) -> Float[np.ndarray, "C C"]:
    """Mean of the ten largest probabilities, or of all if there are fewer."""
    return largest.astype(np.float64).sum(2) / np.minimum(num_pairs, NUM_LARGEST)
