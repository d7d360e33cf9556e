"""What precision bf16-int8 saves, and what it costs, beside bf16.

    python docs/scripts/bench_int8.py memory 12288
    torchrun --nproc_per_node 4 docs/scripts/bench_int8.py memory 26000 --samples 2
    python docs/scripts/bench_int8.py error

`memory` prints the peak of each stage of a prediction in bytes a pair of tokens, times the number
of GPUs, with random weights of Boltz-2's sizes and two blocks in each stack. `error` prints how far
predictions of the network that comes with foldcp are from those in fp32, on a CPU, and what would
happen if the pair representation itself were kept in 8 bits.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args
from unittest.mock import patch

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.checkpoint.load import Weights, build, load
from foldcp.complex import Chain, Complex
from foldcp.config import BOLTZ2, Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.kernels.dispatch import choose_backend
from foldcp.kernels.quantization import Int8Pairs, Quantization
from foldcp.model.trunk.pairformer import PairBlock
from foldcp.pipeline.bench.context import SCALES, BenchContext
from foldcp.pipeline.bench.measure import StagePeaks
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from foldcp.pipeline.fetch import find_weights
from foldcp.predict import Prediction, Settings, fold, run_trunk
from foldcp.progress import no_progress

PRECISIONS: tuple[Precision, ...] = ("bf16", "bf16-int8")
TWO_BLOCKS = replace(
    BOLTZ2,
    template_blocks=2,
    msa_blocks=2,
    pairformer_blocks=2,
    confidence_blocks=2,
)
MSA_ROWS = 1024
# Proteins that the network was trained on: PDB entries 1ejg and 1hf9 (two chains).
CRAMBIN = "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN"
INHIBITOR = "ALKKHHENEISHHAKEIERLQKEIERHKQSIKKLKQSEDDD"
COMPLEXES = {
    "1ejg": [CRAMBIN],
    "1hf9": [INHIBITOR] * 2,
    "both, and more": [CRAMBIN, INHIBITOR, CRAMBIN + INHIBITOR, INHIBITOR],
}


def measure_memory(sizes: Sequence[int], precisions: Sequence[Precision], samples: int) -> None:
    """One line a size and precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    cp = ContextParallel.init(rank, size, "env://", device)
    backend = choose_backend("auto", device)
    weights = Weights("random weights", TWO_BLOCKS, None)
    for precision in precisions:
        model = build(weights, device, backend, precision, None, cp, 0)
        for num_tokens in sizes:
            features = synthetic_features(num_tokens, MSA_ROWS)
            settings = Settings(recycling=1, steps=3, samples=samples, precision=precision)
            peaks = StagePeaks(BenchContext(cp, device, SCALES[device.type]))
            prediction = fold(model, features, settings, peaks)
            if rank == 0:
                print_memory(num_tokens, size, precision, peaks.peak_bytes, prediction)
        del model
    cp.destroy()


def print_memory(
    num_tokens: int,
    size: int,
    precision: Precision,
    peak_bytes: dict[str, int],
    prediction: Prediction,
) -> None:
    """Bytes a pair times the number of GPUs, and seconds."""
    pairs = num_tokens**2 / size
    largest = max(peak_bytes.values())
    stages = ", ".join(
        f"{stage} {peak / pairs:.0f} ({prediction.seconds[stage]:.1f} s)"
        for stage, peak in peak_bytes.items()
    )
    print(
        f"{num_tokens:,} tokens on {size}, {precision}: {largest / pairs:.0f} B a pair and P, "
        f"{largest / 2**30:.1f} GiB; {stages}",
        flush=True,
    )


@dataclass(frozen=True)
class Outcome:
    """Of a complex in one precision."""

    s: Float[Tensor, "N S"]
    z: Float[Tensor, "N N Z"]
    prediction: Prediction


def outcome(features: Features, precision: Precision) -> Outcome:
    """With two passes, twenty steps and one sample."""
    model = load(find_weights("demo"), precision=precision)
    settings = Settings(recycling=1, steps=20, seed=3, precision=precision, keep_pairs=True)
    with torch.inference_mode():
        trunk = run_trunk(model, features, settings, no_progress)
    return Outcome(trunk.s, trunk.z.float(), fold(model, features, settings))


def measure_error() -> None:
    """One line a complex and precision."""
    for name, sequences in COMPLEXES.items():
        chains = tuple(Chain(f"{n}", "protein", sequence) for n, sequence in enumerate(sequences))
        features = featurize(Complex(name, chains), seed=3)
        exact = outcome(features, "fp32")
        for precision in PRECISIONS:
            print_errors(name, precision, outcome(features, precision), exact)
        with patch.object(PairBlock, "forward", block_in_8_bits):
            print_errors(name, "pairs in 8 bits", outcome(features, "bf16"), exact)


def block_in_8_bits(
    block: PairBlock, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"], scales: None = None
) -> Float[Tensor, "I N C"]:
    """A pair block whose pairs are rounded to 8 bits after each update, 64 channels with one scale
    or all, if they are fewer.
    """
    for update in (block.tri_mul_out, block.tri_mul_in, block.tri_att_start, block.tri_att_end):
        round_(update(z, mask))
    return round_(block.transition_z.add_to(z, block.budget))


def round_(z: Float[Tensor, "I N C"]) -> Float[Tensor, "I N C"]:
    """z, rounded to 8 bits in place."""
    I, N, C = z.shape
    rounded = Int8Pairs.empty(I, N, C, z.device)
    Quantization().write(z, rounded)
    return z.copy_(Quantization().read(rounded, z.dtype))


def print_errors(name: str, what: str, got: Outcome, exact: Outcome) -> None:
    """Relative errors of s and z after the trunk, and mean ones of the structure and scores."""
    ours, theirs = got.prediction, exact.prediction
    moved = np.abs(distances(ours) - distances(theirs)).mean()
    plddt = np.abs(ours.plddt - theirs.plddt).max()
    pae = np.abs(ours.pae[0] - theirs.pae[0]).mean()
    print(
        f"{name}, {what}: s {relative(got.s, exact.s):.4f}, z {relative(got.z, exact.z):.4f}, "
        f"distances of CA {moved:.3f} Å, pLDDT {plddt:.1e}, PAE {pae:.3f} Å, "
        f"pTM {ours.scores[0].ptm - theirs.scores[0].ptm:+.4f}",
        flush=True,
    )


def relative(got: Tensor, exact: Tensor) -> float:
    """The norm of the difference over that of the exact one."""
    return float((got.double() - exact.double()).norm() / exact.double().norm())


def distances(prediction: Prediction) -> Float[np.ndarray, "T T"]:
    """Between CA atoms in Å."""
    chosen = np.array(prediction.layout.atom_name) == "CA"
    points = prediction.coords[0][chosen]
    return np.linalg.norm(points[:, None] - points, axis=-1)


def main() -> None:
    """The measurement of the command line."""
    parser = argparse.ArgumentParser(description="Memory and error of bf16-int8.")
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory")
    memory.add_argument("sizes", type=int, nargs="+", help="tokens")
    memory.add_argument("--precision", nargs="+", choices=get_args(Precision), default=PRECISIONS)
    memory.add_argument("--samples", type=int, default=1)
    commands.add_parser("error")
    options = parser.parse_args()
    if options.command == "memory":
        measure_memory(options.sizes, options.precision, options.samples)
    else:
        torch.set_num_threads(1)
        measure_error()


if __name__ == "__main__":
    main()
