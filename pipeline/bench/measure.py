"""Measurements of a group of ranks: limits of the device, pair blocks and whole predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.checkpoint.precision import residual_dtype, set_products
from foldcp.config import BOLTZ2, Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels import triangle_attention
from foldcp.kernels.dispatch import choose_backend
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import set_backend, set_compute_dtype
from foldcp.model.trunk.pairformer import PairBlock
from foldcp.pipeline.bench.context import (
    QUICK_SCALES,
    SCALES,
    BenchContext,
    peak_bytes,
    reset_peak_bytes,
)
from foldcp.pipeline.bench.measurements import (
    GROUP_MSA_ROWS,
    BlockTime,
    FoldPlan,
    FoldTime,
    Measurement,
    NotMeasured,
    RooflineLimits,
    Throughput,
)
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from foldcp.pipeline.bench.throughput import measure_throughput
from foldcp.predict import Settings, fold

# Of one multiprocessor (SM), compute capability 7.0 to 10.0: CUDA C++ Programming Guide, table of
# arithmetic throughput.
EXP_PER_CLOCK = 16
NUM_MATRICES = 16  # multiplied at once, as in triangle multiplication
WARMUP_STEPS = 3  # of the sampler
FOLD_REPEATS = 3
GROUP_SIZE = 8  # complexes that are folded together


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """The measurements to make on one group of ranks."""

    device: str  # cuda or cpu
    sizes: tuple[int, ...]  # of pair blocks, in tokens
    fold_sizes: tuple[int, ...]  # of predictions, in tokens
    group_sizes: tuple[int, ...]  # of complexes that are folded together, in tokens; on one rank
    precisions: tuple[Precision, ...]
    fold: FoldPlan
    quick: bool


def measure(cp: ContextParallel, device: torch.device, plan: BenchPlan) -> Iterator[Measurement]:
    """All measurements of a plan, one after the other. Collective.

    When a measurement runs out of memory, a rank alone continues with the next one. Among several
    ranks the others would wait for ever, so torch.OutOfMemoryError is raised.
    """
    scales = QUICK_SCALES if plan.quick else SCALES
    context = BenchContext(cp, device, scales[device.type])
    yield attempt(context, f"limits of {cp.size}", partial(measure_limits, context))
    for precision in plan.precisions:
        for num_tokens in plan.sizes:
            what = f"block, {num_tokens} tokens, {precision}"
            run = partial(measure_block, context, num_tokens, precision)
            yield attempt(context, what, run)
    group_sizes = plan.group_sizes if cp.size == 1 else ()
    if plan.fold_sizes or group_sizes:
        for precision in plan.precisions:
            yield from measure_folds(context, replace(plan, group_sizes=group_sizes), precision)


def measure_folds(
    context: BenchContext, plan: BenchPlan, precision: Precision
) -> Iterator[Measurement]:
    """Predictions of all sizes in one precision, and those of groups. Collective."""
    model = load(plan.fold.network, device=context.device, precision=precision, cp=context.cp)
    for num_tokens in plan.fold_sizes:
        what = f"prediction, {num_tokens} tokens, {precision}"
        run = partial(measure_fold, context, model, plan.fold, num_tokens, precision)
        yield attempt(context, what, run)
    for num_tokens in plan.group_sizes:
        what = f"complexes an hour, {num_tokens} tokens, {precision}"
        run = partial(measure_group, model, plan.fold, num_tokens, precision)
        yield attempt(context, what, run)


def attempt(context: BenchContext, what: str, run: Callable[[], Measurement]) -> Measurement:
    """A measurement, with all memory free before it.

    NotMeasured if a rank alone runs out of memory.
    """
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with torch.inference_mode():
            return run()
    except torch.OutOfMemoryError:
        if context.cp.size > 1:
            raise
        return NotMeasured(what, "out of memory")


def measure_limits(context: BenchContext) -> RooflineLimits:
    """The highest rates of the device."""
    attention = attention_rate(context)
    link = link_rate(context) if context.cp.size > 1 else None
    return RooflineLimits(
        num_ranks=context.cp.size,
        copy_bytes_per_s=copy_rate(context),
        flop_per_s=matmul_rate(context, torch.bfloat16),
        flop_per_s_fp32=matmul_rate(context, torch.float32),
        exp_per_s=attention,
        exp_limit_per_s=max(exp_limit(context), attention),
        launch_seconds=launch_seconds(context),
        link_bytes_per_s=link,
    )


def exp_limit(context: BenchContext) -> float:
    """Exponentials per second of all units.

    16 per clock and multiprocessor of a GPU (0 when PyTorch does not give its clock), measured
    within the cache on a CPU.
    """
    if context.device.type == "cuda":
        properties = torch.cuda.get_device_properties(context.device)
        clock = getattr(properties, "clock_rate", 0) * 1e3
        return properties.multi_processor_count * EXP_PER_CLOCK * clock
    x = context.randn(1 << 18)
    out = torch.empty_like(x)
    return x.numel() / context.seconds(partial(torch.exp, x, out=out), times=20)


def copy_rate(context: BenchContext) -> float:
    """Bytes per second that are copied within memory, read + written."""
    x = context.randn(context.scale.copy_bytes // 4)
    y = torch.empty_like(x)
    return 2 * x.nbytes / context.seconds(partial(y.copy_, x))


def matmul_rate(context: BenchContext, dtype: torch.dtype) -> float:
    """Operations per second of batched matrix products, as in triangle multiplication."""
    n = context.scale.matrix_size
    a = context.randn(NUM_MATRICES, n, n, dtype=dtype)
    b = context.randn(NUM_MATRICES, n, n, dtype=dtype)
    out = torch.empty_like(a)
    flops = 2 * NUM_MATRICES * n**3
    return flops / context.seconds(partial(torch.bmm, a, b.transpose(1, 2), out=out))


def attention_rate(context: BenchContext) -> float:
    """Exponentials per second of triangle attention with bias and mask.

    In bf16 on a GPU, with q, k and v in fp16 as projections give them, and in fp32 on a CPU.
    """
    N = context.scale.attention_tokens
    heads = BOLTZ2.pair_heads
    width = BOLTZ2.pair_head_width
    on_gpu = context.device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    qkv_dtype = torch.float16 if on_gpu else torch.float32
    q, k, v = context.randn(N, N, 3, heads, width, dtype=qkv_dtype).unbind(2)
    bias = context.randn(heads, N, N, dtype=dtype)
    mask = padding_mask(N, context.device)
    attention = triangle_attention.choose(choose_backend("auto", context.device), dtype)
    return heads * N**3 / context.seconds(partial(attention, q, k, v, bias, mask))


def launch_seconds(context: BenchContext) -> float:
    """Seconds from one small kernel to the next."""
    x = context.randn(256)
    return context.seconds(partial(x.mul_, -1), context.scale.launches)


def link_rate(context: BenchContext) -> float:
    """Bytes per second that a rank receives from the others, one after the other."""
    block = context.randn(64, context.scale.link_bytes // 256)

    def receive_all() -> None:
        for _ in context.cp.pipelined_all_gather(block):
            pass

    received_bytes = (context.cp.size - 1) * block.nbytes
    return received_bytes / context.seconds(receive_all)


def padding_mask(N: int, device: torch.device) -> Tensor:
    """A mask with padding at the end, a fiftieth of it."""
    mask = torch.ones(N, device=device)
    mask[-max(1, N // 50) :] = 0
    return mask


def random_pair_block(
    context: BenchContext, precision: Precision, budget: ChunkBudget
) -> PairBlock:
    """A block of the released widths with random weights, the same on every rank."""
    block = PairBlock(BOLTZ2.token_z, BOLTZ2.pair_heads, BOLTZ2.pair_head_width, context.cp, budget)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in block.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            parameter.data = noise * parameter.shape[1] ** -0.5
        else:
            parameter.data = 0.1 * noise + name.endswith("weight")
    if precision != "fp32":
        set_compute_dtype(block, torch.bfloat16)
    set_products(block, precision)
    block.requires_grad_(False).to(context.device)
    set_backend(block, choose_backend("auto", context.device))
    return block


def measure_block(context: BenchContext, num_tokens: int, precision: Precision) -> BlockTime:
    """Seconds and memory of a pair block."""
    P = context.cp.size
    N = num_tokens + -num_tokens % P
    budget = ChunkBudget()
    block = random_pair_block(context, precision, budget)
    mask = padding_mask(N, context.device)
    bytes_before = reset_peak_bytes(context.device)
    z = context.randn(N // P, N, BOLTZ2.token_z, dtype=residual_dtype(precision))
    budget.resize(context.device, context.cp)
    seconds = context.seconds(partial(block, z, mask))
    added_bytes = context.max_over_ranks(float(peak_bytes(context.device) - bytes_before))
    return BlockTime(num_tokens, P, precision, seconds, added_bytes / (N * N / P))


class StagePeaks:
    """Peak memory of each stage of a fold, as its progress callback.

    What prepares the next stage counts for that one.
    """

    def __init__(self, context: BenchContext) -> None:
        self.context = context
        self.peak_bytes: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done == total:
            device = self.context.device
            peak = peak_bytes(device) + self.context.cp.transport.reserved_bytes
            self.peak_bytes[stage] = max(self.peak_bytes.get(stage, 0), peak)
            reset_peak_bytes(device)


def measure_fold(
    context: BenchContext,
    model: Boltz2,
    plan: FoldPlan,
    num_tokens: int,
    precision: Precision,
) -> FoldTime:
    """Seconds and memory of each stage of a whole prediction.

    After a short one of the same size to warm up.
    """
    features = synthetic_features(num_tokens, plan.msa_rows)
    settings = Settings(
        recycling=plan.recycling,
        steps=plan.steps,
        samples=plan.samples,
        precision=precision,
    )
    fold(
        model,
        features,
        replace(settings, recycling=0, steps=min(WARMUP_STEPS, plan.steps)),
    )
    peaks = StagePeaks(context)
    repeats: list[dict[str, float]] = []
    total_seconds = 0.0
    while len(repeats) < FOLD_REPEATS and total_seconds < context.scale.max_seconds:
        context.barrier()
        reset_peak_bytes(context.device)
        prediction = fold(model, features, settings, peaks)
        # Those of the first rank, which has most of the samples, and waits for the others' ones.
        seconds = context.cp.gather_objects(prediction.seconds)[0]
        repeats.append(seconds)
        total_seconds += sum(seconds.values())
    by_total = sorted(repeats, key=lambda seconds: sum(seconds.values()))
    median_seconds = by_total[(len(repeats) - 1) // 2]
    max_peaks = {  # of ranks that have samples
        stage: int(context.max_over_ranks(float(peaks.peak_bytes.get(stage, 0))))
        for stage in median_seconds
    }
    return FoldTime(num_tokens, context.cp.size, precision, median_seconds, max_peaks)


def measure_group(
    model: Boltz2, plan: FoldPlan, num_tokens: int, precision: Precision
) -> Throughput:
    """Seconds of each of several complexes with one sample, alone and together."""
    rows = min(plan.msa_rows, GROUP_MSA_ROWS)
    settings = Settings(recycling=plan.recycling, steps=plan.steps, precision=precision)
    alone, group = measure_throughput(model, num_tokens, [GROUP_SIZE], rows, settings)
    return Throughput(
        num_tokens,
        GROUP_SIZE,
        precision,
        alone_seconds=alone.seconds,
        group_seconds=group.seconds,
        peak_bytes=group.peak_bytes,
    )
