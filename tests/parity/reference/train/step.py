"""Boltz's training step under autograd: losses and gradients, and the random numbers it drew."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning
import torch
from boltz.main import Boltz2DiffusionParams
from boltz.model.loss.bfactor import bfactor_loss_fn
from boltz.model.loss.confidencev2 import confidence_loss
from boltz.model.loss.distogramv2 import distogram_loss
from boltz.model.models.boltz2 import Boltz2
from cases import TrainingCase
from saving import recorded_draws
from torch import Tensor

from train.truth import exact_distances, with_truth

SEED = 0
NO_STEERING = {
    "fk_steering": False,
    "physical_guidance_update": False,
    "contact_guidance_update": False,
}


def load_model(ckpt: Path, case: TrainingCase) -> Boltz2:
    """The network in training, with Boltz-2's dropout."""
    stored = torch.load(ckpt, map_location="cpu", weights_only=False)["hyper_parameters"]
    dropout = case.dropout
    confidence = dict(stored["confidence_model_args"])
    confidence["pairformer_args"] = {**confidence["pairformer_args"], "dropout": dropout}
    model = Boltz2.load_from_checkpoint(
        ckpt,
        strict=True,
        map_location="cpu",
        ema=False,
        use_kernels=False,
        template_args={**stored["template_args"], "dropout": dropout},
        msa_args={**stored["msa_args"], "msa_dropout": 0.6 * dropout, "z_dropout": dropout},
        pairformer_args={**stored["pairformer_args"], "dropout": dropout},
        confidence_model_args=confidence,
        diffusion_process_args=asdict(Boltz2DiffusionParams()),
        steering_args=NO_STEERING,
    )
    return model.train()


@contextmanager
def recorded_uniform() -> Iterator[list[Tensor]]:
    """The numbers that dropout drew."""
    log: list[Tensor] = []
    draw = torch.rand

    def rand(*args: Any, **kwargs: Any) -> Tensor:
        out = draw(*args, **kwargs)
        log.append(out.clone())
        return out

    with patch.object(torch, "rand", rand):
        yield log


def training(model: Boltz2, feats: dict[str, Tensor], case: TrainingCase) -> dict[str, Any]:
    """One step on an example whose truth is made up: what it drew, its losses, and the gradients of
    their sum.
    """
    feats = with_truth(feats, zlib.crc32(case.name.encode()))
    truth = {name: feats[name].clone() for name in ("coords", "atom_resolved_mask", "bfactor")}
    truth["lddt_atoms"] = feats["r_set_to_rep_atom"][0].argmax(-1)
    pytorch_lightning.seed_everything(SEED, verbose=False)
    with recorded_draws() as draws, recorded_uniform() as uniform, exact_distances():
        out = model(
            feats=feats,
            recycling_steps=case.recycling,
            num_sampling_steps=case.steps,
            multiplicity_diffusion_train=case.multiplicity,
            diffusion_samples=case.samples,
        )
        losses = _losses(model, feats, out, case)
    torch.stack(list(losses.values())).sum().backward()
    steps = 1 + 3 * case.steps
    # after the sampler: levels, quaternions, translations and noise
    level, _ = draws["randn"][steps:]
    translation, noise = draws["randn_like"]
    return {
        "truth": truth,
        "uniform": uniform,
        "sample": {
            "init_noise": draws["randn"][0],
            "rotation": torch.stack(draws["random_rotations"][: case.steps]),
            "translation": torch.stack(draws["randn"][2:steps:3]),
            "eps": torch.stack(draws["randn"][3:steps:3]),
            "coords": out["sample_atom_coords"].detach(),
        },
        "diffusion": {
            "level": level,
            "rotation": draws["random_rotations"][case.steps],
            "translation": translation,
            "noise": noise,
        },
        "losses": {name: loss.detach() for name, loss in losses.items()},
        "grad_parameters": {
            key: p.grad for key, p in model.named_parameters() if p.grad is not None
        },
    }


def _losses(
    model: Boltz2, feats: dict[str, Tensor], out: dict[str, Tensor], case: TrainingCase
) -> dict[str, Tensor]:
    """The losses by our names."""
    distogram, _ = distogram_loss(out, feats)
    diffusion = model.structure_module.compute_loss(feats, out, multiplicity=case.multiplicity)
    coords = feats["coords"][:1].repeat_interleave(case.samples, 0)
    resolved = feats["atom_resolved_mask"].repeat_interleave(case.samples, 0)
    feats["frames_idx"] = feats["frames_idx"].squeeze(1)
    feats["frame_resolved_mask"] = feats["frame_resolved_mask"].squeeze(1)
    confidence = confidence_loss(
        out,
        feats,
        coords,
        resolved,
        token_level_confidence=True,
        multiplicity=case.samples,
        alpha_pae=1.0,
    )["loss_breakdown"]
    return {
        "distogram": distogram,
        "bfactor": bfactor_loss_fn(out, feats),
        "mse": diffusion["loss_breakdown"]["mse_loss"],
        "smooth_lddt": diffusion["loss_breakdown"]["smooth_lddt_loss"],
        "plddt": confidence["plddt_loss"],
        "pde": confidence["pde_loss"],
        "resolved": confidence["resolved_loss"],
        "pae": confidence["pae_loss"],
    }
