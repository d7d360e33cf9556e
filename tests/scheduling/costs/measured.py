"""What was measured on H200s, and what the cost model says of it.

`python -m tests.scheduling.costs.measured` prints both. The figures and their dates are in
`docs/performance.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from foldcp.complex import Chain, Complex
from foldcp.config import BOLTZ2, Architecture, Precision
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.hardware import Hardware, load_hardware

H200 = load_hardware("h200")
# Before the passes over pairs had kernels in CUDA C++, and before triangle attention had.
TRITON_PASSES = replace(H200, pair_traffic=17_660)
FORMER = replace(TRITON_PASSES, exp_per_s=1.969e12)
TWO_BLOCKS = replace(BOLTZ2, pairformer_blocks=2, msa_blocks=2, confidence_blocks=2)
ANY = Complex("any", (Chain("A", "protein", "MKT"),))
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Block:
    """Milliseconds of a pair block."""

    hardware: Hardware
    num_tokens: int
    num_ranks: int
    precision: Precision
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Fold:
    """Seconds of a prediction by stage, or of all of it, and its peak memory; 0 if not measured."""

    num_tokens: int
    num_ranks: int
    precision: Precision
    samples: int
    passes: int
    msa_rows: int
    trunk: float = 0.0
    sampling: float = 0.0
    confidence: float = 0.0
    whole: float = 0.0
    peak: float = 0.0  # bytes
    net: Architecture = BOLTZ2
    steps: int = 200
    hardware: Hardware = FORMER

    def costs(self) -> CostModel:
        """The cost model with its settings."""
        settings = {
            "samples": self.samples,
            "recycling": self.passes - 1,
            "steps": self.steps,
        }
        overrides = [f"model.{name}={value}" for name, value in settings.items()]
        return CostModel(self.hardware, load(overrides=overrides), self.net)

    def task(self) -> Task:
        """The complex."""
        return Task(ANY, "", self.num_tokens, self.msa_rows)

    def shape(self) -> FoldShape:
        """The ranks and settings."""
        return FoldShape(self.num_ranks, self.precision, min(self.samples, 5), self.msa_rows)


BLOCKS = (
    Block(H200, 1024, 1, "bf16", 7.75),
    Block(H200, 2048, 1, "bf16", 45.6),
    Block(H200, 4096, 1, "bf16", 310),
    Block(H200, 2048, 1, "mixed", 49.5),
    Block(TRITON_PASSES, 512, 1, "mixed", 2.47),
    Block(TRITON_PASSES, 1024, 1, "mixed", 9.95),
    Block(TRITON_PASSES, 2048, 1, "mixed", 54.9),
    Block(TRITON_PASSES, 4096, 1, "mixed", 355),
    Block(TRITON_PASSES, 512, 1, "bf16", 1.97),
    Block(TRITON_PASSES, 1024, 1, "bf16", 8.94),
    Block(TRITON_PASSES, 2048, 1, "bf16", 50.9),
    Block(TRITON_PASSES, 4096, 1, "bf16", 337),
    Block(FORMER, 1024, 1, "bf16", 9.96),
    Block(FORMER, 2048, 1, "bf16", 59.7),
    Block(FORMER, 4096, 1, "bf16", 421),
    Block(FORMER, 2048, 2, "bf16", 33.6),
    Block(FORMER, 4096, 2, "bf16", 218),
    Block(FORMER, 2048, 2, "mixed", 36.2),
    Block(FORMER, 4096, 2, "mixed", 231),
    Block(FORMER, 4096, 4, "mixed", 128),
    Block(FORMER, 4096, 4, "bf16", 121),
    Block(FORMER, 8192, 4, "mixed", 842),
    Block(FORMER, 8192, 4, "bf16", 824),
)
FOLDS = (
    # Without the times of the sampler before 2026-11-30, whose kernels have changed since.
    Fold(512, 1, "mixed", 5, 4, 4096, 0.86, 0.0, 0.144, peak=6.68e9),
    Fold(512, 1, "bf16", 5, 4, 4096, 0.78, 0.0, 0.134, peak=6.0 * GIB),
    Fold(1024, 1, "mixed", 5, 4, 4096, 3.72, 0.0, 0.56, peak=10.8e9),
    Fold(1024, 1, "bf16", 5, 4, 4096, 3.39, 0.0, 0.53, peak=9.7 * GIB),
    Fold(2048, 1, "mixed", 5, 4, 4096, 19.6, 0.0, 3.0),
    Fold(2048, 1, "bf16", 5, 4, 4096, 18.3, 0.0, 2.8, peak=12.5 * GIB),
    Fold(4096, 1, "mixed", 1, 1, 1024, 32.2, 0.0, 3.8, 39.2),
    Fold(4096, 2, "mixed", 1, 1, 1024, 16.4, 0.0, 2.0, 20.8),
    Fold(4096, 4, "mixed", 1, 1, 1024, 9.0, whole=12.0),
    # Complexes of 2 to 4 chains in a run of 35, two GPUs folding beside each other.
    Fold(1057, 1, "mixed", 1, 1, 1, 0.88, hardware=TRITON_PASSES),
    Fold(2437, 1, "mixed", 1, 1, 1, 6.58, hardware=TRITON_PASSES),
    Fold(3058, 1, "mixed", 1, 1, 1, 11.9, hardware=TRITON_PASSES),
    Fold(4155, 1, "mixed", 1, 1, 1, 26.9, hardware=TRITON_PASSES),
    Fold(4820, 1, "mixed", 1, 1, 1, 40.7, hardware=TRITON_PASSES),
    Fold(512, 1, "mixed", 5, 4, 4096, 0.758, peak=4.93e9, hardware=H200),
    Fold(1024, 1, "mixed", 5, 4, 4096, 3.0, peak=9.26e9, hardware=H200),
    Fold(512, 1, "bf16", 5, 4, 4096, 0.61, 0.78, peak=4.4e9, hardware=H200),
    Fold(1024, 1, "bf16", 5, 4, 4096, 2.57, 1.52, 0.42, peak=7.4e9, hardware=H200),
    Fold(2048, 1, "bf16", 5, 4, 4096, 13.9, 3.36, 2.05, peak=15.1e9, hardware=H200),
    # Each rank with samples of its own; with the sampler's kernels of some hours before.
    Fold(512, 2, "bf16", 5, 4, 4096, 0.621, 0.596, peak=5.43e9, hardware=H200),
    Fold(1024, 2, "bf16", 5, 4, 4096, 1.89, 1.06, peak=7.4e9, hardware=H200),
    Fold(2048, 2, "bf16", 5, 4, 4096, 8.54, 2.29, 1.40, peak=13.0e9, hardware=H200),
    # With the first use of page-locked memory, 1 to 4 s, and of the kernels.
    Fold(12288, 2, "bf16", 1, 1, 1024, whole=59.1, peak=48.8 * GIB, net=TWO_BLOCKS, steps=3),
    Fold(
        16384, 2, "bf16-int8", 1, 1, 1024, peak=55.1 * GIB, net=TWO_BLOCKS, steps=3, hardware=H200
    ),
    Fold(26000, 4, "bf16", 1, 1, 1024, 184, 0.0, 81, 269, 102.8 * GIB, net=TWO_BLOCKS, steps=3),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is predicted beside what was measured, in one unit."""

    what: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def block_times() -> list[Comparison]:
    """Pair blocks, in milliseconds."""
    found: list[Comparison] = []
    for block in BLOCKS:
        shape = FoldShape(block.num_ranks, block.precision, 1, 1)
        seconds = CostModel(block.hardware, load()).block(block.num_tokens, shape)
        found.append(Comparison(f"block, {_label(block)}", 1e3 * seconds, block.milliseconds))
    return found


