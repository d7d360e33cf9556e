"""The cost model: bytes on each rank and seconds of a fold, from sizes alone.

Counts of operations follow the architecture; what a machine does in a second is in its hardware
file. In units of one pair block on N tokens and P ranks: triangle attention needs 2 x heads x
N^3 / P exponentials (its limit is the exponential unit, not the matrix unit), triangle
multiplication 4 x C x N^3 / P operations, the rest is memory traffic in N^2 / P, and the ranks
exchange what `foldcp.distributed.context_parallel` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from foldcp.config import BOLTZ2, Architecture, Precision
from foldcp.distributed.sample_parallel import SampleSharding, sample_sharding
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.costs import memory
from foldcp.pipeline.scheduling.costs.factors import Factors, kind_of
from foldcp.pipeline.scheduling.costs.memory import (
    ATOMS_PER_TOKEN,
    MAX_GRAPH_PAIRS,
    FoldSize,
    compute_itemsize,
)
from foldcp.pipeline.scheduling.hardware import Hardware

# The constants below are fitted to what docs/performance.md lists, as `python
# docs/scripts/check_cost_model.py` shows.

# Kernels launched by one pair block, by the rest of a pairformer layer, by one layer of the
# sampler, whose steps are CUDA graphs, and by one block of the MSA module.
BLOCK_LAUNCHES = 100
SINGLE_LAUNCHES = 5
LAYER_LAUNCHES = 7
MSA_LAUNCHES = 80
# Exchanges between ranks of a pair block and of a layer of the sampler, and what each takes beside
# its bytes, in launches: packing, waiting for the others, copies on a stream of their own.
BLOCK_EXCHANGES = 20
LAYER_EXCHANGES = 1
EXCHANGE_LAUNCHES = 20
GRAPHED_EXCHANGE_LAUNCHES = 3  # in the CUDA graphs of small complexes
LAYER_EXCHANGE_LAUNCHES = 10
# Share of an exchange in the time of a pair block; the rest happens beside matrix products.
EXCHANGE_SHARE = 0.6
PARTICLES = 3  # structures steered at once for each sample, with potentials
# How much a block slows down as memory gets tight and chunks get small, at 26,000 tokens on four
# H200s.
MEMORY_PRESSURE = 2.2
# Narrow products reach less than the rate of large ones: those of the MSA module two thirds of it,
# those of the sampler a little more.
MSA_SLOWDOWN = 1.5
SAMPLER_SLOWDOWN = 1.4
# Folds that need this share of what was too much for another one do not fit either.
NEIGHBOUR = 0.9
# B per token pair of 128 channels: what the pair representation in fp32 adds to the traffic of a
# block whose arithmetic is in bf16; what products in 8 bits add, as counted: 6 bytes a number for
# there and back; the traffic of the attention of the single representation; and that of the logits
# and scores of one sample.
MIXED_TRAFFIC = 3_800
INT8_TRAFFIC = 1_600
SINGLE_TRAFFIC = 1_900
SCORE_TRAFFIC = 100_000


@dataclass(frozen=True, slots=True)
class FoldShape:
    """Ranks and settings of one attempt.

    The scheduler chooses it, and out-of-memory fallbacks change it. Costs of a batch are those of
    so many complexes that all are as large as its largest.
    """

    num_ranks: int
    precision: Precision
    parallel_samples: int
    max_rows: int  # MSA rows of all chains together
    batch: int = 1  # complexes folded together


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicted cost of folds with the settings of one run on one kind of hardware.

    Bytes are those of one rank, seconds those of the whole worker group. `factors` and
    `memory_limits` are what the run has learned (`costs/learning.py`): factors of times, and by
    number of ranks and precision the least memory of a fold that ran out of memory.
    `batch_limit` is the least predicted peak memory of a batch that did.
    """

    hardware: Hardware
    config: RunConfig
    architecture: Architecture = BOLTZ2
    factors: Factors | None = None
    memory_limits: Mapping[tuple[int, str], float] = field(default_factory=dict)
    batch_limit: float = math.inf

    def precisions(self) -> tuple[Precision, ...]:
        """Precisions to try, the most exact first.

        `auto` has no bf16 on a CPU, where it gains nothing. It never has bf16-int8, whose results
        differ more than those of bf16: who needs it, asks for it.
        """
        setting = self.config.model.precision
        if setting != "auto":
            return (setting,)
        return ("fp32",) if self.hardware.device == "cpu" else ("mixed", "bf16")

    def least_bytes(self, task: Task, shape: FoldShape) -> float:
        """The least memory of one rank in bytes: a group whose ranks have less cannot fold it."""
        return memory.least_bytes(self.hardware, self.architecture, self._fold_size(task, shape))

    def peak_bytes(self, task: Task, shape: FoldShape) -> float:
        """The peak memory of one rank in bytes, with chunks that use what is free."""
        return memory.peak_bytes(self.hardware, self.architecture, self._fold_size(task, shape))

    def batch_fits(self, task: Task, shape: FoldShape) -> bool:
        """Whether the memory of a GPU holds a batch: its predicted peak, without cutting chunks."""
        size = self._fold_size(task, shape)
        needed = memory.batch_peak_bytes(self.hardware, self.architecture, size)
        return needed <= self.hardware.memory and needed < NEIGHBOUR * self.batch_limit

    def fits(self, task: Task, shape: FoldShape) -> bool:
        """Whether the memory of each rank holds the least that a fold needs.

        It does not if about as much was too much for a fold on as many ranks or more.
        """
        needed = self.least_bytes(task, shape)
        if needed > self.hardware.memory:
            return False
        return not any(
            needed >= NEIGHBOUR * limit
            for (num_ranks, precision), limit in self.memory_limits.items()
            if num_ranks >= shape.num_ranks and precision == shape.precision
        )

    def _fold_size(self, task: Task, shape: FoldShape) -> FoldSize:
        model = self.config.model
        return FoldSize(
            num_tokens=task.num_tokens,
            num_ranks=shape.num_ranks,
            precision=shape.precision,
            msa_rows=min(task.msa_depth, shape.max_rows),
            sharding=self.sample_sharding(task.num_tokens, shape),
            num_parallel=shape.parallel_samples * (PARTICLES if model.potentials else 1),
            chunk_bytes=model.chunk_bytes,
            batch=shape.batch,
        )

    def seconds(self, task: Task, shape: FoldShape) -> float:
        """Seconds of a whole fold, with what has been learned."""
        stages = self.stages(task, shape)
        if self.factors is None:
            return sum(stages.values())
        kind = kind_of(task.num_tokens, shape.num_ranks, shape.precision, shape.batch)
        return self.factors.seconds(stages, kind, shape.batch)

    def stages(self, task: Task, shape: FoldShape) -> dict[str, float]:
        """Seconds of each stage of a fold, in order, without what has been learned of them."""
        net = self.architecture
        model = self.config.model
        N = task.num_tokens
        S = min(task.msa_depth, shape.max_rows, self.config.msa.subsample or task.msa_depth)
        passes = shape.batch * (model.recycling + 1)
        sharding = self.sample_sharding(N, shape)
        of_sample = replace(shape, num_ranks=sharding.ranks_per_sample)
        block = self.block(N, shape)
        layer = self._layer(N, shape)
        return {
            "features": shape.batch * (0.2 + 2e-4 * N + 5e-8 * task.msa_depth * N),
            "templates": passes * len(task.complex.templates) * net.template_blocks * block,
            "msa": passes * net.msa_blocks * (block + self._msa_block(N, S, shape)),
            "trunk": passes * net.pairformer_blocks * layer,
            "diffusion": self._diffusion(N, sharding.samples_per_rank, of_sample),
            "confidence": self._confidence(N, sharding.samples_per_rank, of_sample),
        }

    def sample_sharding(self, N: int, shape: FoldShape) -> SampleSharding:
        """How the samples of each complex are spread over the ranks."""
        samples = self.config.model.samples
        return sample_sharding(N, samples, shape.parallel_samples, shape.num_ranks)

    def block(self, N: int, shape: FoldShape) -> float:
        """Seconds of one pair block.

        Two triangle multiplications, two triangle attentions and a transition.
        """
        net = self.architecture
        hw = self.hardware
        P = shape.num_ranks
        cubes = N**3 / P
        squares = N**2 / P
        attention = max(
            2 * net.pair_heads * cubes / hw.exp_per_s,
            8 * net.pair_heads * net.pair_head_width * cubes / self._flop_rate(shape),
        )
        multiplication = 4 * net.token_z * cubes / self._flop_rate(shape)
        channels = net.token_z / 128
        pair_traffic = hw.pair_traffic * compute_itemsize(shape.precision) / 2
        if shape.precision == "mixed":
            pair_traffic += MIXED_TRAFFIC
        if shape.precision == "bf16-int8":
            pair_traffic += INT8_TRAFFIC
        traffic = pair_traffic * channels * squares / hw.copy_bytes_per_s
        compute = (attention + multiplication + traffic) * self._memory_pressure(N, shape)
        launches = BLOCK_LAUNCHES * hw.launch_seconds
        return compute + self._communication_seconds(N, shape) + launches

    def _layer(self, N: int, shape: FoldShape) -> float:
        """Seconds of a pairformer layer: a pair block, and the update of the single representation
        with a bias from the pairs.
        """
        launches = SINGLE_LAUNCHES * self.hardware.launch_seconds
        single = self._traffic_seconds(SINGLE_TRAFFIC, N, shape)
        return self.block(N, shape) + single + launches

    def _flop_rate(self, shape: FoldShape) -> float:
        slowdown = self.hardware.fp32_slowdown if shape.precision == "fp32" else 1.0
        return self.hardware.flop_per_s / slowdown

    def _memory_pressure(self, N: int, shape: FoldShape) -> float:
        """Factor >= 1 by which a block slows down as memory gets tight and chunks get small."""
        hw = self.hardware
        needed = hw.pair_bytes(shape.precision) * self.architecture.token_z / 128
        available = (hw.memory - hw.reserved_gb * 1e9) / (N * N / shape.num_ranks)
        return 1 + MEMORY_PRESSURE * min(1.0, needed / available) ** 3

    def _communication_seconds(self, N: int, shape: FoldShape) -> float:
        """Seconds of a block's communication.

        One operand of each multiplication and the bias of each attention are gathered, and the
        columns of the other operand of the incoming multiplication are exchanged. Part of this
        overlaps with matrix products, the columns of the ending attention wholly.
        """
        net = self.architecture
        hw = self.hardware
        P = shape.num_ranks
        if P == 1:
            return 0.0
        itemsize = compute_itemsize(shape.precision)
        nodes = math.ceil(P / hw.gpus_per_node)
        gathered = itemsize * (2 * net.token_z + 2 * net.pair_heads) * N**2
        moved = itemsize * net.token_z * N**2 / P
        within = (gathered + moved) * (P - 1) / P / hw.link_bytes_per_s
        between = (gathered * nodes / P + moved) * (nodes - 1) / nodes / hw.network_bytes_per_s
        graphed = hw.device != "cpu" and N**2 / P <= MAX_GRAPH_PAIRS
        launches = GRAPHED_EXCHANGE_LAUNCHES if graphed else EXCHANGE_LAUNCHES
        latency = BLOCK_EXCHANGES * launches * hw.launch_seconds
        return EXCHANGE_SHARE * (within + between) + latency

    def _traffic_seconds(self, pair_bytes: float, N: int, shape: FoldShape) -> float:
        """Seconds in which so many bytes per token pair of 128 channels are moved."""
        traffic = pair_bytes * self.architecture.token_z / 128 * N**2 / shape.num_ranks
        return traffic / self.hardware.copy_bytes_per_s

    def _msa_block(self, N: int, S: int, shape: FoldShape) -> float:
        """Seconds that the MSA module adds to a pair block.

        For the outer product mean and the pair-weighted averaging.
        """
        net = self.architecture
        P = shape.num_ranks
        outer = 2 * net.outer_product_width**2 * (S + net.token_z) * N**2 / P
        averaging = 2 * net.averaging_heads * net.averaging_head_width * S * N**2 / P
        rows = 60 * net.msa_s**2 * S * N / P
        products = MSA_SLOWDOWN * (outer + averaging + rows)
        launches = MSA_LAUNCHES * self.hardware.launch_seconds
        return products / self._flop_rate(shape) + launches

    def _confidence(self, N: int, num_samples: int, shape: FoldShape) -> float:
        """Seconds of the scores of so many samples of each complex."""
        blocks = self.architecture.confidence_blocks * self._layer(N, shape)
        traffic = self._traffic_seconds(SCORE_TRAFFIC, N, shape)
        return shape.batch * num_samples * (blocks + traffic)

    def _diffusion(self, N: int, num_samples: int, shape: FoldShape) -> float:
        """Seconds of all steps of so many samples of each complex.

        Tokens are sharded by rows, atoms are whole on every rank.
        """
        net = self.architecture
        hw = self.hardware
        model = self.config.model
        P = shape.num_ranks
        width = 2 * net.token_s
        layers = net.token_transformer_blocks
        atom_layers = net.atom_encoder_blocks + net.atom_decoder_blocks
        samples = shape.batch * num_samples * (PARTICLES if model.potentials else 1)
        batches = math.ceil(num_samples / shape.parallel_samples)
        itemsize = compute_itemsize(shape.precision)
        products = samples * step_flops(net, N, P)
        exponentials = samples * layers * net.token_heads * N**2 / P
        bias = shape.batch * batches * layers * net.token_heads * itemsize * N**2 / P
        exchanged = 2 * samples * layers * itemsize * width * N * (P - 1) / P
        within_node = hw.gpus_per_node >= P
        exchange_rate = hw.link_bytes_per_s if within_node else hw.network_bytes_per_s
        launches = (layers + atom_layers) * LAYER_LAUNCHES
        if P > 1:
            launches += layers * LAYER_EXCHANGES * LAYER_EXCHANGE_LAUNCHES
        step = (
            SAMPLER_SLOWDOWN * products / self._flop_rate(shape)
            + exponentials / hw.exp_per_s
            + bias / hw.copy_bytes_per_s
            + exchanged / exchange_rate
            + batches * launches * hw.launch_seconds
        )
        return model.steps * step


def step_flops(net: Architecture, N: int, P: int) -> float:
    """Operations of a rank in one step of one sample.

    The matrix products between tokens and between atoms.
    """
    width = 2 * net.token_s
    atom_layers = net.atom_encoder_blocks + net.atom_decoder_blocks
    tokens = N / P * net.token_transformer_blocks * (36 * width**2 + 4 * width * N)
    atoms = N * ATOMS_PER_TOKEN * atom_layers * (36 * net.atom_s**2 + 4 * net.atom_s * 128)
    return tokens + atoms
