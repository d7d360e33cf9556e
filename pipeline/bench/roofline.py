"""What are measured times worth: their fraction of the machine's limit, and the cost model's
constants? No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foldcp.complex import Chain, Complex
from foldcp.config import Architecture
from foldcp.pipeline.config import ModelConfig, RunConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import Arithmetic, Costs, FoldShape, Hardware, step_flops

# What a block must at least carry per token pair: z is read and written so often ..
Z_PASSES = 14  # 3 in each multiplication and attention, 2 in the transition
# .. and so many numbers per channel in the type of the arithmetic: operands twice (written, read),
# the products of the multiplications and the outputs of the attentions likewise; q, k and v twice.
OPERANDS = 2 * (2 * 2 + 2) + 2 * (2 * 3 + 2)
# The least memory per pair can be seen only where memory is short: with room to spare the chunks
# are larger.
TIGHT = 0.5  # of a device's memory


@dataclass(frozen=True, slots=True)
class RooflineLimits:
    """What the device does at best in what a fold consists of; the slowest rank of `num_ranks`."""

    num_ranks: int
    copy_bytes_per_s: float  # read + write
    flop_per_s: float  # matrix products in bf16
    flop_per_s_fp32: float
    exp_per_s: float  # of the triangle attention kernel
    exp_limit_per_s: float  # of the exponential units (on a CPU: of a plain exponential)
    launch_seconds: float  # from one small kernel to the next
    link_bytes_per_s: float | None  # what a rank receives from the others; None for one rank

    def flops(self, precision: Arithmetic) -> float:
        """Rate of matrix products, 1/s."""
        return self.flop_per_s_fp32 if precision == "fp32" else self.flop_per_s


@dataclass(frozen=True, slots=True)
class BlockTime:
    """One pair block of the released widths on `num_tokens`."""

    num_tokens: int
    num_ranks: int
    precision: Arithmetic
    seconds: float
    pair_bytes: float  # peak memory of a rank per pair of its rows, z included


@dataclass(frozen=True, slots=True)
class FoldTime:
    """A whole prediction; both dictionaries by stage (trunk, sampling, confidence)."""

    num_tokens: int
    num_ranks: int
    precision: Arithmetic
    seconds: dict[str, float]
    peak_bytes: dict[str, int]  # of the device with the largest peak; of the process on a CPU


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Something that could not be measured."""

    what: str
    reason: str


