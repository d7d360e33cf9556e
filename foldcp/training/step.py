"""Training step: the losses of one example on the ranks of a group, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from foldcp.features.features import Features
from foldcp.geometry import Coords
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.conditioning import DiffusionConditioningOutput
from foldcp.model.layers.blocks import RunBlock, run_block
from foldcp.training.confidence import confidence_losses
from foldcp.training.example import TrainingExample, Truth
from foldcp.training.forward import Dropout, TrainedTrunk, denoise, sample, train_trunk
from foldcp.training.gradients import reduce_gradients
from foldcp.training.losses.bfactor import bfactor_loss
from foldcp.training.losses.diffusion import (
    conformer_of_sample,
    mse_loss,
    noise_levels,
    smooth_lddt_loss,
)
from foldcp.training.losses.distogram import distogram_loss
from foldcp.training.losses.partial import total
from foldcp.training.randomness import GeneratedRandomness, Randomness
from foldcp.training.settings import Checkpointing, TrainingSettings


@dataclass(frozen=True)
class Losses:
    """The losses of one example: each by its name, and their weighted sum `loss`; 0-dimensional,
    without gradients, equal on every rank.
    """

    loss: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def training_step(
    model: Boltz2,
    example: TrainingExample,
    settings: TrainingSettings,
    generator: torch.Generator,
    reduce: bool = True,
) -> Losses:
    """Add the gradients of an example's loss to those of the parameters that require them.

    Collective, with equal arguments on all ranks of `model.cp`; the generator, on the CPU, is in
    the same state on each. `reduce` adds up the ranks' gradients (`reduce_gradients`), which only
    the last of several accumulated examples does. The result depends on the number of ranks by
    rounding only. Raises ValueError when the score network computes in bf16.
    """
    device = next(model.parameters()).device
    own, losses = training_losses(
        model, example.to(device), settings, GeneratedRandomness(generator, device)
    )
    own.backward()
    if reduce:
        reduce_gradients(model.parameters(), model.cp)
    return losses


def training_losses(
    model: Boltz2,
    example: TrainingExample,
    settings: TrainingSettings,
    randomness: Randomness,
) -> tuple[Float[Tensor, ""], Losses]:
    """This rank's part of the loss, with gradients, and the losses. Collective."""
    cp = model.cp
    if model.structure_module.score_model.token_transformer.dtype == torch.bfloat16:
        raise ValueError(
            "the score network computes in bf16; to train, load the network with sampling='fp32'"
        )
    example = example.pad(cp.size)
    model.budget.resize(example.features.token_mask.device, cp)
    weights = settings.weights
    parts = _all_losses(model, example, settings, randomness)
    weight_of = {
        "mse": weights.diffusion,
        "smooth_lddt": weights.diffusion,
        "distogram": weights.distogram,
        "bfactor": weights.bfactor,
        "plddt": weights.confidence,
        "pde": weights.confidence,
        "resolved": weights.confidence,
        "pae": weights.confidence * weights.pae,
    }
    own = torch.stack([weight_of[name] * part for name, part in parts.items()]).sum()
    reported = total(cp, torch.stack([own, *parts.values()])).unbind()
    return own, Losses(reported[0], dict(zip(parts, reported[1:], strict=True)))


def _all_losses(
    model: Boltz2,
    example: TrainingExample,
    settings: TrainingSettings,
    randomness: Randomness,
) -> dict[str, Float[Tensor, ""]]:
    """This rank's parts of the losses that have a weight."""
    features = example.features
    structure = settings.weights.train_structure
    run = block_runner(settings.checkpointing)
    dropout = Dropout(randomness, features, settings)
    recycling = settings.recycling
    if settings.random_recycling:
        recycling = randomness.recycling(recycling)
    parts = {}
    with torch.set_grad_enabled(structure and torch.is_grad_enabled()):
        trunk = train_trunk(model, features, recycling, dropout, run)
        if structure:
            parts = _trunk_losses(model, trunk, example)
        conditioning = run(model.diffusion_conditioning, trunk.s, trunk.z, model.rel_pos, features)
    # The sampler draws before the diffusion loss, as in Boltz.
    coords = None
    if settings.weights.train_confidence:
        coords = sample(model, trunk, conditioning, features, settings, randomness)
        conditioning.restore_z()
    if structure:
        parts |= _diffusion_losses(model, trunk, conditioning, example, settings, randomness, run)
    if coords is not None:
        parts |= confidence_losses(model, trunk, coords, example, dropout, run)
    return parts


def _trunk_losses(
    model: Boltz2, trunk: TrainedTrunk, example: TrainingExample
) -> dict[str, Float[Tensor, ""]]:
    features = example.features
    truth = example.truth
    head = model.distogram_module.distogram
    parts = {
        "distogram": distogram_loss(head, trunk.z, truth, features, model.cp, model.budget),
    }
    if model.architecture.predict_bfactor:
        logits = model.bfactor(trunk.own_s)
        parts["bfactor"] = bfactor_loss(logits, truth, features, model.cp)
    return parts


def _diffusion_losses(
    model: Boltz2,
    trunk: TrainedTrunk,
    conditioning: DiffusionConditioningOutput,
    example: TrainingExample,
    settings: TrainingSettings,
    randomness: Randomness,
    run: RunBlock,
) -> dict[str, Float[Tensor, ""]]:
    features = example.features
    truth = example.truth
    sigma_data = model.structure_module.sigma_data
    M = settings.multiplicity
    drawn = randomness.diffusion(M, features.num_atoms)
    sigmas = noise_levels(drawn.level, sigma_data, settings.diffusion)
    target = _moved(truth, features, drawn.rotation, drawn.translation)
    noisy = target + sigmas[:, None, None] * drawn.noise
    denoised = denoise(model, noisy, sigmas, trunk, conditioning, features, run)
    constants = settings.diffusion
    cp = model.cp
    parts = {"mse": mse_loss(denoised, target, sigmas, sigma_data, truth, features, constants, cp)}
    if constants.smooth_lddt:
        parts["smooth_lddt"] = smooth_lddt_loss(
            denoised, truth, features, constants, cp, model.budget
        )
    return parts


def _moved(
    truth: Truth,
    features: Features,
    rotation: Float[Tensor, "M 3 3"],
    translation: Float[Tensor, "M 1 3"],
) -> Coords:
    """The true structure for each sample, centred and randomly moved: AlphaFold 3, algorithm 19.

    As in Boltz, the centre is that of all atoms, of which those that are not resolved are at 0.
    """
    conformers = conformer_of_sample(len(truth.conformers), len(rotation), rotation.device)
    coords = truth.conformers[conformers]
    mask = features.atom_mask[:, None]
    center = (coords * mask).sum(1, keepdim=True) / mask.sum()
    return (coords - center) @ rotation + translation


def block_runner(checkpointing: Checkpointing) -> RunBlock:
    """How the blocks of layers run: at once; checkpointed, so that only a block's inputs are kept
    for its gradient and it is computed again; or with these inputs in host memory.
    """
    if checkpointing == "none":
        return run_block

    def checkpointed(block: Callable[..., Any], *args: Any) -> Any:
        return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)

    if checkpointing == "blocks":
        return checkpointed

    def offloaded(block: Callable[..., Any], *args: Any) -> Any:
        with save_on_cpu(pin_memory=torch.cuda.is_available()):
            return checkpointed(block, *args)

    return offloaded
