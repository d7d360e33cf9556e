"""Training forward: the trunk with recycling and dropout, and denoising with a noise level a
sample.

It runs the layers of the network that predicts. The parts that are replicated draw the same random
numbers on every rank, and every rank runs the same operations in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.features.features import Features
from foldcp.geometry import Coords
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.conditioning import DiffusionConditioningOutput
from foldcp.model.layers.blocks import RunBlock, run_block
from foldcp.model.trunk.msa import MSAScales
from foldcp.training.randomness import Randomness
from foldcp.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainedTrunk:
    """The representations of an example: this rank's rows, and the single ones whole as well."""

    s_inputs: Float[Tensor, "N S"]
    own_s: Float[Tensor, "I S"]
    s: Float[Tensor, "N S"]
    z: Float[Tensor, "I N Z"]


@dataclass(frozen=True)
class Dropout:
    """The factors of updates: 0, or the inverse of the share that is kept, drawn for the tokens
    without padding so that they do not depend on the number of ranks.
    """

    randomness: Randomness
    features: Features
    settings: TrainingSettings

    def pairs(self, num_layers: int, *copies: int) -> list[Float[Tensor, "*T 4 N"] | None]:
        """Of every layer's pair block, for `copies` of z."""
        rate = self.settings.pair_dropout
        if not rate:
            return [None] * num_layers
        T = len(self.features.layout.token_chain)
        padding = (0, self.features.num_tokens - T)

        def of_layer() -> Tensor:
            drawn = [self._scales(rate, *copies, T) for _ in range(4)]
            return torch.nn.functional.pad(torch.stack(drawn, -2), padding)

        return [of_layer() for _ in range(num_layers)]

    def msa(self, num_layers: int, num_rows: int) -> list[MSAScales]:
        """Of every layer of the MSA module, for an MSA of so many rows."""
        scales = []
        for _ in range(num_layers):
            rate = self.settings.msa_dropout
            of_sequences = self._scales(rate, num_rows) if rate else None
            (of_pairs,) = self.pairs(1)
            scales.append(MSAScales(of_sequences, of_pairs))
        return scales

    def _scales(self, rate: float, *shape: int) -> Tensor:
        return self.randomness.kept(1 - rate, *shape) / (1 - rate)


def train_trunk(
    model: Boltz2,
    features: Features,
    recycling: int,
    dropout: Dropout,
    run: RunBlock,
) -> TrainedTrunk:
    """`recycling` + 1 passes, of which the last has gradients: AlphaFold 3, algorithm 1."""
    wanted = torch.is_grad_enabled()
    s_inputs = model.input_embedder(features)
    own_inputs = model.cp.shard(s_inputs)
    s_init = model.s_init(own_inputs)
    s = torch.zeros_like(s_init)
    z = None
    for index in range(recycling + 1):
        last = index == recycling
        with torch.set_grad_enabled(wanted and last):
            s = s_init + model.s_recycle(model.s_norm(s))
            run_pass = run if last else run_block
            z = run_pass(model.recycled, z, s_inputs, features, s_inputs.dtype)
            s, z = _pass(model, s, z, own_inputs, features, dropout, run_pass)
    assert z is not None
    return TrainedTrunk(s_inputs, s, model.cp.all_gather(s), z)


def _pass(
    model: Boltz2,
    s: Float[Tensor, "I S"],
    z: Float[Tensor, "I N Z"],
    own_inputs: Float[Tensor, "I S"],
    features: Features,
    dropout: Dropout,
    run: RunBlock,
) -> tuple[Float[Tensor, "I S"], Float[Tensor, "I N Z"]]:
    """One pass through templates, MSA and pairformer."""
    if model.architecture.use_templates:
        num_templates = len(features.template_mask)
        layers = model.template_module.pairformer.layers
        scales = dropout.pairs(len(layers), num_templates) if num_templates else []
        z = model.template_module(z, features, scales, run)
    msa_rows = None
    num_rows = features.num_msa_rows
    if 0 < dropout.settings.msa_subsample < num_rows:
        num_rows = dropout.settings.msa_subsample
        msa_rows = dropout.randomness.msa_rows(features.num_msa_rows, num_rows)
    msa_scales = dropout.msa(len(model.msa_module.layers), num_rows)
    z = model.msa_module(z, own_inputs, features, msa_rows, msa_scales, run)
    pairformer = model.pairformer_module
    pair_scales = dropout.pairs(len(pairformer.layers))
    return pairformer.train_forward(s, z, features.token_mask, pair_scales, run)


def denoise(
    model: Boltz2,
    noisy: Coords,
    sigmas: Float[Tensor, " M"],
    trunk: TrainedTrunk,
    conditioning: DiffusionConditioningOutput,
    features: Features,
    run: RunBlock,
) -> Coords:
    """The structures (Å) that the network sees behind noisy ones, each at its noise level.

    Source: Karras et al. 2022 (EDM), equation 7.
    """
    score_model = model.structure_module.score_model
    sigma_data = model.structure_module.sigma_data
    cache = score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features)
    variance = sigmas.square() + sigma_data**2
    time = 0.25 * (sigmas / sigma_data).log()
    scale = variance.sqrt()[:, None, None]
    update = score_model.train_forward(noisy / scale, time, cache, run)
    skip = (sigma_data**2 / variance)[:, None, None]
    output = (sigmas * sigma_data)[:, None, None] / scale
    return skip * noisy + output * update


@torch.no_grad()
def sample(
    model: Boltz2,
    trunk: TrainedTrunk,
    conditioning: DiffusionConditioningOutput,
    features: Features,
    settings: TrainingSettings,
    randomness: Randomness,
) -> Coords:
    """Predicted structures (Å), whose confidence is trained; without gradients."""
    diffusion = model.structure_module
    if isinstance(conditioning.token_bias, list):
        # Without gradients the biases are taken from their list, and the loss needs them, too.
        conditioning = replace(conditioning, token_bias=list(conditioning.token_bias))
    cache = diffusion.score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features)
    noise = randomness.sampler(settings.samples, features.num_atoms)
    return diffusion.sample(cache, settings.sampling_steps, noise)
