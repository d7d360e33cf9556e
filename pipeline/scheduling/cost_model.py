"""What a fold costs: bytes on each rank and seconds, from the sizes alone. Neither torch nor Ray
here.

Counts of operations follow the architecture; what a machine does in a second stands in
`configs/hardware/`. In units of one pair block on N tokens and P ranks: triangle attention needs 2
x heads x N^3 / P exponentials (the exponential unit is its limit, not the matrix unit), triangle
multiplication 4 x C x N^3 / P operations, the rest is memory traffic in N^2 / P, and the ranks
exchange what `foldcp.distributed.context_parallel` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from foldcp.config import BOLTZ2, Architecture
from foldcp.pipeline.config import RunConfig, checked, nearest, read_yaml
from foldcp.pipeline.inputs.tasks import Task

Arithmetic = Literal["fp32", "mixed", "bf16"]

PRESETS = Path(__file__).parents[2] / "configs" / "hardware"

# Kernels launched by one pair block, one layer of a transformer and one block of the MSA module.
BLOCK_LAUNCHES = 100
LAYER_LAUNCHES = 25
MSA_LAUNCHES = 150
PARTICLES = 3  # structures steered at once for each sample, with potentials
ATOMS_PER_TOKEN = 8.2  # heavy atoms of an average residue
# Chunks shrink as memory runs out; fitted to the row prototype at 16,384 and 24,576 tokens on four
# H200s.
SQUEEZE = 0.45
SQUEEZE_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of GPU (or CPU rank) and how its nodes are wired. Rates are those reached, not
    those promised.
    """

    name: str
    device: Literal["cuda", "cpu"]
    memory_gb: float  # 1e9 B of one GPU
    reserved_gb: float  # of that: driver, weights, workspace
    gpus_per_node: int
    exp_per_s: float  # exponentials within fused attention
    flop_per_s: float  # matrix products in bf16 (in fp32 on a CPU)
    fp32_slowdown: float  # of matrix products in fp32
    copy_bytes_per_s: float  # memory to memory, read + write
    link_bytes_per_s: float  # one GPU to the others of its node, each way
    network_bytes_per_s: float  # one GPU's share of the way to other nodes
    launch_seconds: float  # from one small kernel to the next
    start_seconds: float  # a group's processes, weights and communicators
    # B moved per token pair and block beside the N^3 part, in bf16, 128 channels
    pair_traffic: float
    pair_bytes_fp32: float  # least memory per token pair and rank, whole prediction, 128 channels
    pair_bytes_mixed: float
    pair_bytes_bf16: float

    @property
    def memory(self) -> float:
        """Bytes of one GPU."""
        return self.memory_gb * 1e9

    def pair_bytes(self, precision: Arithmetic) -> float:
        """Least memory of a token pair, bytes."""
        return {
            "fp32": self.pair_bytes_fp32,
            "mixed": self.pair_bytes_mixed,
            "bf16": self.pair_bytes_bf16,
        }[precision]


def load_hardware(name: str | Path) -> Hardware:
    """A YAML file, or the name of one in `configs/hardware/` such as `h200`.

    Raises ValueError for an unknown name and for keys that are unknown, missing, of the wrong type
    or not positive.
    """
    file = Path(name) if Path(name).suffix in {".yaml", ".yml"} else PRESETS / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        raise ValueError(
            f"{name}: no such file, and no hardware of that name{nearest(str(name), known)}"
        )
    content = read_yaml(file)
    hints = get_type_hints(Hardware)
    for key in content:
        if key not in hints:
            raise ValueError(f"{file}: {key}: unknown setting{nearest(key, list(hints))}")
    if missing := [field.name for field in fields(Hardware) if field.name not in content]:
        raise ValueError(f"{file}: {missing[0]} is missing")
    values: dict[str, Any] = {
        key: checked(content[key], hints[key], f"{file}: {key}") for key in hints
    }
    for key, value in values.items():
        if not isinstance(value, str) and value <= 0:
            raise ValueError(f"{file}: {key}: {value!r} is not positive")
    return Hardware(**values)


