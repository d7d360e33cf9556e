"""The template module: distances and orientations of known structures, added to the pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import NUM_RES_TYPES, Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.geometry import distances
from foldcp.model.layers.blocks import RunBlock, run_block
from foldcp.model.layers.chunking import ChunkBudget, add_rows_
from foldcp.model.layers.layers import LayerNorm, Linear
from foldcp.model.trunk.pairformer import PairStack

# Å
MIN_DISTANCE = 3.25
MAX_DISTANCE = 50.75
NUM_BINS = 38


class TemplateModule(nn.Module):
    """z += u_proj(relu(mean over templates)): AlphaFold 3, algorithm 16, with Boltz-2's features.

    Without templates the update is exactly zero, and nothing is computed.
    """

    def __init__(
        self, architecture: Architecture, cp: ContextParallel, budget: ChunkBudget
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.by_visibility = architecture.template_by_visibility
        dim = architecture.template_dim
        self.z_norm = LayerNorm(architecture.token_z)
        self.v_norm = LayerNorm(dim)
        self.z_proj = Linear(architecture.token_z, dim)
        self.a_proj = Linear(2 * NUM_RES_TYPES + NUM_BINS + 5, dim)
        self.u_proj = Linear(dim, architecture.token_z)
        self.pairformer = PairStack(
            dim,
            architecture.template_blocks,
            architecture.pair_heads,
            architecture.pair_head_width,
            cp,
            budget,
        )

    def forward(
        self,
        z: Float[Tensor, "I N Z"],
        features: Features,
        scales: Sequence[Float[Tensor, "T 4 N"] | None] = (),
        run: RunBlock = run_block,
    ) -> Float[Tensor, "I N Z"]:
        """In training, with dropout of each layer's updates; `run` runs each layer."""
        present = (features.template_mask > 0).any(1).to(torch.float32)
        if not len(present):
            return z
        share = present / present.sum().clamp(min=1)
        I, N, C = z.shape
        dim = self.u_proj.in_features
        mean = z.new_zeros((I, N, dim))
        first = self.cp.first_row(N)
        for t in range(len(present)):
            v = z.new_empty((I, N, dim))
            bytes_per_row = N * (4 * dim + 2 * C) * 4
            for rows in self.budget.chunks(I, bytes_per_row, z.device):
                global_rows = slice(first + rows.start, first + rows.stop)
                pairs = self._pair_features(features, t, global_rows)
                v[rows] = (self.z_proj(self.z_norm(z[rows])) + pairs).to(v.dtype)
            initial = v.clone()
            of_template = [None if of_layer is None else of_layer[t] for of_layer in scales]
            v = self.pairformer(v, features.token_mask, of_template, run)
            bytes_per_row = N * 3 * dim * 4
            for rows in self.budget.chunks(I, bytes_per_row, z.device):
                mean[rows] += self.v_norm(initial[rows] + v[rows]) * share[t].to(z.dtype)

        def update(rows: slice) -> Float[Tensor, "R N Z"]:
            return self.u_proj(F.relu(mean[rows]))

        bytes_per_row = N * (2 * dim + C) * 4
        return add_rows_(z, update, bytes_per_row, self.budget)

    def _pair_features(self, f: Features, t: int, rows: slice) -> Float[Tensor, "R N C"]:
        """a_proj of (distance bin, both CB known, direction, both frames known, residue types),
        without one-hots.
        """
        sizes = [NUM_BINS, 1, 3, 1, NUM_RES_TYPES, NUM_RES_TYPES]
        weight = self.a_proj.weight.float().T
        by_distance, by_cb, by_vector, by_frame, by_type_i, by_type_j = weight.split(sizes)
        cb = f.template_cb[t]
        ca = f.template_ca[t]
        bounds = torch.linspace(MIN_DISTANCE, MAX_DISTANCE, NUM_BINS - 1, device=cb.device)
        distance = distances(cb[rows], cb)
        pairs = F.embedding(torch.bucketize(distance, bounds), by_distance)
        both_cb = f.template_mask_cb[t, rows, None] * f.template_mask_cb[t]
        pairs = pairs + both_cb[..., None] * by_cb[0]
        # Boltz takes the CA of the row in the frame of the column, AlphaFold 3 the other way; and
        # it divides each component of the vector by its own absolute value, leaving the signs.
        offset = ca[rows, None] - f.template_frame_t[t]
        direction = torch.einsum("nji,rnj->rni", f.template_frame_rot[t], offset).sign()
        pairs = pairs + direction @ by_vector
        both_frames = f.template_mask_frame[t, rows, None] * f.template_mask_frame[t]
        pairs = pairs + both_frames[..., None] * by_frame[0]
        group = f.template_visibility[t] if self.by_visibility else f.asym_id
        pairs = pairs * (group[rows, None] == group)[..., None]
        res_type = f.template_res_type[t]
        return (
            pairs
            + F.embedding(res_type[rows], by_type_i)[:, None]
            + F.embedding(res_type, by_type_j)
        )