Measurement = RooflineLimits | BlockTime | FoldTime | NotMeasured


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """What is predicted: an untrained network on a made-up complex with a made-up alignment."""

    network: str  # untrained:boltz2 or untrained:tiny
    recycling: int
    steps: int
    samples: int
    msa_rows: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured, and the hardware file that stands for it so far."""

    gpu: str  # the device's own name
    num_devices: int
    versions: dict[str, str]
    hardware: Hardware


def block_limit(
    net: Architecture, N: int, P: int, precision: Arithmetic, ceilings: RooflineLimits
) -> float:
    """Seconds of a pair block if all units did their best: 2 x heads x N^3 exponentials (or the
    matrix products of attention, where those take longer) and 4 x C x N^3 operations; all else is
    N^2, carried at the rate of copies (or computed, where that takes longer). Nothing for
    communication, which can hide behind these.
    """
    C = net.token_z
    inner = net.pair_heads * net.pair_head_width
    rate = ceilings.flops(precision)
    cubes = N**3 / P
    squares = N**2 / P
    attention = max(2 * net.pair_heads / ceilings.exp_limit_per_s, 8 * inner / rate)
    # Projections of two multiplications (6 x C^2 each), of two attentions (q, k, v, gate, output),
    # the transition.
    flops = 2 * (2 * 6 * C * C + 5 * 2 * C * inner) + 2 * 3 * 4 * C * C
    traffic = least_traffic(net, precision) / ceilings.copy_bytes_per_s
    return cubes * (attention + 4 * C / rate) + squares * max(traffic, flops / rate)


def least_traffic(net: Architecture, precision: Arithmetic) -> float:
    """Bytes that a pair block carries per token pair beside the N^3 part, if fused as far as it
    goes.
    """
    kept = 2 if precision == "bf16" else 4
    size = 4 if precision == "fp32" else 2
    return net.token_z * (Z_PASSES * kept + OPERANDS * size) + 4 * net.pair_heads * size


def fold_limit(
    net: Architecture, plan: FoldPlan, fold: FoldTime, ceilings: RooflineLimits
) -> dict[str, float]:
    """Least seconds of each stage: the pair blocks of trunk and confidence at their limit, the
    matrix products of the token and atom transformers that sample. The other layers count as
    nothing.
    """
    N = fold.num_tokens
    P = fold.num_ranks
    block = block_limit(net, N, P, fold.precision, ceilings)
    return {
        "trunk": (plan.recycling + 1) * (net.msa_blocks + net.pairformer_blocks) * block,
        "sampling": plan.samples
        * plan.steps
        * step_flops(net, N, P)
        / ceilings.flops(fold.precision),
        "confidence": plan.samples * net.confidence_blocks * block,
    }


def fit(
    machine: Machine,
    net: Architecture,
    folded: Architecture,
    plan: FoldPlan,
    findings: Sequence[Measurement],
) -> tuple[Hardware, tuple[str, ...]]:
    """The machine's hardware file with all that was measured, and the names of what was; the rest
    stays as it is.

    `net` has the widths of the blocks, `folded` is the network of the predictions.
    """
    ceilings = [f for f in findings if isinstance(f, RooflineLimits)]
    if not ceilings:
        return machine.hardware, ()
    first = ceilings[0]
    cpu = machine.hardware.device == "cpu"
    rate = first.flop_per_s_fp32 if cpu else first.flop_per_s
    new: dict[str, float] = {
        "copy_bytes_per_s": first.copy_bytes_per_s,
        "flop_per_s": rate,
        "fp32_slowdown": rate / first.flop_per_s_fp32,
        "exp_per_s": first.exp_per_s,
        "launch_seconds": first.launch_seconds,
    }
    if links := [c.link_bytes_per_s for c in ceilings if c.link_bytes_per_s]:
        new["link_bytes_per_s"] = links[-1]  # of the most ranks
    hardware = replace(machine.hardware, **new)
    blocks = [f for f in findings if isinstance(f, BlockTime)]
    if blocks:
        few = min(block.num_ranks for block in blocks)
        new["pair_traffic"] = fit_traffic(hardware, net, [b for b in blocks if b.num_ranks == few])
    folds = [f for f in findings if isinstance(f, FoldTime)]
    new |= {} if cpu else fit_pair_bytes(hardware, folded, plan, folds)
    return replace(hardware, **new), tuple(new)


def fit_traffic(hardware: Hardware, net: Architecture, blocks: Sequence[BlockTime]) -> float:
    """The cost model's `pair_traffic` that meets the blocks best: least squares of the relative
    error, in which the model is linear; never less than the least traffic.
    """

    def block(traffic: float, of: BlockTime) -> float:
        return model_block(replace(hardware, pair_traffic=traffic), net, of)

    above = below = 0.0
    for b in blocks:
        fixed = block(0.0, b)
        slope = block(1.0, b) - fixed
        above += slope * (b.seconds - fixed) / b.seconds**2
        below += (slope / b.seconds) ** 2
    return max(above / below, least_traffic(net, "bf16") * 128 / net.token_z)


def fit_pair_bytes(
    hardware: Hardware, net: Architecture, plan: FoldPlan, folds: Sequence[FoldTime]
) -> dict[str, float]:
    """Bytes per pair of every precision with a fold that filled its device; what the cost model
    counts apart is taken off, and at least z and one scratch of its size remain.
    """
    new: dict[str, float] = {}
    for fold in sorted(folds, key=lambda fold: fold.num_tokens**2 / fold.num_ranks):
        peak = max(fold.peak_bytes.values())
        if peak < TIGHT * hardware.memory:
            continue
        empty = replace(hardware, **{f"pair_bytes_{fold.precision}": 0.0})
        apart = model_bytes(empty, net, plan, fold)
        wide = net.token_z / 128 * fold.num_tokens**2 / fold.num_ranks
        least = 128 * 2 * (2 if fold.precision == "bf16" else 4)
        new[f"pair_bytes_{fold.precision}"] = max((peak - apart) / wide, least)
    return new


def model_block(hardware: Hardware, net: Architecture, block: BlockTime) -> float:
    """Seconds of a pair block as the cost model has them."""
    setup = FoldShape(block.num_ranks, block.precision, 1, 1)
    return Costs(hardware, RunConfig(), net).block(block.num_tokens, setup)


def model_fold(hardware: Hardware, net: Architecture, plan: FoldPlan, fold: FoldTime) -> float:
    """Seconds of a whole prediction on the device as the cost model has them, features apart."""
    stages = _costs(hardware, net, plan).stages(_task(fold.num_tokens, plan), _setup(fold, plan))
    return math.fsum(seconds for stage, seconds in stages.items() if stage != "features")


def model_bytes(hardware: Hardware, net: Architecture, plan: FoldPlan, fold: FoldTime) -> float:
    """Least memory of a rank for a prediction as the cost model has it, bytes."""
    return _costs(hardware, net, plan).bytes(_task(fold.num_tokens, plan), _setup(fold, plan))


def synthetic(num_tokens: int) -> Complex:
    """Two protein chains with so many residues in all, one of each kind after the other."""
    residues = "ACDEFGHIKLMNPQRSTVWY" * (num_tokens // 20 + 1)
    first = max(1, num_tokens * 3 // 5)
    chains = (
        Chain("A", "protein", residues[:first]),
        Chain("B", "protein", residues[first:num_tokens]),
    )
    return Complex(f"{num_tokens} tokens", chains)


def _costs(hardware: Hardware, net: Architecture, plan: FoldPlan) -> Costs:
    model = ModelConfig(recycling=plan.recycling, steps=plan.steps, samples=plan.samples)
    return Costs(hardware, RunConfig(model=model), net)


def _task(num_tokens: int, plan: FoldPlan) -> Task:
    return Task(synthetic(num_tokens), "", num_tokens, plan.msa_rows)


def _setup(fold: FoldTime, plan: FoldPlan) -> FoldShape:
    return FoldShape(
        fold.num_ranks,
        fold.precision,
        min(plan.samples, ModelConfig().parallel_samples),
        plan.msa_rows,
    )