@dataclass(frozen=True, slots=True)
class FoldShape:
    """How one attempt runs: what the scheduler chooses and the ladder after an out-of-memory
    changes.
    """

    num_ranks: int
    precision: Arithmetic
    parallel_samples: int
    max_rows: int  # of the alignment of all chains


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost model of one run. All methods are pure; bytes are of one rank, seconds of the
    whole group.
    """

    hardware: Hardware
    config: RunConfig
    architecture: Architecture = BOLTZ2

    def precisions(self) -> tuple[Arithmetic, ...]:
        """Arithmetic to try, the most exact first. `auto` has no bf16 on a CPU, where it gains
        nothing.
        """
        wanted = self.config.model.precision
        if wanted != "auto":
            return (wanted,)
        return ("fp32",) if self.hardware.device == "cpu" else ("mixed", "bf16")

    def first_setup(self, num_ranks: int, precision: Arithmetic) -> FoldShape:
        """The setup of a first attempt. Rows paired over the chains stand on top of the others,
        hence 2.
        """
        model = self.config.model
        msa = self.config.msa
        return FoldShape(
            num_ranks,
            precision,
            min(model.samples, model.parallel_samples),
            2 * msa.max_rows,
        )

    def smallest(self, task: Task, max_ranks: int) -> FoldShape | None:
        """The smallest group that holds a task, in the most exact arithmetic that fits any
        group; None if none.
        """
        for precision in self.precisions():
            for num_ranks in range(1, max_ranks + 1):
                setup = self.first_setup(num_ranks, precision)
                if self.bytes(task, setup) <= self.hardware.memory:
                    return setup
        return None

    def why_not(self, task: Task, max_ranks: int) -> str:
        """The reason why no group of `max_ranks` GPUs holds a task."""
        setup = self.first_setup(max_ranks, self.precisions()[-1])
        needed = self.bytes(task, setup) / 1e9
        unit = "GPU" if self.hardware.device == "cuda" else "rank"
        return (
            f"{task.num_tokens} tokens in {setup.precision} need {needed:.0f} GB on each of "
            f"{max_ranks} {unit}s, "
            f"and a {unit} has {self.hardware.memory_gb:.0f} GB"
        )

    def bytes(self, task: Task, setup: FoldShape) -> float:
        """Peak bytes of one rank: the fixed part, the pair representation and its passers-by by
        rows, the gathered attention bias, the alignment (features whole, representation by
        columns), tokens and atoms of the samples.
        """
        net = self.architecture
        N = task.num_tokens
        P = setup.num_ranks
        size = _size(setup.precision)
        S = min(task.msa_depth, setup.max_rows)
        pairs = self.hardware.pair_bytes(setup.precision) * net.token_z / 128 * N * N / P
        bias = 2 * size * net.pair_heads * N * N
        msa = S * N * (24 + 4 * size * net.msa_s / P)
        samples = setup.parallel_samples * (PARTICLES if self.config.model.potentials else 1)
        tokens = samples * N * (16 * 2 * net.token_s + 24 * ATOMS_PER_TOKEN * net.atom_s)
        return self.hardware.reserved_gb * 1e9 + pairs + bias + msa + tokens

    def seconds(self, task: Task, setup: FoldShape) -> float:
        """Seconds of a whole fold."""
        return sum(self.stages(task, setup).values())

    def stages(self, task: Task, setup: FoldShape) -> dict[str, float]:
        """Seconds of each stage of a fold, in its order."""
        net = self.architecture
        model = self.config.model
        N = task.num_tokens
        S = min(task.msa_depth, setup.max_rows, self.config.msa.subsample or task.msa_depth)
        passes = model.recycling + 1
        block = self.block(N, setup)
        return {
            "features": 0.2 + 2e-4 * N + 5e-8 * task.msa_depth * N,
            "templates": passes * len(task.complex.templates) * net.template_blocks * block,
            "msa": passes * net.msa_blocks * (block + self._msa_block(N, S, setup)),
            "trunk": passes * net.pairformer_blocks * block,
            "diffusion": self._diffusion(N, setup),
            "confidence": model.samples * net.confidence_blocks * block,
        }

    def block(self, N: int, setup: FoldShape) -> float:
        """Seconds of one pair block: two triangle multiplications, two triangle attentions, a
        transition.
        """
        net = self.architecture
        hw = self.hardware
        P = setup.num_ranks
        wide = net.token_z / 128
        cubes = N**3 / P
        squares = N**2 / P
        attention = max(
            2 * net.pair_heads * cubes / hw.exp_per_s,
            8 * net.pair_heads * net.pair_head_width * cubes / self._flop_rate(setup),
        )
        multiplication = 4 * net.token_z * cubes / self._flop_rate(setup)
        traffic = (
            hw.pair_traffic * wide * _size(setup.precision) / 2 * squares / hw.copy_bytes_per_s
        )
        busy = (attention + multiplication + traffic) * self._squeeze(N, setup)
        return busy + self._exchange(N, setup) + BLOCK_LAUNCHES * hw.launch_seconds

    def _flop_rate(self, setup: FoldShape) -> float:
        exact = setup.precision == "fp32"
        return self.hardware.flop_per_s / (self.hardware.fp32_slowdown if exact else 1.0)

    def _squeeze(self, N: int, setup: FoldShape) -> float:
        """>= 1: how much slower it goes as memory gets tight and chunks small."""
        hw = self.hardware
        least = self.hardware.pair_bytes(setup.precision) * self.architecture.token_z / 128
        room = (hw.memory - hw.reserved_gb * 1e9) / (N * N / setup.num_ranks)
        return 1 + SQUEEZE * min(1.0, (least / room) ** SQUEEZE_POWER)

    def _exchange(self, N: int, setup: FoldShape) -> float:
        """Seconds of a block's communication: one operand of each multiplication and the bias of
        each attention are gathered, and the columns of the other operand exchanged in the incoming
        one. They hide under matrix products in part, which is not counted; the columns of the
        ending attention do so wholly.
        """
        net = self.architecture
        hw = self.hardware
        P = setup.num_ranks
        if P == 1:
            return 0.0
        size = _size(setup.precision)
        nodes = math.ceil(P / hw.gpus_per_node)
        gathered = size * (2 * net.token_z + 2 * net.pair_heads) * N**2
        moved = size * net.token_z * N**2 / P
        within = (gathered + moved) * (P - 1) / P / hw.link_bytes_per_s
        between = (gathered * nodes / P + moved) * (nodes - 1) / nodes / hw.network_bytes_per_s
        return within + between

    def _msa_block(self, N: int, S: int, setup: FoldShape) -> float:
        """Seconds that the MSA module adds to a pair block: outer product mean and pair-weighted
        averaging.
        """
        net = self.architecture
        P = setup.num_ranks
        outer = 2 * net.outer_product_width**2 * (S + net.token_z) * N**2 / P
        averaging = 2 * net.averaging_heads * net.averaging_head_width * S * N**2 / P
        rows = 60 * net.msa_s**2 * S * N / P
        # These products are narrow: a third of the rate of large ones.
        return (
            3 * (outer + averaging + rows) / self._flop_rate(setup)
            + MSA_LAUNCHES * self.hardware.launch_seconds
        )

    def _diffusion(self, N: int, setup: FoldShape) -> float:
        """Seconds of all steps of all samples. Tokens are cut by rows, atoms are whole on every
        rank.
        """
        net = self.architecture
        hw = self.hardware
        model = self.config.model
        P = setup.num_ranks
        width = 2 * net.token_s
        layers = net.token_transformer_blocks
        atom_layers = net.atom_encoder_blocks + net.atom_decoder_blocks
        samples = model.samples * (PARTICLES if model.potentials else 1)
        rounds = math.ceil(model.samples / setup.parallel_samples)
        products = samples * step_flops(net, N, P)
        exps = samples * layers * net.token_heads * N**2 / P
        bias = rounds * layers * net.token_heads * _size(setup.precision) * N**2 / P
        exchange = 2 * samples * layers * _size(setup.precision) * width * N * (P - 1) / P
        step = (
            3 * products / self._flop_rate(setup)
            + exps / hw.exp_per_s
            + bias / hw.copy_bytes_per_s
            + exchange / (hw.link_bytes_per_s if hw.gpus_per_node >= P else hw.network_bytes_per_s)
            + rounds * (layers + atom_layers) * LAYER_LAUNCHES * hw.launch_seconds
        )
        return model.steps * step


def step_flops(net: Architecture, N: int, P: int) -> float:
    """Operations of a rank in one step of one sample: the matrix products between tokens and
    between atoms.
    """
    width = 2 * net.token_s
    atom_layers = net.atom_encoder_blocks + net.atom_decoder_blocks
    tokens = N / P * net.token_transformer_blocks * (36 * width**2 + 4 * width * N)
    return tokens + N * ATOMS_PER_TOKEN * atom_layers * (36 * net.atom_s**2 + 4 * net.atom_s * 128)


def _size(precision: Arithmetic) -> int:
    """Bytes of a number that streams through the arithmetic units."""
    assert precision in get_args(Arithmetic)
    return 4 if precision == "fp32" else 2
