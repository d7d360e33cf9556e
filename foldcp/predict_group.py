"""Prediction of several small complexes whose structures are sampled together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foldcp.features.features import Features
from foldcp.model.boltz2 import Boltz2, TrunkOutput
from foldcp.model.diffusion.noise import PackedNoise
from foldcp.model.diffusion.packing import atoms_of_each, packed
from foldcp.model.diffusion.score_model import DenoiserCache
from foldcp.model.layers.transformer import Modulator
from foldcp.predict import (
    GPU_MULTIPLE,
    Prediction,
    Settings,
    finished,
    run_trunk,
    sample_batches,
    score,
)
from foldcp.progress import Progress, ProgressCounter, StageTimer, no_progress


@dataclass(frozen=True)
class _Folded:
    """A complex after its trunk."""

    features: Features  # padded
    trunk: TrunkOutput
    cache: DenoiserCache
    timer: StageTimer


def fold_group(
    model: Boltz2,
    group: Sequence[Features],
    settings: Settings,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Fold complexes on one GPU, each as `fold` would, up to rounding, in less time if they are
    small: a step of the sampler is one for all of them, and layers captured as CUDA graphs serve
    all, for they are padded to as many tokens.

    The pairs and pair biases of all complexes are in memory at once. For complexes without forces.
    `seconds` of a complex are those of its trunk and confidence, and its share of the sampling;
    steps of `progress` are those of all complexes. Raises ValueError for a network on several
    ranks, for steering, and without a complex.
    """
    _check(model, group, settings)
    device = next(model.parameters()).device
    multiple = GPU_MULTIPLE if device.type == "cuda" else 1
    num_tokens = max(features.num_tokens for features in group)
    num_tokens += -num_tokens % multiple
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        mask = torch.ones(num_tokens, device=device)
        # Before the trunk, as this frees the CUDA graphs of complexes of another size.
        model.confidence_module.pairformer_stack.graphed(mask, len(group) * settings.samples)
        modulator = model.structure_module.score_model.token_transformer.modulator()
        folded = []
        for features in group:
            padded = features.pad_to(num_tokens).to(device)
            folded.append(_through_trunk(model, padded, modulator, settings, progress))
        timer = StageTimer(device)
        with timer("sampling"):
            coords = _sample(model, folded, settings, progress)
        predictions = []
        for each, of_each in zip(folded, coords, strict=True):
            each.timer.seconds["sampling"] = timer.seconds["sampling"] / len(group)
            stack = model.confidence_module.pairformer_stack
            refine = stack.graphed(each.features.token_mask, len(group) * settings.samples)
            with each.timer("confidence"):
                scored = score(
                    model, each.trunk, of_each, each.features, refine, settings, progress
                )
            predictions.append(finished(model, each.features, of_each, scored, each.timer))
    return predictions


def _check(model: Boltz2, group: Sequence[Features], settings: Settings) -> None:
    if not group:
        raise ValueError("no complex to fold")
    if model.cp.size > 1:
        raise ValueError(f"a group of complexes is folded on 1 rank, not on {model.cp.size}")
    if settings.potentials:
        raise ValueError("a complex with potentials is folded alone")


def _through_trunk(
    model: Boltz2,
    features: Features,
    modulator: Modulator,
    settings: Settings,
    progress: Progress,
) -> _Folded:
    timer = StageTimer(features.token_mask.device)
    with timer("trunk"):
        trunk = run_trunk(model, features, settings, progress)
        # What the layers return lives until the next complex, where they are CUDA graphs.
        trunk = TrunkOutput(trunk.s_inputs, trunk.s.clone(), trunk.z.clone())
        conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
        score_model = model.structure_module.score_model
        cache = score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features, modulator)
    return _Folded(features, trunk, cache, timer)


def _sample(
    model: Boltz2, folded: Sequence[_Folded], settings: Settings, progress: Progress
) -> list[Tensor]:
    """The coordinates [M, A, 3] of each complex in Å."""
    device = folded[0].trunk.z.device
    model.budget.resize(device, model.cp)
    cache = packed([each.cache for each in folded])
    num_atoms = [each.features.num_atoms for each in folded]
    atoms_each = atoms_of_each(num_atoms)
    batches = sample_batches(settings, particles=1)
    count = ProgressCounter("sampling", len(batches) * settings.steps, progress)
    drawn = [
        model.structure_module.sample(
            cache,
            settings.steps,
            PackedNoise(settings.seed, batch, num_atoms, atoms_each, device),
            count,
        )
        for batch in batches
    ]
    by_complex = torch.cat(drawn).unflatten(1, (len(folded), atoms_each)).unbind(1)
    return [x[:, :count] for x, count in zip(by_complex, num_atoms, strict=True)]
