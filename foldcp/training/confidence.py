"""Confidence in training: the heads on predicted structures, and their losses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.features.features import Features
from foldcp.geometry import Coords
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.blocks import RunBlock
from foldcp.training.assignment import assign
from foldcp.training.example import TrainingExample
from foldcp.training.forward import Dropout, TrainedTrunk
from foldcp.training.losses.confidence import (
    EPSILON,
    PairTargets,
    pair_error,
    plddt_loss,
    resolved_loss,
)
from foldcp.training.losses.partial import chunked_sum, precise


def confidence_losses(
    model: Boltz2,
    trunk: TrainedTrunk,
    coords: Coords,
    example: TrainingExample,
    dropout: Dropout,
    run: RunBlock,
) -> dict[str, Float[Tensor, ""]]:
    """This rank's parts of the losses, the means over the samples; none reaches the trunk."""
    module = model.confidence_module
    M = len(coords)
    scales = dropout.pairs(len(module.pairformer_stack.layers), M)
    features = example.features
    truth = example.truth
    of_samples: list[dict[str, Tensor]] = []
    for index, x in enumerate(coords):
        of_sample = [None if of_layer is None else of_layer[index] for of_layer in scales]
        single, pairs = module.train_forward(
            trunk.s_inputs.detach(),
            trunk.s.detach(),
            trunk.z.detach(),
            x,
            features,
            of_sample,
            run,
        )
        assigned = assign(x, truth, model.cp, model.budget)
        plddt = module.confidence_heads.to_plddt_logits(single)
        resolved = module.confidence_heads.to_resolved_logits(single)
        pde, pae = pair_losses(model, pairs, PairTargets(x, assigned, truth, features), features)
        of_samples.append(
            {
                "plddt": plddt_loss(plddt, x, assigned, truth, features, model.cp, model.budget),
                "pde": pde,
                "resolved": resolved_loss(resolved, assigned, features, model.cp),
                "pae": pae,
            }
        )
    return {
        name: sum((losses[name] for losses in of_samples[1:]), of_samples[0][name]) / M
        for name in of_samples[0]
    }


def pair_losses(
    model: Boltz2,
    pairs: Float[Tensor, "I N Z"],
    targets: PairTargets,
    features: Features,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """This rank's parts of the losses of PDE and PAE, the means over the pairs that count."""
    I, N, C = pairs.shape
    cp = model.cp
    first = cp.first_row(N)
    transposed = cp.transpose(pairs.clone())
    heads = model.confidence_module.confidence_heads

    def of_rows(rows: slice) -> Float[Tensor, "2"]:
        tokens = slice(first + rows.start, first + rows.stop)
        same_chain = features.asym_id[tokens, None] == features.asym_id
        pde = heads.pde_logits(pairs[rows] + transposed[rows], same_chain)
        pae = heads.pae_logits(pairs[rows], same_chain)
        return torch.stack(
            [
                pair_error(pde, targets.pde(tokens, pde.shape[-1])),
                pair_error(pae, targets.pae(tokens, pae.shape[-1])),
            ]
        )

    num_bins = heads.to_pae_intra_logits.out_features
    bytes_per_row = N * (2 * C + 12 * num_bins) * 4
    errors = chunked_sum(
        of_rows, model.budget.chunks(I, bytes_per_row, pairs.device), precise(pairs.new_zeros(2))
    )
    pde, pae = errors.unbind()
    return pde / (EPSILON + targets.num_pde()), pae / (EPSILON + targets.num_pae())
