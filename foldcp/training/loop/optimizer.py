"""AdamW and the average of the weights (EMA), whose state is spread over all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.mesh import Mesh
from foldcp.training.loop.flat_weights import FlatWeights
from foldcp.training.loop.settings import OptimizerSettings

# Parts of the names of parameters without weight decay. Source: Boltz, `configure_optimizers`.
WITHOUT_DECAY = (
    "norm",
    "rel_pos",
    ".s_init",
    ".z_init_",
    "token_bonds",
    "embed_atom_features",
    "dist_bin_pairwise_embed",
)


def decay_groups(
    named: Mapping[str, nn.Parameter], weight_decay: float
) -> list[dict[str, nn.Parameter]]:
    """The parameters with weight decay, and those without; all together where there is none."""
    if not weight_decay:
        return [dict(named)]
    without = {name: p for name, p in named.items() if any(x in name for x in WITHOUT_DECAY)}
    return [{name: p for name, p in named.items() if name not in without}, without]


def learning_rate(settings: OptimizerSettings, step: int) -> float:
    """The rate of a step, counted from 0: a linear rise, a plateau, then falls.

    Source: AlphaFold 3, section 5.4; Boltz, `AlphaFoldLRScheduler`.
    """
    if step <= settings.warmup_steps and settings.warmup_steps:
        return settings.base_rate + step / settings.warmup_steps * settings.max_rate
    if step <= settings.decay_after:
        return settings.max_rate
    falls = (step - settings.decay_after) // settings.decay_every + 1
    return settings.max_rate * settings.decay_factor**falls


def ema_decay(settings: OptimizerSettings, step: int) -> float:
    """The decay of the average after so many steps; small at first. Source: Boltz, `EMA`."""
    return min(settings.ema, (1 + step) / (10 + step))


class Optimizer:
    """AdamW on a rank's share of the weights; the ranks then gather them.

    `mean` and `square` are the moments of the gradient, `average` the averaged weights: shares.
    """

    def __init__(self, flat: FlatWeights, settings: OptimizerSettings, mesh: Mesh) -> None:
        self.flat = flat
        self.settings = settings
        self.mesh = mesh
        own = mesh.share(flat.weights)
        self.mean = torch.zeros_like(own)
        self.square = torch.zeros_like(own)
        self.average = own.clone()
        self.num_updates = 0
        # of the share: the first elements, which have weight decay
        first = mesh.rank * len(own)
        self.num_decayed = min(max(flat.group_ends[0] - first, 0), len(own))

    @torch.no_grad()
    def reduce(self, num_examples: int) -> float:
        """Sum the ranks' gradients, divide them by the number of examples, and return their norm,
        which is not finite where one of them is not. Collective.
        """
        gradients = self.mesh.sum_(self.flat.gradients)
        gradients.div_(num_examples)
        return float(torch.linalg.vector_norm(gradients))

    @torch.no_grad()
    def step(self, norm: float, step: int) -> None:
        """Update the weights by the reduced gradients, clipped to the largest norm. Collective.

        Source: Loshchilov and Hutter 2019, algorithm 2.
        """
        settings = self.settings
        rate = learning_rate(settings, step)
        own = self.mesh.share(self.flat.weights)
        gradients = self.mesh.share(self.flat.gradients)
        if settings.clip:
            gradients.mul_(min(1.0, settings.clip / (norm + 1e-6)))
        self.num_updates += 1
        self.mean.lerp_(gradients, 1 - settings.beta1)
        self.square.mul_(settings.beta2).addcmul_(gradients, gradients, value=1 - settings.beta2)
        own[: self.num_decayed].mul_(1 - rate * settings.weight_decay)
        unbiased = (self.square / (1 - settings.beta2**self.num_updates)).sqrt_()
        step_size = rate / (1 - settings.beta1**self.num_updates)
        own.addcdiv_(self.mean, unbiased.add_(settings.epsilon), value=-step_size)
        self.average.lerp_(own, 1 - ema_decay(settings, step + 1))
        self.mesh.gather_shares_(self.flat.weights)
        self.flat.publish()

    def whole(self, share: Float[Tensor, " k"]) -> Float[Tensor, " n"]:
        """The vector of which this rank has a share. Collective."""
        whole = torch.zeros_like(self.flat.weights)
        self.mesh.share(whole).copy_(share)
        return self.mesh.gather_shares_(whole)

    @torch.no_grad()
    def restore(
        self,
        average: Mapping[str, Tensor],
        mean: Mapping[str, Tensor],
        square: Mapping[str, Tensor],
        num_updates: int,
    ) -> None:
        """Take the state of a checkpoint; of the weights that are not in it, that of the start."""
        for target, values in (
            (self.average, average),
            (self.mean, mean),
            (self.square, square),
        ):
            whole = torch.zeros_like(self.flat.weights)
            if target is self.average:
                whole.copy_(self.flat.weights)
            for name, part in self.flat.by_name(whole).items():
                if name in values:
                    part.copy_(values[name])
            target.copy_(self.mesh.share(whole))
        self.num_updates = num_updates
