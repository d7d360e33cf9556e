"""Roofline model: the least seconds of a block and of a prediction at a machine's limits.

Without torch.
"""

from __future__ import annotations

from foldcp.config import Architecture, Precision
from foldcp.distributed.sample_parallel import sample_sharding
from foldcp.pipeline.bench.measurements import FoldPlan, FoldTime, RooflineLimits
from foldcp.pipeline.scheduling.cost_model import step_flops
from foldcp.pipeline.scheduling.costs.memory import pair_itemsize

# Minimal traffic of a block per token pair: how often z is read and written.
Z_PASSES = 14  # 3 in each multiplication and attention, 2 in the transition
# and so many numbers per channel in the type of the matrix products: operands twice (written,
# read), the products of the multiplications and the outputs of the attentions likewise; q, k and v
# twice.
OPERANDS = 2 * (2 * 2 + 2) + 2 * (2 * 3 + 2)


def block_limit(
    net: Architecture, N: int, P: int, precision: Precision, limits: RooflineLimits
) -> float:
    """Least seconds of a pair block, with all units at their limit.

    The sum of 2 x heads x N^3 exponentials (or the matrix products of attention, where those take
    longer), 4 x C x N^3 operations, and all N^2 work at the rate of copies (or of its operations,
    where those take longer). Communication counts as nothing, as it can overlap with these.
    """
    C = net.token_z
    inner = net.pair_heads * net.pair_head_width
    rate = limits.flops(precision)
    cubes = N**3 / P
    squares = N**2 / P
    attention = max(2 * net.pair_heads / limits.exp_limit_per_s, 8 * inner / rate)
    # Projections of two multiplications (6 x C^2 each) and of two attentions (q, k, v, gate,
    # output), and the transition.
    flops = 2 * (2 * 6 * C * C + 5 * 2 * C * inner) + 2 * 3 * 4 * C * C
    traffic = min_traffic(net, precision) / limits.copy_bytes_per_s
    return cubes * (attention + 4 * C / rate) + squares * max(traffic, flops / rate)


def min_traffic(net: Architecture, precision: Precision) -> float:
    """Least bytes that a pair block moves per token pair beside the N^3 part.

    With everything fused that can be.
    """
    z_itemsize = pair_itemsize(precision)
    itemsize = 4 if precision == "fp32" else 2
    channels = net.token_z * (Z_PASSES * z_itemsize + OPERANDS * itemsize)
    return channels + 4 * net.pair_heads * itemsize


def fold_limit(
    net: Architecture, plan: FoldPlan, fold: FoldTime, limits: RooflineLimits
) -> dict[str, float]:
    """Least seconds of each stage of a prediction.

    The pair blocks of trunk and confidence at their limit, and the matrix products of the sampler's
    token and atom transformers. All other layers count as nothing.
    """
    N = fold.num_tokens
    P = fold.num_ranks
    block = block_limit(net, N, P, fold.precision, limits)
    sharding = sample_sharding(N, plan.samples, plan.samples, P)
    samples = sharding.samples_per_rank
    sample_block = block_limit(net, N, sharding.ranks_per_sample, fold.precision, limits)
    sampler_flops = samples * plan.steps * step_flops(net, N, sharding.ranks_per_sample)
    return {
        "trunk": (plan.recycling + 1) * (net.msa_blocks + net.pairformer_blocks) * block,
        "sampling": sampler_flops / limits.flops(fold.precision),
        "confidence": samples * net.confidence_blocks * sample_block,
    }
