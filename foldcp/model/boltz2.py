"""The Boltz-2 network for any number of ranks: trunk, diffusion, confidence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.kernels import projection
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.projection import ProjectionWeights
from foldcp.model.confidence import ConfidenceModule
from foldcp.model.diffusion.conditioning import DiffusionConditioning
from foldcp.model.diffusion.sampler import AtomDiffusion
from foldcp.model.distogram import contact_probability
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.layers import KernelModule, LayerNorm, Linear
from foldcp.model.trunk.input_embedder import InputEmbedder
from foldcp.model.trunk.msa import MSAModule
from foldcp.model.trunk.pair_embedder import PairEmbedding, RelativePosition
from foldcp.model.trunk.pairformer import Pairformer
from foldcp.model.trunk.passes import PassState
from foldcp.model.trunk.templates import TemplateModule
from foldcp.progress import OnSteps, no_steps

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class TrunkOutput:
    """The representations of a complex: this rank's rows of z, the rest whole."""

    s_inputs: Float[Tensor, "N S"]
    s: Float[Tensor, "N S"]
    z: Float[Tensor, "I N Z"]


class DistogramModule(nn.Module):
    """The weights of `Boltz2.distogram` under their names in the checkpoint."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.distogram = Linear(architecture.token_z, architecture.num_distogram_bins, bias=True)


class BFactorModule(nn.Module):
    """The weights of `Boltz2.bfactor` under their names in the checkpoint."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.bfactor = Linear(architecture.token_s, architecture.num_distogram_bins, bias=True)


