"""Layout of a training run's checkpoints: that of Boltz-2's own, which Lightning writes."""

from __future__ import annotations

from collections import OrderedDict
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


# The parts of a module in the order in which Boltz makes them, where ours is another: Adam's state
# in a checkpoint is by number.
ORDER = {
    "": (
        "input_embedder", "s_init", "z_init_1", "z_init_2", "rel_pos", "token_bonds",
        "token_bonds_type", "contact_conditioning", "s_norm", "z_norm", "s_recycle", "z_recycle",
        "template_module", "msa_module", "pairformer_module", "diffusion_conditioning",
        "structure_module", "distogram_module", "bfactor_module", "confidence_module",
    ),
    "layers.#": (
        "pre_norm_s", "attention", "tri_mul_out", "tri_mul_in", "tri_att_start", "tri_att_end",
        "transition_s", "transition_z",
    ),
    "confidence_module": (
        "dist_bin_pairwise_embed", "s_to_z", "s_to_z_transpose", "s_to_z_prod_in1",
        "s_to_z_prod_in2", "s_to_z_prod_out", "s_inputs_norm", "s_norm", "z_norm", "s_input_to_s",
        "rel_pos", "token_bonds", "token_bonds_type", "contact_conditioning", "pairformer_stack",
        "confidence_heads",
    ),
}  # fmt: skip


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
    groups: Sequence[Sequence[str]]  # names of trained weights, see `decay_groups`
    num_steps: int
    num_skipped: int
    examples_per_step: int
    seed: int


def to_checkpoint(state: TrainingState, settings: TrainSettings) -> dict[str, Any]:
    """The content of a checkpoint file: dicts, lists, tensors, numbers and text only."""
    groups = [in_boltz_order(group) for group in state.groups]
    trained = [name for group in groups for name in group]
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
                    for group, decay in zip(groups, (optimizer.weight_decay, 0.0), strict=False)
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


def in_boltz_order(names: Sequence[str]) -> list[str]:
    """Names of parameters in the order in which Boltz has them; given in that of our modules."""
    numbers: dict[tuple[str, ...], int] = {}

    def key(name: str) -> list[int]:
        parts = name.split(".")
        places = []
        for depth, part in enumerate(parts):
            order = ORDER.get(_parent(parts[:depth]), ())
            path = tuple(parts[: depth + 1])
            place = numbers.setdefault(path, len(numbers))
            places.append(order.index(part) if part in order else place)
        return places

    return sorted(names, key=key)


def _parent(path: Sequence[str]) -> str:
    """What `ORDER` calls a module."""
    return "layers.#" if path[-2:-1] == ["layers"] else ".".join(path)


def hyper_parameters(architecture: Architecture, settings: TrainSettings) -> dict[str, Any]:
    """The arguments from which Boltz makes the network, and goes on training it."""
    tree = to_hyper_parameters(architecture)
    step = settings.step
    optimizer = settings.optimizer
    heads = {
        "pairwise_num_heads": architecture.pair_heads,
        "pairwise_head_width": architecture.pair_head_width,
    }
    tree["msa_args"] |= {"msa_dropout": step.msa_dropout, "z_dropout": step.pair_dropout, **heads}
    tree["template_args"] |= heads
    for layers in (tree["pairformer_args"], tree["confidence_model_args"]["pairformer_args"]):
        layers |= {"dropout": step.pair_dropout, "v2": True, **heads}
    tree["score_model_args"]["atom_decoder_heads"] = architecture.atom_heads
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
        "training_args": _with_attributes(
            {
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
            }
        ),
        "validation_args": _with_attributes(
            {
                "recycling_steps": settings.validation.recycling,
                "sampling_steps": settings.validation.sampling_steps,
                "diffusion_samples": 1,
                "symmetry_correction": True,
            }
        ),
    }


def _with_attributes(values: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A dict whose items are attributes, too: Boltz reads them in both ways. Of all classes that
    have both, this is the one that `torch.load` reads with `weights_only`.
    """
    found = OrderedDict(values)
    vars(found).update(values)
    return found


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
