"""Fit of the cost model's constants to measurements: the machine's hardware file. Without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foldcp.config import Architecture
from foldcp.pipeline.bench.measurements import (
    BlockTime,
    FoldPlan,
    FoldTime,
    Machine,
    Measurement,
    RooflineLimits,
    synthetic_complex,
)
from foldcp.pipeline.bench.roofline import min_traffic
from foldcp.pipeline.config import ModelConfig, RunConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.costs.memory import (
    MAX_CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    pair_itemsize,
)
from foldcp.pipeline.scheduling.hardware import Hardware

# Share of a device's memory from which a prediction shows the least memory per pair: with memory to
# spare the chunks are larger.
MIN_MEMORY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class FittedHardware:
    """A hardware file, and the names of its values that were measured."""

    hardware: Hardware
    measured: tuple[str, ...]


def fit_hardware(
    machine: Machine,
    net: Architecture,
    fold_net: Architecture,
    plan: FoldPlan,
    measurements: Sequence[Measurement],
) -> FittedHardware:
    """The machine's hardware file with all that was measured; the rest stays as it is.

    `net` has the widths of the blocks, `fold_net` is the network of the predictions.
    """
    limits = [each for each in measurements if isinstance(each, RooflineLimits)]
    if not limits:
        return FittedHardware(machine.hardware, ())
    first = limits[0]
    is_cpu = machine.hardware.device == "cpu"
    rate = first.flop_per_s_fp32 if is_cpu else first.flop_per_s
    fitted: dict[str, float] = {
        "copy_bytes_per_s": first.copy_bytes_per_s,
        "flop_per_s": rate,
        "fp32_slowdown": rate / first.flop_per_s_fp32,
        "exp_per_s": first.exp_per_s,
        "launch_seconds": first.launch_seconds,
    }
    if links := [each.link_bytes_per_s for each in limits if each.link_bytes_per_s]:
        fitted["link_bytes_per_s"] = links[-1]  # of the most ranks
    hardware = replace(machine.hardware, **fitted)
    blocks = [each for each in measurements if isinstance(each, BlockTime)]
    if blocks:
        fewest_ranks = min(block.num_ranks for block in blocks)
        blocks = [block for block in blocks if block.num_ranks == fewest_ranks]
        fitted["pair_traffic"] = fit_pair_traffic(hardware, net, blocks)
    if not is_cpu:
        folds = [each for each in measurements if isinstance(each, FoldTime)]
        fitted |= fit_pair_bytes(hardware, fold_net, plan, folds)
    guessed = tuple(name for name in hardware.guessed if name not in fitted)
    return FittedHardware(replace(hardware, **fitted, guessed=guessed), tuple(fitted))


def fit_pair_traffic(hardware: Hardware, net: Architecture, blocks: Sequence[BlockTime]) -> float:
    """The cost model's `pair_traffic` that fits the blocks best, and at least the least traffic.

    Least squares of the relative error, as the model is linear in `pair_traffic`.
    """
    numerator = 0.0
    denominator = 0.0
    for block in blocks:
        fixed = model_block(replace(hardware, pair_traffic=0.0), net, block)
        slope = model_block(replace(hardware, pair_traffic=1.0), net, block) - fixed
        numerator += slope * (block.seconds - fixed) / block.seconds**2
        denominator += (slope / block.seconds) ** 2
    return max(numerator / denominator, min_traffic(net, "bf16") * 128 / net.token_z)


def fit_pair_bytes(
    hardware: Hardware, net: Architecture, plan: FoldPlan, folds: Sequence[FoldTime]
) -> dict[str, float]:
    """Bytes per pair of every precision with a prediction that filled its device.

    What the cost model counts apart and the largest chunk are subtracted, and at least z and one
    temporary of its size remain. Where ranks have samples of their own, stages have other pairs;
    bf16-int8 follows from bf16.
    """
    fitted: dict[str, float] = {}
    costs = _costs(hardware, net, plan)
    for fold in sorted(folds, key=lambda fold: fold.num_tokens**2 / fold.num_ranks):
        peak = max(fold.peak_bytes.values())
        sharding = costs.sample_sharding(fold.num_tokens, _shape(fold, plan))
        is_shared = sharding.ranks_per_sample == fold.num_ranks
        if peak < MIN_MEMORY_SHARE * hardware.memory or not is_shared:
            continue
        if fold.precision == "bf16-int8":
            continue
        key = f"pair_bytes_{fold.precision}"
        other_bytes = least_bytes(replace(hardware, **{key: 0.0}), net, plan, fold)
        other_bytes += MAX_CHUNK_BYTES - MIN_CHUNK_BYTES
        pairs = net.token_z / 128 * fold.num_tokens**2 / fold.num_ranks
        fitted[key] = max((peak - other_bytes) / pairs, 128 * 2 * pair_itemsize(fold.precision))
    return fitted


def model_block(hardware: Hardware, net: Architecture, block: BlockTime) -> float:
    """Seconds of a pair block that the cost model predicts."""
    shape = FoldShape(block.num_ranks, block.precision, 1, 1)
    return CostModel(hardware, RunConfig(), net).block(block.num_tokens, shape)


def model_fold(hardware: Hardware, net: Architecture, plan: FoldPlan, fold: FoldTime) -> float:
    """Seconds of a whole prediction on the device that the cost model predicts.

    Without the features.
    """
    stages = _costs(hardware, net, plan).stages(_task(fold, plan), _shape(fold, plan))
    return math.fsum(seconds for stage, seconds in stages.items() if stage != "features")


def least_bytes(hardware: Hardware, net: Architecture, plan: FoldPlan, fold: FoldTime) -> float:
    """Least memory of a rank for a prediction, in bytes, that the cost model predicts."""
    return _costs(hardware, net, plan).least_bytes(_task(fold, plan), _shape(fold, plan))


def _costs(hardware: Hardware, net: Architecture, plan: FoldPlan) -> CostModel:
    model = ModelConfig(recycling=plan.recycling, steps=plan.steps, samples=plan.samples)
    return CostModel(hardware, RunConfig(model=model), net)


def _task(fold: FoldTime, plan: FoldPlan) -> Task:
    return Task(synthetic_complex(fold.num_tokens), "", fold.num_tokens, plan.msa_rows)


def _shape(fold: FoldTime, plan: FoldPlan) -> FoldShape:
    parallel_samples = min(plan.samples, ModelConfig().parallel_samples)
    return FoldShape(fold.num_ranks, fold.precision, parallel_samples, plan.msa_rows)
