"""One other engine, measured in a process of its own:

python -m foldcp.pipeline.bench.peers.measure_peer NAME < job.json

The job has the tokens of the predictions and the fields of a `FoldPlan`. Prints a line of JSON for
each size: tokens, seconds (of the second run, after one to warm up), peak bytes.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.config import BOLTZ2, to_hyper_parameters
from foldcp.pipeline.bench.context import peak_bytes, reset_peak_bytes
from foldcp.pipeline.bench.measurements import FoldPlan
from foldcp.pipeline.bench.peers.batch import NUM_CHARACTERS, NUM_ELEMENTS, boltz_batch
from foldcp.pipeline.bench.synthetic_features import synthetic_features

Batch = dict[str, Tensor]
Predict = Callable[[Batch], object]


def main() -> None:
    """Measure the engine that the command line names."""
    job = json.load(sys.stdin)
    plan = FoldPlan(**job["plan"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predict = {"boltz": boltz, "bioir": bioir}[sys.argv[1]](plan, device)
    for num_tokens in job["tokens"]:
        batch = boltz_batch(synthetic_features(num_tokens, plan.msa_rows), device)
        seconds = 0.0
        for _ in range(2):
            reset_peak_bytes(device)
            started = time.perf_counter()
            predict(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - started
        line = {"tokens": num_tokens, "seconds": seconds, "peak_bytes": peak_bytes(device)}
        print(json.dumps(line), flush=True)


def boltz(plan: FoldPlan, device: torch.device) -> Predict:
    """Boltz 2.2.1 as `boltz predict` runs it, in bf16 by autocast, with its kernels on a GPU."""
    options: Any = importlib.import_module("boltz.main")
    network: Any = importlib.import_module("boltz.model.models.boltz2")
    steering = asdict(options.BoltzSteeringParams())
    model = network.Boltz2(
        **_boltz_options(),
        diffusion_process_args=asdict(options.Boltz2DiffusionParams()),
        steering_args={
            name: False if isinstance(value, bool) else value for name, value in steering.items()
        },
        use_kernels=device.type == "cuda",
    )
    model.load_state_dict(_untrained())
    model.requires_grad_(False).to(device).eval()
    torch.set_float32_matmul_precision("highest")

    def predict(batch: Batch) -> object:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            return model(
                dict(batch),
                recycling_steps=plan.recycling,
                num_sampling_steps=plan.steps,
                diffusion_samples=plan.samples,
                max_parallel_samples=plan.samples,
                run_confidence_sequentially=True,
            )

    return predict


def _boltz_options() -> dict[str, Any]:
    """The released network's hyper-parameters, with those that foldcp does not read."""
    options = to_hyper_parameters(BOLTZ2)
    options["msa_args"] |= {
        "msa_dropout": 0.0,
        "z_dropout": 0.0,
        "pairwise_head_width": BOLTZ2.pair_head_width,
        "pairwise_num_heads": BOLTZ2.pair_heads,
    }
    options["pairformer_args"]["v2"] = True
    options["score_model_args"]["atom_decoder_heads"] = BOLTZ2.atom_heads
    return options | {
        "atom_feature_dim": 3 + 1 + NUM_ELEMENTS + 4 * NUM_CHARACTERS,  # position, charge, name
        "alpha_pae": 1.0,  # for the head of PAE to be there
        "training_args": SimpleNamespace(),
        "validation_args": None,
        "diffusion_loss_args": {},
    }


def bioir(plan: FoldPlan, device: torch.device) -> Predict:
    """NVIDIA's BioIR, in the configuration of its pipeline."""
    network: Any = importlib.import_module("bionemo_ir.models.boltz2")
    registry: Any = importlib.import_module("bionemo_ir.registry")
    config = network.Boltz2.get_pretrained_config("boltz-2")
    factory = registry.ModelRegistry.get_factory("boltz-2")
    config = factory.compact_confidence_config(config)
    model = network.Boltz2(config=config, include_load_weights=False)
    model.load_weights(_untrained())
    model.to(device).eval()

    def predict(batch: Batch) -> object:
        with torch.inference_mode():
            return model(
                {**batch, "has_templates": False},
                recycling_steps=plan.recycling,
                num_sampling_steps=plan.steps,
                diffusion_samples=plan.samples,
                max_parallel_samples=plan.samples,
            )

    return predict


def _untrained() -> dict[str, Tensor]:
    """The weights of foldcp's own random network, whose names are Boltz's."""
    return load("untrained:boltz2").state_dict()


if __name__ == "__main__":
    main()
