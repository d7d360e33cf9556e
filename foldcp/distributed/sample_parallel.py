"""Data parallelism over the samples of a complex: each rank draws and scores samples of its own.

So it is with small complexes, in which a step of the sampler is bound by the number of its kernels
and ranks that share a sample would save little. Samples of large ones are each shared by all ranks.
Without torch, as the cost model asks the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Above it context parallelism is faster by the cost model: with 5 samples on 4 H200s from here on,
# on 2 from 2,500 tokens. One rank then holds all pairs: 1 or 2 GB of z, twice, and 3 GB of biases.
MAX_TOKENS = 2048


class SampleSharding(NamedTuple):
    """How the samples of a complex are spread over its ranks."""

    ranks_per_sample: int  # all or one
    samples_per_rank: int  # of the first rank, which has the most


def sample_sharding(num_tokens: int, num_samples: int, num_ranks: int) -> SampleSharding:
    """The sharding of a complex with so many tokens, without padding."""
    if num_samples == 1 or num_tokens > MAX_TOKENS:
        return SampleSharding(num_ranks, num_samples)
    return SampleSharding(1, math.ceil(num_samples / num_ranks))


def samples_of_rank(num_samples: int, rank: int, num_ranks: int) -> range:
    """The numbers of a rank's own samples; none of the last ranks if there are too few."""
    each, rest = divmod(num_samples, num_ranks)
    start = rank * each + min(rank, rest)
    return range(start, start + each + (rank < rest))
