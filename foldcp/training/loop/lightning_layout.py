"""Layout of a training run's checkpoints: that of Boltz-2's own, which Lightning writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foldcp.checkpoint.torch_archive import read_archive
from foldcp.config import Architecture, DiffusionProcess, to_hyper_parameters
from foldcp.training.loop.optimizer import learning_rate
from foldcp.training.loop.settings import TrainSettings

LIGHTNING_VERSION = "2.5.0"  # whose layout this is
ATOM_FEATURES = 3 + 1 + 128 + 4 * 64  # position, charge, element, name


@dataclass(frozen=True)
class TrainingState:
    """All that a training run needs to go on, on any number of ranks. Weights are by name, in fp32.

    `num_steps` steps are done, of which `num_skipped` did not change the weights.
    """

    architecture: Architecture
    weights: Mapping[str, Tensor]  # all of the network
    average: Mapping[str, Tensor]  # as `mean` and `square` of those that are trained
    mean: Mapping[str, Tensor]
    square: Mapping[str, Tensor]
    groups: Sequence[Sequence[str]]  # names of trained weights, with decay and without
    num_steps: int
    num_skipped: int
    examples_per_step: int
    seed: int


def to_checkpoint(state: TrainingState, settings: TrainSettings) -> dict[str, Any]:
    """The content of a checkpoint file: dicts, lists, tensors, numbers and text only."""
    trained = [name for group in state.groups for name in group]
    numbers = {name: number for number, name in enumerate(trained)}
    optimizer = settings.optimizer
    num_updates = torch.tensor(float(state.num_steps - state.num_skipped))
    rate = learning_rate(optimizer, state.num_steps)
    return {
        "epoch": 0,
        "global_step": state.num_steps,
        "pytorch-lightning_version": LIGHTNING_VERSION,
        "state_dict": dict(state.weights),
        "hyper_parameters": hyper_parameters(state.architecture, settings),
        "ema": {
            "cur_step": state.num_steps,
            "ema_weights": {**state.weights, **state.average},
        },
        "optimizer_states": [
            {
                "state": {
                    numbers[name]: {
                        "step": num_updates,
                        "exp_avg": state.mean[name],
                        "exp_avg_sq": state.square[name],
                    }
                    for name in trained
                },
                "param_groups": [
                    {
                        "params": [numbers[name] for name in group],
                        "lr": rate,
                        "initial_lr": optimizer.base_rate,
                        "betas": (optimizer.beta1, optimizer.beta2),
                        "eps": optimizer.epsilon,
                        "weight_decay": decay,
                        "amsgrad": False,
                        "maximize": False,
                        "foreach": None,
                        "capturable": False,
                        "differentiable": False,
                        "fused": None,
                    }
                    for group, decay in zip(
                        state.groups, (optimizer.weight_decay, 0.0), strict=True
                    )
                ],
            }
        ],
        "lr_schedulers": [
            {
                "base_lr": optimizer.base_rate,
                "max_lr": optimizer.max_rate,
                "warmup_no_steps": optimizer.warmup_steps,
                "start_decay_after_n_steps": optimizer.decay_after,
                "decay_every_n_steps": optimizer.decay_every,
                "decay_factor": optimizer.decay_factor,
                "base_lrs": [optimizer.base_rate] * len(state.groups),
                "last_epoch": state.num_steps,
                "_step_count": state.num_steps + 1,
                "_last_lr": [rate] * len(state.groups),
            }
        ],
        "foldcp": {
            "trained": trained,
            "num_skipped": state.num_skipped,
            "examples_per_step": state.examples_per_step,
            "seed": state.seed,
        },
    }


def hyper_parameters(architecture: Architecture, settings: TrainSettings) -> dict[str, Any]:
    """The arguments from which Boltz makes the network, and goes on training it."""
    tree = to_hyper_parameters(architecture)
    step = settings.step
    optimizer = settings.optimizer
    tree["msa_args"] |= {"msa_dropout": step.msa_dropout, "z_dropout": step.pair_dropout}
    for layers in (tree["pairformer_args"], tree["confidence_model_args"]["pairformer_args"]):
        layers |= {"dropout": step.pair_dropout, "v2": True}
    return tree | {
        "atom_feature_dim": ATOM_FEATURES,
        "affinity_prediction": False,
        "ema": True,
        "ema_decay": optimizer.ema,
        "alpha_pae": step.weights.pae,
        "diffusion_process_args": asdict(DiffusionProcess()),
        "diffusion_loss_args": {
            "add_smooth_lddt_loss": step.diffusion.smooth_lddt,
            "nucleotide_loss_weight": step.diffusion.nucleic_acid_weight,
            "ligand_loss_weight": step.diffusion.ligand_weight,
        },
        "no_random_recycling_training": not step.random_recycling,
        "training_args": {
            "recycling_steps": step.recycling,
            "sampling_steps": step.sampling_steps,
            "diffusion_multiplicity": step.multiplicity,
            "diffusion_samples": step.samples,
            "symmetry_correction": True,
            "diffusion_loss_weight": step.weights.diffusion,
            "distogram_loss_weight": step.weights.distogram,
            "bfactor_loss_weight": step.weights.bfactor,
            "confidence_loss_weight": step.weights.confidence,
            "adam_beta_1": optimizer.beta1,
            "adam_beta_2": optimizer.beta2,
            "adam_eps": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
            "weight_decay_exclude": True,
            "lr_scheduler": "af3",
            "base_lr": optimizer.base_rate,
            "max_lr": optimizer.max_rate,
            "lr_warmup_no_steps": optimizer.warmup_steps,
            "lr_start_decay_after_n_steps": optimizer.decay_after,
            "lr_decay_every_n_steps": optimizer.decay_every,
            "lr_decay_factor": optimizer.decay_factor,
        },
        "validation_args": {
            "recycling_steps": settings.validation.recycling,
            "sampling_steps": settings.validation.sampling_steps,
            "diffusion_samples": 1,
            "symmetry_correction": True,
        },
    }


def read_state(path: Path, architecture: Architecture) -> TrainingState:
    """The state in a checkpoint that `to_checkpoint` made; its architecture was read before.

    Raises ValueError naming the file when it is damaged, or was written by something else.
    """
    content = read_archive(path)
    try:
        about = content["foldcp"]
        (optimizer,) = content["optimizer_states"]
        states = optimizer["state"]
        numbers = {name: number for number, name in enumerate(about["trained"])}
        groups = [
            [about["trained"][number] for number in group["params"]]
            for group in optimizer["param_groups"]
        ]
        averages = content["ema"]["ema_weights"]
        return TrainingState(
            architecture=architecture,
            weights=content["state_dict"],
            average={name: averages[name] for name in numbers},
            mean={name: states[number]["exp_avg"] for name, number in numbers.items()},
            square={name: states[number]["exp_avg_sq"] for name, number in numbers.items()},
            groups=groups,
            num_steps=content["global_step"],
            num_skipped=about["num_skipped"],
            examples_per_step=about["examples_per_step"],
            seed=about["seed"],
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path}: not a checkpoint of `foldcp train` ({type(error).__name__}: {error}); to "
            "fine-tune it, name it as model.init"
        ) from None
