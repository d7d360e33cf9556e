"""How fast and how large: ceilings of a device, pair blocks and whole predictions, measured on
the ranks of a group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.checkpoint.precision import residual_dtype
from foldcp.config import BOLTZ2
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.kernels import triangle_attention
from foldcp.kernels.dispatch import choose_backend
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import set_backend, set_compute_dtype
from foldcp.model.trunk.pairformer import PairBlock
from foldcp.pipeline.bench.roofline import (
    BlockTime,
    FoldPlan,
    FoldTime,
    Measurement,
    NotMeasured,
    RooflineLimits,
    synthetic,
)
from foldcp.pipeline.execution import worker as process
from foldcp.pipeline.scheduling.cost_model import Arithmetic
from foldcp.predict import Settings, fold

EXP_PER_CLOCK = 16  # of one multiprocessor, compute capability 7.0 to 10.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and patience for a kind of device."""

    copy_bytes: int
    gemm: int  # edge of the matrices, 16 of which are multiplied at once
    attention_tokens: int
    link_bytes: int  # of one rank's block
    launches: int
    most_repeats: int
    patience: float  # seconds after which a measurement is not repeated again


SCALES = {
    "cuda": Scale(1 << 30, 4096, 2048, 256 << 20, 1000, 15, 20.0),
    "cpu": Scale(64 << 20, 512, 192, 16 << 20, 1000, 9, 6.0),
}
# Caches hold what is small, so a quick look at a GPU is one with fewer repeats; a CPU's sizes
# shrink too.
QUICK = {
    "cuda": replace(SCALES["cuda"], most_repeats=5, patience=3.0),
    "cpu": Scale(8 << 20, 128, 48, 1 << 20, 200, 3, 0.5),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where this rank measures; all ranks of a group measure together."""

    cp: ContextParallel
    device: torch.device
    scale: Scale

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random numbers: what is all zeros needs less power, and goes faster than life."""
        return torch.randn(shape, device=self.device, dtype=dtype)

    def seconds(self, run: Callable[[], object], times: int = 1) -> float:
        """Seconds of one of `times` runs in a row on the slowest rank: the median of repeats,
        after two to warm up.
        """
        for _ in range(2):
            self.once(run)
        found: list[float] = []
        while len(found) < self.scale.most_repeats and times * sum(found) < self.scale.patience:
            found.append(self.once(lambda: [run() for _ in range(times)]) / times)
        return median(found)

    def once(self, run: Callable[[], object]) -> float:
        """Seconds of a run on the slowest rank, equal on all; beforehand the ranks wait for each
        other.
        """
        self.slowest(0.0)
        return self.slowest(timed(run, self.device))

    def slowest(self, value: float) -> float:
        """The largest of the ranks' values."""
        return float(
            self.cp.all_gather(torch.tensor([value], dtype=torch.float64, device=self.device)).max()
        )


# Devices differ in these four.


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from the first to the last that a run asks of the device."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def begin_peak(device: torch.device) -> int:
    """Begin a new measurement of peak memory; bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    process.reset_peak()
    return process.peak_bytes()


def peak(device: torch.device) -> int:
    """Peak bytes since `begin_peak`: of the device, or of this process on a CPU."""
    return (
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process.peak_bytes()
    )


def exp_limit(place: Place) -> float:
    """Exponentials/s of all units: 16 a clock and multiprocessor of a GPU; measured within the
    cache on a CPU. 0 when the GPU's clock is not told.
    """
    if place.device.type == "cuda":
        properties = torch.cuda.get_device_properties(place.device)
        return (
            properties.multi_processor_count
            * EXP_PER_CLOCK
            * getattr(properties, "clock_rate", 0)
            * 1e3
        )
    x = place.randn(1 << 18)
    out = torch.empty_like(x)
    return x.numel() / place.seconds(lambda: torch.exp(x, out=out), 20)


def ceilings(place: Place) -> RooflineLimits:
    """What the device does at best."""
    attention = attention_rate(place)
    return RooflineLimits(
        num_ranks=place.cp.size,
        copy_bytes_per_s=copy_rate(place),
        flop_per_s=product_rate(place, torch.bfloat16),
        flop_per_s_fp32=product_rate(place, torch.float32),
        exp_per_s=attention,
        exp_limit_per_s=max(exp_limit(place), attention),
        launch_seconds=launch_cost(place),
        link_bytes_per_s=link_rate(place) if place.cp.size > 1 else None,
    )


def copy_rate(place: Place) -> float:
    """Bytes/s, read + written."""
    x = place.randn(place.scale.copy_bytes // 4)
    y = torch.empty_like(x)
    return 2 * x.nbytes / place.seconds(lambda: y.copy_(x))


def product_rate(place: Place, dtype: torch.dtype) -> float:
    """Operations/s of batched matrix products, as triangle multiplication has them."""
    n = place.scale.gemm
    a, b = (place.randn(16, n, n, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * 16 * n**3 / place.seconds(lambda: torch.bmm(a, b.transpose(1, 2), out=out))


def attention_rate(place: Place) -> float:
    """Exponentials/s of the triangle attention kernel, with bias and mask, in the arithmetic of
    this device.
    """
    N = place.scale.attention_tokens
    heads = BOLTZ2.pair_heads
    width = BOLTZ2.pair_head_width
    dtype = torch.bfloat16 if place.device.type == "cuda" else torch.float32
    q, k, v = place.randn(N, N, 3, heads, width, dtype=dtype).unbind(2)
    bias = place.randn(heads, N, N, dtype=dtype)
    mask = last_masked(N, place.device)
    attention = triangle_attention.choose(choose_backend("auto", place.device), dtype)
    return heads * N**3 / place.seconds(lambda: attention(q, k, v, bias, mask))


def launch_cost(place: Place) -> float:
    """Seconds from one small kernel to the next."""
    x = place.randn(256)
    return place.seconds(lambda: x.mul_(-1), place.scale.launches)


def link_rate(place: Place) -> float:
    """Bytes/s that a rank receives from the others, one after the other."""
    block = place.randn(64, place.scale.link_bytes // 256)
    return (
        (place.cp.size - 1)
        * block.nbytes
        / place.seconds(lambda: [None for _ in place.cp.pipelined_all_gather(block)])
    )


def last_masked(N: int, device: torch.device) -> Tensor:
    """A mask with padding at the end."""
    mask = torch.ones(N, device=device)
    mask[-max(1, N // 50) :] = 0
    return mask


def pair_block(place: Place, precision: Arithmetic, budget: ChunkBudget) -> PairBlock:
    """A block of the released widths with random weights, the same on every rank."""
    block = PairBlock(BOLTZ2.token_z, BOLTZ2.pair_heads, BOLTZ2.pair_head_width, place.cp, budget)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in block.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scaled = (
            noise * parameter.shape[1] ** -0.5
            if parameter.dim() == 2
            else 0.1 * noise + name.endswith("weight")
        )
        parameter.data = scaled
    if precision != "fp32":
        set_compute_dtype(block, torch.bfloat16)
    block.requires_grad_(False).to(place.device)
    set_backend(block, choose_backend("auto", place.device))
    return block


def block_time(place: Place, num_tokens: int, precision: Arithmetic) -> BlockTime:
    """Time and memory of a pair block."""
    P = place.cp.size
    N = num_tokens + -num_tokens % P
    budget = ChunkBudget()
    block = pair_block(place, precision, budget)
    mask = last_masked(N, place.device)
    before = begin_peak(place.device)
    z = place.randn(N // P, N, BOLTZ2.token_z, dtype=residual_dtype(precision))
    budget.resize(place.device, place.cp)
    seconds = place.seconds(lambda: block(z, mask))
    most = place.slowest(float(peak(place.device) - before))
    return BlockTime(num_tokens, P, precision, seconds, most / (N * N / P))


def made_up_features(num_tokens: int, msa_rows: int) -> Features:
    """Two chains with so many residues and a random alignment."""
    features = featurize(synthetic(num_tokens))
    shape = (msa_rows, num_tokens)
    generator = torch.Generator().manual_seed(0)
    msa = torch.randint(2, 22, shape, generator=generator).to(torch.int8)
    msa[0] = features.res_type
    deleted = torch.rand(shape, generator=generator) < 0.02
    return replace(
        features,
        msa=msa,
        has_deletion=deleted,
        deletion_value=0.3 * deleted,
        paired=torch.rand(shape, generator=generator) < 0.5,
        msa_mask=torch.ones(1, 1).expand(shape),
    )


def fold_time(
    place: Place, model: Boltz2, plan: FoldPlan, num_tokens: int, precision: Arithmetic
) -> FoldTime:
    """Time and memory of a whole prediction, stage by stage; after a short one of the same size."""
    features = made_up_features(num_tokens, plan.msa_rows)
    settings = Settings(
        recycling=plan.recycling,
        steps=plan.steps,
        samples=plan.samples,
        precision=precision,
    )
    fold(model, features, replace(settings, recycling=0, steps=min(3, plan.steps)))
    peaks: dict[str, int] = {}

    def ended(stage: str, done: int, total: int) -> None:
        """At a stage's last step; what prepares the next one counts as its own."""
        if done == total:
            peaks[stage] = max(
                peaks.get(stage, 0), peak(place.device) + place.cp.transport.reserved_bytes
            )
            begin_peak(place.device)

    found: list[dict[str, float]] = []
    while len(found) < 3 and sum(sum(seconds.values()) for seconds in found) < place.scale.patience:
        place.slowest(0.0)
        begin_peak(place.device)
        prediction = fold(model, features, settings, ended)
        found.append(
            {stage: place.slowest(seconds) for stage, seconds in prediction.seconds.items()}
        )
    middle = sorted(found, key=lambda seconds: sum(seconds.values()))[(len(found) - 1) // 2]
    most = {stage: int(place.slowest(float(bytes_))) for stage, bytes_ in peaks.items()}
    return FoldTime(num_tokens, place.cp.size, precision, middle, most)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is measured on one group of ranks."""

    device: str  # cuda or cpu
    sizes: tuple[int, ...]  # of pair blocks
    fold_sizes: tuple[int, ...]
    precisions: tuple[Arithmetic, ...]
    fold: FoldPlan
    quick: bool


def measure(cp: ContextParallel, device: torch.device, plan: Plan) -> Iterator[Measurement]:
    """Everything, one finding after the other. Without memory for something a rank alone goes on
    with the rest; among several the others would wait for ever, so it raises.
    """
    place = Place(cp, device, (QUICK if plan.quick else SCALES)[device.type])
    yield attempt(place, f"ceilings of {cp.size}", lambda: ceilings(place))
    for precision in plan.precisions:
        for N in plan.sizes:
            yield attempt(
                place,
                f"block, {N} tokens, {precision}",
                partial(block_time, place, N, precision),
            )
    for precision in plan.precisions if plan.fold_sizes else ():
        model = load(plan.fold.network, device=device, precision=precision, cp=cp)
        for N in plan.fold_sizes:
            what = f"prediction, {N} tokens, {precision}"
            yield attempt(place, what, partial(fold_time, place, model, plan.fold, N, precision))
        del model


def attempt(place: Place, what: str, run: Callable[[], Measurement]) -> Measurement:
    """A finding, or why there is none. Every measurement begins with all memory free."""
    if place.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with torch.inference_mode():
            return run()
    except torch.OutOfMemoryError:
        if place.cp.size > 1:
            raise
        return NotMeasured(what, "out of memory")
