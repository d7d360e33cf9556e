"""A prediction by Boltz on the CPU in fp32, with what goes in and out of its modules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from boltz.main import Boltz2DiffusionParams, BoltzSteeringParams
from boltz.model.models.boltz2 import Boltz2
from cases import NOISE_LEVELS, Case
from saving import in_and_out, recorded_calls, recorded_draws
from torch import Tensor

SEED = 0
# Always needed to take the network apart; the parts of z_init are added up there and have no module
# of their own.
STAGES = {"input_embedder", "diffusion_conditioning"}
INITIAL = (
    "z_init_1",
    "z_init_2",
    "rel_pos",
    "token_bonds",
    "token_bonds_type",
    "contact_conditioning",
)
BLOCK = (
    "tri_mul_out",
    "tri_mul_in",
    "tri_att_start",
    "tri_att_end",
    "transition_z",
    "attention",
    "transition_s",
)
MODULES = STAGES | {
    "input_embedder.atom_encoder",
    "input_embedder.atom_attention_encoder",
    "template_module",
    "msa_module",
    "msa_module.layers.0",
    "msa_module.layers.0.pair_weighted_averaging",
    "msa_module.layers.0.msa_transition",
    "msa_module.layers.0.outer_product_mean",
    "pairformer_module.layers.0",
    *(f"pairformer_module.layers.0.{part}" for part in BLOCK),
    "diffusion_conditioning.pairwise_conditioner",
    "structure_module.score_model",
    "structure_module.score_model.single_conditioner",
    "structure_module.score_model.atom_attention_encoder",
    "structure_module.score_model.token_transformer",
    "structure_module.score_model.atom_attention_decoder",
}
CONFIDENCE = (
    "plddt_logits",
    "pae_logits",
    "pde_logits",
    "resolved_logits",
    "plddt",
    "pae",
    "pde",
    "ptm",
    "iptm",
    "ligand_iptm",
    "protein_iptm",
    "complex_plddt",
    "complex_iplddt",
    "complex_pde",
    "complex_ipde",
)


def load_model(ckpt: Path, case: Case) -> Boltz2:
    """As `boltz predict` loads it, but for the sizes, which are the file's, and the fused
    kernels, which are off.
    """
    stored = torch.load(ckpt, map_location="cpu", weights_only=False)["hyper_parameters"]
    msa = {
        **stored["msa_args"],
        "subsample_msa": case.subsample > 0,
        "num_subsampled_msa": case.subsample or 1024,
    }
    predict = {
        "recycling_steps": case.recycling,
        "sampling_steps": case.steps,
        "diffusion_samples": case.samples,
        "max_parallel_samples": 5,
        "write_confidence_summary": True,
        "write_full_pae": True,
        "write_full_pde": True,
    }
    model = Boltz2.load_from_checkpoint(
        ckpt,
        strict=True,
        map_location="cpu",
        predict_args=predict,
        ema=False,
        use_kernels=False,
        msa_args=msa,
        diffusion_process_args=asdict(Boltz2DiffusionParams()),
        steering_args=asdict(BoltzSteeringParams()),
    )
    return model.eval()


@contextmanager
def whole_outputs(model: Boltz2) -> Iterator[list[dict[str, Any]]]:
    """The dictionary that the forward pass returns, which `predict_step` hands on in part."""
    kept: list[dict[str, Any]] = []
    handle = model.register_forward_hook(lambda module, args, out: kept.append(out))
    yield kept
    handle.remove()


def predict(model: Boltz2, feats: dict[str, Tensor], case: Case) -> dict[str, Any]:
    """Every stage of a prediction, and the random numbers that it drew."""
    names = set(INITIAL) | (MODULES if case.modules else STAGES)
    pytorch_lightning.seed_everything(SEED, verbose=False)
    with (
        recorded_calls(model, names, in_and_out) as calls,
        whole_outputs(model) as outs,
        recorded_draws() as draws,
    ):
        output = model.predict_step(dict(feats), 0)
    out = outs[0]
    assert not output["exception"]
    s_inputs = calls["input_embedder"]["out"][0]
    conditioning = dict(
        zip(
            ("q", "c", "encoder_bias", "decoder_bias", "token_bias"),
            calls["diffusion_conditioning"]["out"],
            strict=True,
        )
    )
    pairs = out["pair_chains_iptm"]
    iptm = torch.stack(
        [torch.stack([pairs[i][j] for j in sorted(pairs)], -1) for i in sorted(pairs)],
        -2,
    )
    return {
        "s_inputs": s_inputs,
        "z_init": initial_pairs(calls),
        "s": out["s"],
        "z": out["z"],
        "pdistogram": out["pdistogram"],
        "pbfactor": out["pbfactor"],
        "conditioning": conditioning,
        "scores": denoised(model, feats, s_inputs, out["s"], conditioning) if case.modules else [],
        "sample": sampling(model, draws, case) | {"coords": out["sample_atom_coords"]},
        "confidence": {name: out[name] for name in CONFIDENCE}
        | {"confidence_score": output["confidence_score"], "pair_chains_iptm": iptm},
        "calls": {name: call for name, call in calls.items() if name in MODULES},
        "msa_rows": [drawn[: case.subsample] for drawn in draws["randperm"]],
    }


def initial_pairs(calls: dict[str, dict[str, Any]]) -> Tensor:
    """z before the first pass, as Boltz adds it up."""
    of_i, of_j, *rest = (calls[name]["out"][0] for name in INITIAL)
    return sum(rest, of_i[:, :, None] + of_j[:, None])


def sampling(model: Boltz2, draws: dict[str, list[Tensor]], case: Case) -> dict[str, Tensor]:
    """The draws of the sampler: its first noise, then a quaternion, a translation and a noise at
    each step.
    """
    assert len(draws["randn"]) == 1 + 3 * case.steps
    return {
        "sigmas": model.structure_module.sample_schedule(case.steps),
        "init_noise": draws["randn"][0],
        "rotation": torch.stack(draws["random_rotations"]),
        "translation": torch.stack(draws["randn"][2::3]),
        "eps": torch.stack(draws["randn"][3::3]),
    }


def keys_of(feats: dict[str, Tensor], model: Boltz2) -> Any:
    """Boltz's function from atoms to the keys of their windows."""
    return model.input_embedder.atom_encoder(feats)[3]


def denoised(
    model: Boltz2,
    feats: dict[str, Tensor],
    s_inputs: Tensor,
    s: Tensor,
    conditioning: dict[str, Tensor],
) -> list[dict[str, Any]]:
    """The score network on noise of several levels."""
    names = {
        "encoder_bias": "atom_enc_bias",
        "decoder_bias": "atom_dec_bias",
        "token_bias": "token_trans_bias",
    }
    output = {names.get(name, name): x for name, x in conditioning.items()} | {
        "to_keys": keys_of(feats, model)
    }
    kwargs = {
        "s_inputs": s_inputs,
        "s_trunk": s,
        "feats": feats,
        "multiplicity": 1,
        "diffusion_conditioning": output,
    }
    generator = torch.Generator().manual_seed(1234)
    kept = []
    for sigma in NOISE_LEVELS:
        x = torch.randn((1, feats["atom_pad_mask"].shape[1], 3), generator=generator) * math.hypot(
            sigma, 16
        )
        out = model.structure_module.preconditioned_network_forward(
            x, sigma, network_condition_kwargs=kwargs
        )
        kept.append({"sigma": sigma, "x": x, "out": out})
    return kept
