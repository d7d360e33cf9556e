"""Data parallelism over the samples of a complex: each rank draws and scores samples of its own.

So it is with small complexes, in which a step of the sampler is bound by the number of its kernels
and ranks that share a sample would save little. Each sample of a large one is shared by all ranks.
Without torch, as the cost model asks the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# By the cost model, sharing 5 samples is faster from 2,400 to 4,400 tokens on, with 2 to 8 H200s (2
# samples on 8: from 1,500). Where it does not share them, a rank holds all pairs: z twice, of 1 GB
# in bf16 and 2 in fp32, and biases of 3 GB in bf16.
MAX_TOKENS = 2048


class SampleSharding(NamedTuple):
    """How the samples of a complex are spread over its ranks."""

    ranks_per_sample: int  # all or one
    samples_per_rank: int  # of the first rank, which has the most


def sample_sharding(
    num_tokens: int, num_samples: int, parallel_samples: int, num_ranks: int
) -> SampleSharding:
    """The sharding of a complex with so many tokens, without padding.

    Ranks share the samples that are drawn one at a time, as they are where memory is scarce.
    """
    if min(num_samples, parallel_samples) == 1 or num_tokens > MAX_TOKENS:
        return SampleSharding(num_ranks, num_samples)
    return SampleSharding(1, math.ceil(num_samples / num_ranks))


def samples_of_rank(num_samples: int, rank: int, num_ranks: int) -> range:
    """The numbers of a rank's own samples; none of the last ranks if there are too few."""
    each, rest = divmod(num_samples, num_ranks)
    start = rank * each + min(rank, rest)
    return range(start, start + each + (rank < rest))
