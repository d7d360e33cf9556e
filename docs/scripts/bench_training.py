"""Seconds and peak memory of a training step, by the size of the crop and the number of GPUs.

    python docs/scripts/bench_training.py 384 768
    torchrun --nproc_per_node 4 docs/scripts/bench_training.py 1536 2048 --out training.json

A network of Boltz-2's sizes with random weights, a synthetic complex with a random structure: the
structure stage with the defaults of `foldcp train` (multiplicity 16, dropout), so many passes of
the trunk as `--recycling` says and one more, of which the last has gradients. A step is the
gradients of one example and the update of the weights. The first step of a size, which compiles
kernels, is not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from foldcp.config import Architecture
from foldcp.distributed.mesh import Mesh
from foldcp.pipeline.bench.context import peak_bytes, reset_peak_bytes
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from foldcp.pipeline.fold_one import TorchrunRank
from foldcp.training.example import TrainingExample, Truth, lddt_atoms
from foldcp.training.loop.network import Network, make_network
from foldcp.training.loop.settings import ModelSettings, TrainSettings
from foldcp.training.settings import Checkpointing, TrainingSettings
from foldcp.training.step import training_step


def example_of(num_tokens: int, rows: int) -> TrainingExample:
    """A synthetic complex whose structure is a random walk."""
    features = synthetic_features(num_tokens, rows)
    generator = torch.Generator().manual_seed(1)
    walk = torch.randn((1, features.num_atoms, 3), generator=generator).cumsum(1)
    resolved = features.atom_mask.clone()
    truth = Truth(
        conformers=walk * resolved[:, None],
        resolved=resolved,
        bfactors=20 * resolved,
        lddt_atoms=lddt_atoms(features, resolved),
    )
    return TrainingExample(features, truth, f"{num_tokens} tokens").centered()


def step(network: Network, example: TrainingExample, settings: TrainSettings, seed: int) -> float:
    """One update of the weights; the loss."""
    generator = torch.Generator().manual_seed(seed)
    network.flat.clear_gradients()
    losses = training_step(network.model, example, settings.step, generator, reduce=False)
    network.flat.collect_gradients()
    norm = network.optimizer.reduce(1)
    network.optimizer.step(norm, seed)
    return float(losses.loss)


def measure(
    network: Network, num_tokens: int, options: argparse.Namespace, settings: TrainSettings
) -> dict[str, float | int | str]:
    """The median step of one size, and its peak memory on the first rank."""
    device = next(network.model.parameters()).device
    example = example_of(num_tokens, options.rows).to(device)
    loss = step(network, example, settings, 0)
    reset_peak_bytes(device)
    seconds = []
    for index in range(1, options.repeat + 1):
        started = time.perf_counter()
        loss = step(network, example, settings, index)  # waits for the device
        seconds.append(time.perf_counter() - started)
    found = sorted(seconds)[options.repeat // 2]
    return {
        "tokens": num_tokens,
        "ranks": network.model.cp.size,
        "seconds": found,
        "peak_bytes": peak_bytes(device),
        "loss": loss,
    }


def main() -> None:
    """The sizes of the command line, in their order; the first that does not fit ends the run."""
    parser = argparse.ArgumentParser(description="Seconds and memory of a training step.")
    parser.add_argument("sizes", type=int, nargs="+", help="tokens of a crop")
    parser.add_argument("--recycling", type=int, default=1, help="passes before the last")
    parser.add_argument("--rows", type=int, default=1024, help="of the alignment")
    parser.add_argument("--multiplicity", type=int, default=16)
    parser.add_argument("--checkpointing", choices=["none", "blocks", "offload"], default="blocks")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the script")
    parser.add_argument("--out", type=Path, help="JSON lines")
    options = parser.parse_args()
    ranks = TorchrunRank.from_environment()
    rank, size = ranks.rank, ranks.size
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", ranks.local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = options.precision != "fp32"
    checkpointing: Checkpointing = options.checkpointing
    settings = TrainSettings(
        model=ModelSettings(
            init="untrained:tiny" if options.tiny else "",
            architecture=Architecture(),
        ),
        step=TrainingSettings(
            recycling=options.recycling,
            random_recycling=False,
            multiplicity=options.multiplicity,
            checkpointing=checkpointing,
            weights=dataclasses.replace(TrainingSettings().weights, confidence=0.0),
        ),
        precision=options.precision,
        examples_per_step=1,
        context_parallel=size,
    )
    mesh = Mesh.init(rank, size, size, "env://", device)
    network = make_network(settings, Path("not-a-run"), mesh)
    for num_tokens in options.sizes:
        try:
            found = measure(network, num_tokens, options, settings)
        except torch.OutOfMemoryError as error:
            print(f"{num_tokens} tokens on {size}: {error}", flush=True)
            break
        if rank:
            continue
        print(json.dumps(found), flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
    mesh.destroy()


if __name__ == "__main__":
    main()
