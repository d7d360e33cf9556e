"""The Boltz-2 network for any number of ranks: trunk, diffusion, confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import Features
from foldcp.kernels.projections import project
from foldcp.model.confidence import ConfidenceModule
from foldcp.model.diffusion.sampler import AtomDiffusion
from foldcp.model.diffusion.score_model import DiffusionConditioning
from foldcp.model.distogram import contact_probability
from foldcp.model.layers.layers import LayerNorm, Linear, chunks
from foldcp.model.trunk.input_embedder import InputEmbedder
from foldcp.model.trunk.msa import MSAModule
from foldcp.model.trunk.pair_embedder import PairEmbedding
from foldcp.model.trunk.pairformer import Pairformer
from foldcp.model.trunk.templates import TemplateModule


@dataclass(frozen=True)
class TrunkOutput:
    """What the trunk says of a complex; z by rows, the rest whole."""

    s_inputs: Float[Tensor, "N S"]
    s: Float[Tensor, "N S"]
    z: Float[Tensor, "I N Z"]


class DistogramModule(nn.Module):
    """Distances between representative atoms, from z + z^T."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.distogram = Linear(architecture.token_z, architecture.num_distogram_bins, bias=True)


class BFactorModule(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.bfactor = Linear(architecture.token_s, architecture.num_distogram_bins, bias=True)


class Boltz2(PairEmbedding):
    """Parameters are named as in Boltz-2's checkpoints. One object per rank; `cp` is its place
    among the ranks.
    """

    def __init__(
        self,
        architecture: Architecture,
        cp: ContextParallel,
        process: DiffusionProcess | None = None,
    ) -> None:
        super().__init__(architecture)
        a = architecture
        self.architecture = architecture
        self.cp = cp
        self.input_embedder = InputEmbedder(a)
        self.s_init = Linear(a.token_s, a.token_s)
        self.z_init_1 = Linear(a.token_s, a.token_z)
        self.z_init_2 = Linear(a.token_s, a.token_z)
        self.s_norm = LayerNorm(a.token_s)
        self.z_norm = LayerNorm(a.token_z)
        self.s_recycle = Linear(a.token_s, a.token_s)
        self.z_recycle = Linear(a.token_z, a.token_z)
        if a.use_templates:
            self.template_module = TemplateModule(a, cp)
        self.msa_module = MSAModule(a, cp)
        self.pairformer_module = Pairformer(a, a.pairformer_blocks, a.token_heads, cp)
        self.diffusion_conditioning = DiffusionConditioning(a, cp)
        self.structure_module = AtomDiffusion(a, process or DiffusionProcess(), cp)
        self.distogram_module = DistogramModule(a)
        if a.predict_bfactor:
            self.bfactor_module = BFactorModule(a)
        self.confidence_module = ConfidenceModule(a, cp)

    def trunk(
        self,
        features: Features,
        recycling: int,
        dtype: torch.dtype = torch.float32,
        msa_rows: Callable[[int], list[int] | None] = lambda _: None,
        progress: Callable[[], None] = lambda: None,
    ) -> TrunkOutput:
        """`recycling` + 1 passes; z is kept in `dtype`; `msa_rows(pass)` chooses rows of the
        alignment.
        """
        s_inputs = self.input_embedder(features)
        own = self.cp.shard(s_inputs)
        s_init = self.s_init(own)
        s = torch.zeros_like(s_init)
        z = None
        refine = self.pairformer_module.repeated(features.token_mask, recycling + 1)
        for index in range(recycling + 1):
            s = s_init + self.s_recycle(self.s_norm(s))
            z = self._recycled(z, s_inputs, features, dtype)
            if self.architecture.use_templates:
                z = self.template_module(z, features)
            z = self.msa_module(z, own, features, msa_rows(index))
            s, z = refine(s, z)
            progress()
        assert z is not None
        return TrunkOutput(s_inputs, self.cp.all_gather(s), z)

    def _recycled(
        self,
        z: Float[Tensor, "I N Z"] | None,
        s_inputs: Float[Tensor, "N S"],
        features: Features,
        dtype: torch.dtype,
    ) -> Float[Tensor, "I N Z"]:
        """The initial z, made anew, + the recycled one; in place when no gradient is wanted."""
        N = s_inputs.shape[0]
        I = N // self.cp.size
        first = self.cp.first_row(N)
        C = self.architecture.token_z
        of_i = self.z_init_1(s_inputs)
        of_j = self.z_init_2(s_inputs)
        out = (
            z
            if z is not None and not torch.is_grad_enabled()
            else s_inputs.new_empty((I, N, C), dtype=dtype)
        )
        for rows in chunks(I, N * C * 24, s_inputs.device):
            here = slice(first + rows.start, first + rows.stop)
            x = of_i[here, None] + of_j + self.embed_pairs(features, here)
            # The first pass recycles zeros, whose norm is the bias.
            norm = (self.z_norm.weight, self.z_norm.bias)
            weight = self.z_recycle.weight
            recycled = self.z_recycle(norm[1]) if z is None else project(z[rows], *norm, weight)
            out[rows] = (x + recycled).to(dtype)
        return out

    def distogram(self, z: Float[Tensor, "I N Z"], take: Callable[[slice, Tensor], None]) -> None:
        """Distogram logits of this rank's rows go to `take`, some rows at a time."""
        transposed = self.cp.transpose(z.clone())
        linear = self.distogram_module.distogram
        for rows in chunks(
            z.shape[0],
            z.shape[1] * (2 * z.shape[2] + 2 * linear.out_features) * 4,
            z.device,
        ):
            take(rows, linear(z[rows] + transposed[rows]))

    def contact_probability(self, z: Float[Tensor, "I N Z"]) -> Float[Tensor, "I N"]:
        """Probability that two tokens are within about 8 Å, for this rank's rows."""
        contact = z.new_empty(z.shape[:2], dtype=torch.float32)

        def take(rows: slice, logits: Float[Tensor, "R N B"]) -> None:
            contact[rows] = contact_probability(logits)

        self.distogram(z, take)
        return contact

    def bfactor(self, s: Float[Tensor, "N S"]) -> Float[Tensor, "N B"]:
        """Logits of the B-factor."""
        return self.bfactor_module.bfactor(s)
