"""A Lightning checkpoint of Boltz-2's own class: the released options, small sizes, every parameter
random.

usage: python make_checkpoint.py OUT.ckpt tiny|real|averaged

`real` has the released widths and few layers. `averaged` is tiny, with what Boltz's callback keeps
of the weights in training, and with options as OmegaConf objects.
"""

from __future__ import annotations

import math
import sys
import zlib
from dataclasses import asdict
from typing import Any

import torch
from boltz.main import Boltz2DiffusionParams
from boltz.model.models.boltz2 import Boltz2
from boltz.model.optim.ema import EMA
from omegaconf import OmegaConf
from torch import Tensor, nn

TINY = {
    "atom_s": 16,
    "atom_z": 8,
    "token_s": 32,
    "token_z": 16,
    "msa_s": 16,
    "heads": 4,
    "atom_heads": 2,
    "fourier": 32,
    "template_dim": 16,
    "template_blocks": 2,
    "msa_blocks": 2,
    "pairformer_blocks": 2,
    "confidence_blocks": 2,
    "atom_depth": 2,
    "token_depth": 2,
}
REAL = {
    "atom_s": 128,
    "atom_z": 16,
    "token_s": 384,
    "token_z": 128,
    "msa_s": 64,
    "heads": 16,
    "atom_heads": 4,
    "fourier": 256,
    "template_dim": 64,
    "template_blocks": 1,
    "msa_blocks": 1,
    "pairformer_blocks": 2,
    "confidence_blocks": 1,
    "atom_depth": 3,
    "token_depth": 2,
}
SIZES = {"tiny": TINY, "real": REAL, "averaged": TINY}


def hyper_parameters(size: str) -> dict[str, Any]:
    """The options of the released file, but for the sizes; atom_feature_dim: position, charge,
    element, name.
    """
    z = SIZES[size]
    layers = {"num_heads": z["heads"], "dropout": 0.0}
    return {
        "atom_s": z["atom_s"],
        "atom_z": z["atom_z"],
        "token_s": z["token_s"],
        "token_z": z["token_z"],
        "num_bins": 64,
        "atom_feature_dim": 3 + 1 + 128 + 4 * 64,
        "atoms_per_window_queries": 32,
        "atoms_per_window_keys": 128,
        "use_no_atom_char": False,
        "use_atom_backbone_feat": False,
        "use_residue_feats_atoms": False,
        "fix_sym_check": True,
        "cyclic_pos_enc": True,
        "bond_type_feature": True,
        "predict_bfactor": True,
        "conditioning_cutoff_min": 4.0,
        "conditioning_cutoff_max": 20.0,
        "use_templates": True,
        "use_templates_v2": True,
        "template_args": {
            "template_dim": z["template_dim"],
            "template_blocks": z["template_blocks"],
        },
        "embedder_args": {
            "atom_encoder_depth": z["atom_depth"],
            "atom_encoder_heads": z["atom_heads"],
            "add_mol_type_feat": True,
            "add_method_conditioning": True,
            "add_modified_flag": True,
            "add_cyclic_flag": True,
        },
        "msa_args": {
            "msa_s": z["msa_s"],
            "msa_blocks": z["msa_blocks"],
            "msa_dropout": 0.0,
            "z_dropout": 0.0,
            "use_paired_feature": True,
            "pairwise_head_width": 32,
            "pairwise_num_heads": 4,
            "subsample_msa": False,
            "num_subsampled_msa": 1024,
        },
        "pairformer_args": {"num_blocks": z["pairformer_blocks"], "v2": True, **layers},
        "score_model_args": {
            "sigma_data": 16,
            "dim_fourier": z["fourier"],
            "atom_encoder_depth": z["atom_depth"],
            "atom_encoder_heads": z["atom_heads"],
            "token_transformer_depth": z["token_depth"],
            "token_transformer_heads": z["heads"],
            "atom_decoder_depth": z["atom_depth"],
            "atom_decoder_heads": z["atom_heads"],
            "conditioning_transition_layers": 2,
            "transformer_post_ln": False,
        },
        "diffusion_process_args": asdict(Boltz2DiffusionParams()),
        "diffusion_loss_args": {},
        "confidence_prediction": True,
        "token_level_confidence": True,
        "alpha_pae": 1.0,
        "confidence_model_args": {
            "num_dist_bins": 64,
            "max_dist": 22,
            "add_s_to_z_prod": True,
            "add_s_input_to_s": True,
            "add_z_input_to_z": True,
            "pairformer_args": {"num_blocks": z["confidence_blocks"], **layers},
            "confidence_args": {
                "num_plddt_bins": 50,
                "num_pde_bins": 64,
                "num_pae_bins": 64,
                "use_separate_heads": True,
            },
        },
        "affinity_prediction": False,
        "ema": False,
        # Boltz reads these four as attributes.
        "training_args": OmegaConf.create(
            {"max_lr": 1e-3, "weight_decay": 0.0, "diffusion_multiplicity": 1, "recycling_steps": 3}
        ),
        "validation_args": OmegaConf.create({}),
    }