class Boltz2(KernelModule):
    """The whole network; parameters are named as in Boltz-2's checkpoints.

    One object per rank; `cp` is its place among the ranks, `budget` sizes the chunks of all layers.
    """

    rel_pos: RelativePosition

    def __init__(
        self,
        architecture: Architecture,
        cp: ContextParallel,
        process: DiffusionProcess | None = None,
        budget: ChunkBudget | None = None,
    ) -> None:
        super().__init__()
        a = architecture
        budget = budget or ChunkBudget()
        self.architecture = architecture
        self.cp = cp
        self.budget = budget
        self.embed_pairs = PairEmbedding(a)
        self.embed_pairs.register(self)
        self.input_embedder = InputEmbedder(a)
        self.s_init = Linear(a.token_s, a.token_s)
        self.z_init_1 = Linear(a.token_s, a.token_z)
        self.z_init_2 = Linear(a.token_s, a.token_z)
        self.s_norm = LayerNorm(a.token_s)
        self.z_norm = LayerNorm(a.token_z)
        self.s_recycle = Linear(a.token_s, a.token_s)
        self.z_recycle = Linear(a.token_z, a.token_z)
        if a.use_templates:
            self.template_module = TemplateModule(a, cp, budget)
        self.msa_module = MSAModule(a, cp, budget)
        self.pairformer_module = Pairformer(a, a.pairformer_blocks, a.token_heads, cp, budget)
        self.diffusion_conditioning = DiffusionConditioning(a, cp, budget)
        self.structure_module = AtomDiffusion(a, process or DiffusionProcess(), cp)
        self.distogram_module = DistogramModule(a)
        if a.predict_bfactor:
            self.bfactor_module = BFactorModule(a)
        self.confidence_module = ConfidenceModule(a, cp, budget)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.backend = backend
        self.recycle_projection = projection.choose(backend, self._recycle_weights())

    @cached_property
    def on_one_rank(self) -> Boltz2:
        """This network for complexes that the rank has alone, as `with_ranks` makes it. No
        parameter or submodule of this one, whose precision and kernels must not change any more.
        """
        return with_ranks(self, ContextParallel())

    def trunk(
        self,
        features: Features,
        recycling: int,
        dtype: torch.dtype = torch.float32,
        msa_rows: Callable[[int], list[int] | None] = lambda _: None,
        on_steps: OnSteps = no_steps,
        start: PassState | None = None,
        on_pass: Callable[[PassState], None] = lambda _: None,
    ) -> TrunkOutput:
        """`recycling` + 1 passes; z is kept in `dtype`; `msa_rows(pass)` chooses rows of the MSA,
        all of them with None. `on_steps` is called after every block; `on_pass` gets the state
        after every pass but the last, and `start` is such a state, from which it goes on.
        """
        s_inputs = self.input_embedder(features)
        own_inputs = self.cp.shard(s_inputs)
        s_init = self.s_init(own_inputs)
        s = torch.zeros_like(s_init) if start is None else start.s
        z = None if start is None else start.z
        first = 0 if start is None else start.num_passes
        refine = self.pairformer_module.graphed(features.token_mask, recycling + 1)
        for index in range(first, recycling + 1):
            s = s_init + self.s_recycle(self.s_norm(s))
            z = self.recycled(z, s_inputs, features, dtype)
            if self.architecture.use_templates:
                z = self.template_module(z, features)
            z = self.msa_module(z, own_inputs, features, msa_rows(index), on_steps=on_steps)
            s, z = refine(s, z, on_steps)
            if index < recycling:
                on_pass(PassState(index + 1, s, z))
        assert z is not None
        return TrunkOutput(s_inputs, self.cp.all_gather(s), z)

    def recycled(
        self,
        z: Float[Tensor, "I N Z"] | None,
        s_inputs: Float[Tensor, "N S"],
        features: Features,
        dtype: torch.dtype,
    ) -> Float[Tensor, "I N Z"]:
        """The initial z, recomputed, + the recycled one; in place when no gradient is wanted."""
        N = s_inputs.shape[0]
        I = N // self.cp.size
        C = self.architecture.token_z
        first = self.cp.first_row(N)
        of_i = self.z_init_1(s_inputs)
        of_j = self.z_init_2(s_inputs)
        in_place = z is not None and not torch.is_grad_enabled()
        out = z if in_place else s_inputs.new_empty((I, N, C), dtype=dtype)
        assert out is not None
        weights = self._recycle_weights()
        bytes_per_row = N * C * 24
        for rows in self.budget.chunks(I, bytes_per_row, s_inputs.device):
            global_rows = slice(first + rows.start, first + rows.stop)
            x = of_i[global_rows, None] + of_j + self.embed_pairs(features, global_rows)
            if z is None:
                # The first pass recycles zeros, whose norm is the bias.
                recycled = self.z_recycle(weights.norm_bias)
            else:
                recycled = self.recycle_projection(z[rows], weights)
            out[rows] = x + recycled
        return out

    def _recycle_weights(self) -> ProjectionWeights:
        return ProjectionWeights(self.z_norm.weight, self.z_norm.bias, self.z_recycle.weight)

    def distogram(
        self, z: Float[Tensor, "I N Z"], on_logits: Callable[[slice, Tensor], None]
    ) -> None:
        """Distogram logits of this rank's rows go to `on_logits`, a chunk of rows at a time."""
        linear = self.distogram_module.distogram
        _, N, C = z.shape
        bytes_per_row = N * (2 * C + 2 * linear.out_features) * 4
        max_rows = self.budget.rows_per_chunk(bytes_per_row, z.device)
        for rows, transposed in self.cp.transposed_rows(z, max_rows):
            on_logits(rows, linear(z[rows] + transposed))

    def contact_probability(self, z: Float[Tensor, "I N Z"]) -> Float[Tensor, "I N"]:
        """Probability that two tokens are within about 8 Å, for this rank's rows."""
        contact = z.new_empty(z.shape[:2], dtype=torch.float32)

        def on_logits(rows: slice, logits: Float[Tensor, "R N B"]) -> None:
            contact[rows] = contact_probability(logits)

        self.distogram(z, on_logits)
        return contact

    def bfactor(self, s: Float[Tensor, "N S"]) -> Float[Tensor, "N B"]:
        """Logits of the B-factor."""
        return self.bfactor_module.bfactor(s)


def with_ranks(module: Module, cp: ContextParallel) -> Module:
    """A network for other ranks, which shares all but its modules: weights, kernels, budget, and
    CUDA graphs, whose keys have the number of ranks.
    """
    replica = copy.copy(module)
    vars(replica)["_modules"] = {
        name: None if child is None else with_ranks(child, cp)
        for name, child in module._modules.items()
    }
    if "cp" in vars(module):
        vars(replica)["cp"] = cp
    return replica