def fold_times() -> list[Comparison]:
    """Stages of predictions and whole ones, in seconds."""
    return [comparison for fold in FOLDS for comparison in _fold_times(fold)]


def _fold_times(fold: Fold) -> Iterator[Comparison]:
    seconds = fold.costs().stages(fold.task(), fold.shape())
    stages = {
        "trunk": seconds["templates"] + seconds["msa"] + seconds["trunk"],
        "sampling": seconds["diffusion"],
        "confidence": seconds["confidence"],
    }
    stages["whole"] = sum(stages.values())
    for stage, predicted in stages.items():
        if measured := getattr(fold, stage):
            yield Comparison(f"{stage}, {_label(fold)}", predicted, measured)


def peaks() -> list[Comparison]:
    """Peak memory of a rank, in GB."""
    return [
        Comparison(
            f"peak, {_label(fold)}",
            fold.costs().peak_bytes(fold.task(), fold.shape()) / 1e9,
            fold.peak / 1e9,
        )
        for fold in FOLDS
        if fold.peak
    ]


def _label(measured: Block | Fold) -> str:
    return f"{measured.num_tokens:,} tokens on {measured.num_ranks}, {measured.precision}"


def main() -> None:
    """Print all comparisons, and the median error of the times."""
    times = [*block_times(), *fold_times()]
    for found in [*times, *peaks()]:
        print(f"{found.what:45} {found.predicted:8.3g} {found.measured:8.3g} {found.ratio:6.2f}")
    error = median(abs(found.ratio - 1) for found in times)
    print(f"times: {len(times)}, median error {error:.1%}")


if __name__ == "__main__":
    main()