# Layers fed with one-hot or few-valued inputs: scaled by the number of ones, not by the width.
FAN_IN = {
    "embed_atom_features": 12,
    "rel_pos.linear_layer": 4,
    "res_type_encoding": 2,
    "msa_profile_encoding": 4,
    "msa_proj": 2,
    "a_proj": 6,
    "token_bonds": 1,
    "embed_atompair_ref_pos": 30,
    "r_to_q_trans": 3,
}
HEADS = (
    "distogram_module",
    "bfactor_module",
    "confidence_module.confidence_heads",
)  # their softmaxes stay soft


def drawn(prefix: str, leaf: str, module: nn.Module, p: Tensor) -> Tensor:
    """A tensor from a generator of its own, seeded by its name."""
    noise = torch.randn(
        p.shape,
        generator=torch.Generator().manual_seed(zlib.crc32(f"{prefix}.{leaf}".encode())),
    )
    if "fourier_embed" in prefix and prefix.endswith(".proj"):
        return noise
    if isinstance(module, nn.LayerNorm):
        return 0.2 * noise + (leaf == "weight")
    if isinstance(module, nn.Linear) and leaf == "weight":
        fan_in = next((ones for name, ones in FAN_IN.items() if prefix.endswith(name)), p.shape[1])
        return noise * (0.3 if prefix.startswith(HEADS) else 1.0) / math.sqrt(fan_in)
    return 0.5 * noise


def random_network(size: str) -> tuple[Boltz2, dict[str, Any]]:
    hparams = hyper_parameters(size)
    model = Boltz2(**hparams)
    with torch.no_grad():
        for prefix, module in model.named_modules():
            for leaf, p in module.named_parameters(recurse=False):
                p.copy_(drawn(prefix, leaf, module, p))
    assert all(p.std() > 0 for p in model.parameters()), "a parameter was left constant"
    return model, hparams


def as_trained(model: Boltz2, hparams: dict[str, Any]) -> dict[str, Any]:
    """The averaged weights as Boltz's callback stores them, options as OmegaConf objects."""
    average = EMA()
    average._ema_weights = {name: weight * 1.25 for name, weight in model.state_dict().items()}
    average._cur_step = 7
    checkpoint: dict[str, Any] = {
        "hyper_parameters": {
            name: OmegaConf.create(value) if isinstance(value, dict) else value
            for name, value in hparams.items()
        },
    }
    average.on_save_checkpoint(None, model, checkpoint)
    return checkpoint


if __name__ == "__main__":
    out, size = sys.argv[1:]
    model, hparams = random_network(size)
    checkpoint = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 0,
        "global_step": 0,
        "state_dict": model.state_dict(),
        "hyper_parameters": hparams,
    }
    if size == "averaged":
        checkpoint.update(as_trained(model, hparams))
    torch.save(checkpoint, out)
    loaded = Boltz2.load_from_checkpoint(out, strict=True, map_location="cpu").state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.state_dict().items())
