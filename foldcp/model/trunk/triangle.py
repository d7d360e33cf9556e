"""The two triangle updates of the pair representation; each is one class for both directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels.projections import (
    add_attention_output,
    project_attention,
    project_channels_first,
)
from foldcp.kernels.residual import cat_parts, fits
from foldcp.kernels.triangle_attention import attention_under
from foldcp.kernels.triangle_multiply import add_gated_output, gated_projection
from foldcp.model.layers.chunking import ChunkBudget, map_rows_
from foldcp.model.layers.layers import LayerNorm, Linear


class TriangleMultiplication(nn.Module):
    """z_ij += gate * p_out(norm(sum_k a_ik b_jk)), or with a_ki b_kj when `incoming`: AlphaFold 3,
    algorithms 12, 13.

    Outgoing, the rows of b come by from all ranks, a block at a time. Incoming, they are terms of
    the sum instead, and meet the columns of a that stand in this rank's rows of the result; z
    itself never moves.
    """

    def __init__(self, dim: int, cp: ContextParallel, budget: ChunkBudget, incoming: bool) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.incoming = incoming
        self.norm_in = LayerNorm(dim)
        self.p_in = Linear(dim, 2 * dim)
        self.g_in = Linear(dim, 2 * dim)
        self.norm_out = LayerNorm(dim)
        self.p_out = Linear(dim, dim)
        self.g_out = Linear(dim, dim)

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        I, N, C = z.shape
        product = z.new_empty((C, I, N), dtype=self.p_in.weight.dtype)
        for channels in self._channel_blocks(z):
            a, b = self._operands(z, mask, channels)
            (self._incoming if self.incoming else self._outgoing)(product[channels], a, b)
        norms = (
            self.norm_in.weight,
            self.norm_in.bias,
            self.norm_out.weight,
            self.norm_out.bias,
        )
        return map_rows_(
            z,
            lambda rows: add_gated_output(
                z[rows], product[:, rows], *norms, self.p_out.weight, self.g_out.weight
            ),
            0 if fits(z, self.p_out.weight) else N * C * 24,
            self.budget,
        )

    def _outgoing(
        self,
        product: Float[Tensor, "D I N"],
        a: Float[Tensor, "D I N"],
        b: Float[Tensor, "D I N"],
    ) -> None:
        I = a.shape[1]
        for lot, owner, block in self.cp.pipelined_all_gather(b):
            _multiply(
                product[lot, :, owner * I : (owner + 1) * I],
                a[lot],
                block.transpose(1, 2),
            )

    def _incoming(
        self,
        product: Float[Tensor, "D I N"],
        a: Float[Tensor, "D I N"],
        b: Float[Tensor, "D I N"],
    ) -> None:
        for lot, owner, part, block in self.cp.pipelined_all_to_all(a, b):
            _multiply(product[lot], part.transpose(1, 2), block, add=owner != self.cp.rank)

    def _channel_blocks(self, z: Float[Tensor, "I N C"]) -> list[slice]:
        """As many channels at a time as the budget holds operands of: a, b, and one block under
        way.
        """
        I, N, C = z.shape
        return self.budget.chunks(C, 4 * I * N * self.p_in.weight.element_size(), z.device)

    def _operands(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"], channels: slice
    ) -> tuple[Float[Tensor, "D I N"], Float[Tensor, "D I N"]]:
        """a and b of some channels, channel-major; zero where the index of the sum is padding."""
        I, N, C = z.shape
        width = channels.stop - channels.start
        # The checkpoint stacks the weights of a and b.
        p, g = (
            w.unflatten(0, (2, C))[:, channels].flatten(0, 1)
            for w in (self.p_in.weight, self.g_in.weight)
        )
        norm = (self.norm_in.weight, self.norm_in.bias)
        own = self.cp.shard(mask)
        some = self.budget.chunks(I, 0 if fits(z, p) else N * (C + 4 * width) * 4, z.device)
        parts = [
            gated_projection(z[rows], own[rows, None] if self.incoming else mask, *norm, p, g)
            for rows in some
        ]
        a, b = cat_parts(parts, 1).chunk(2)
        return a, b


def _multiply(
    out: Float[Tensor, "D I J"],
    a: Float[Tensor, "D I N"],
    b: Float[Tensor, "D N J"],
    add: bool = False,
) -> None:
    """Write the matrix products where they belong or add them there, without a copy unless a
    gradient is wanted.
    """
    if torch.is_grad_enabled():
        product = torch.bmm(a, b)
        out[:] = out + product if add else product
    elif add:
        out.baddbmm_(a, b)
    else:
        torch.bmm(a, b, out=out)


class GatedAttention(nn.Module):
    """The weights of triangle attention, under the names of the checkpoint."""

    def __init__(self, dim: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_width
        self.linear_q = Linear(dim, inner)
        self.linear_k = Linear(dim, inner)
        self.linear_v = Linear(dim, inner)
        self.linear_o = Linear(inner, dim)
        self.linear_g = Linear(dim, inner)


class TriangleAttention(nn.Module):
    """Each row of z attends over its columns; the columns over their rows when `ending`: AlphaFold
    3, 14, 15.

    Rows are whole, so the softmax is local. The bias, one number per head and pair, is the only N x
    N array that every rank holds.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
        ending: bool,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.ending = ending
        self.layer_norm = LayerNorm(dim)
        self.linear = Linear(dim, num_heads)
        self.mha = GatedAttention(dim, num_heads, head_width)

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        (N, C) = z.shape[1:]
        mha = self.mha
        norm = (self.layer_norm.weight, self.layer_norm.bias)
        attention = attention_under(self._bias(z), mask)
        into = torch.cat([mha.linear_q.weight, mha.linear_k.weight, mha.linear_v.weight])

        def attended(
            parts: list[Float[Tensor, "R J C"]],
        ) -> list[Float[Tensor, "R J C"]]:
            o = attention(*project_attention(parts, *norm, into, mha.num_heads)).flatten(-2)
            return [
                add_attention_output(z, some, *norm, mha.linear_g.weight, mha.linear_o.weight)
                for z, some in zip(parts, o.split([z.shape[1] for z in parts], 1), strict=True)
            ]

        # q, k, v and what attention makes of them; in torch also z normalised, scores, gates and
        # copies
        fused = fits(z, into)
        inner = len(into) // 3
        per_row = N * (
            4 * inner * into.element_size() if fused else 8 * C + 15 * inner * into.element_size()
        )
        if not self.ending:
            return map_rows_(z, lambda rows: attended([z[rows]])[0], per_row, self.budget)
        travelling = 7 * N * C * z.element_size()  # chunks that arrive, are computed and return
        return self.cp.map_columns(
            z, attended, self.budget.rows_per_chunk(per_row + travelling, z.device)
        )

    def _bias(self, z: Float[Tensor, "I N C"]) -> Float[Tensor, "H N N"]:
        """One number per head, query and key, whole on every rank. Rows of z are its queries or,
        when `ending`, its keys, so that they need not move.
        """
        I, N, C = z.shape
        norm = (self.layer_norm.weight, self.layer_norm.bias)
        weight = self.linear.weight
        some = self.budget.chunks(I, 0 if fits(z, weight) else N * C * 8, z.device)
        whole = self.cp.all_gather(
            cat_parts([project_channels_first(z[rows], *norm, weight) for rows in some], 1),
            1,
        )
        return whole.transpose(1, 2) if self.ending else whole
