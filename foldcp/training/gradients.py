"""Which weights have gradients, and the sum of the parts of these that the ranks have."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import FourierEmbedding
from foldcp.training.losses.partial import precise
from foldcp.training.settings import LossWeights


@torch.no_grad()
def reduce_gradients(parameters: Iterable[Tensor], cp: ContextParallel) -> None:
    """Add up the ranks' gradients, in one all-reduce in fp32 or better. Collective.

    A parameter that this step did not reach has a gradient of zero afterwards.
    """
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    if cp.size == 1:
        return
    gradients = [p.grad for p in trained if p.grad is not None]
    flat = cp.all_reduce(torch.cat([precise(gradient).flatten() for gradient in gradients]))
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def require_gradients(model: Boltz2, weights: LossWeights) -> None:
    """Let the parameters that a stage trains require gradients, and no others.

    The random frequencies of Fourier embeddings are never trained (AlphaFold 3, algorithm 22), and
    those of the trunk and the diffusion module only by losses of the structure.
    """
    model.requires_grad_(weights.train_structure)
    model.confidence_module.requires_grad_(weights.train_confidence)
    for module in model.modules():
        if isinstance(module, FourierEmbedding):
            module.requires_grad_(False)
