"""The two triangle updates of the pair representation; each is one class for both directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.kernels.triangle_attention import triangle_attention
from foldcp.model.layers import LayerNorm, Linear, add_by_rows, chunks
from foldcp.rows import Rows


class TriangleMultiplication(nn.Module):
    """z_ij += gate * p_out(norm(sum_k a_ik b_jk)), or with a_ki b_kj when `incoming`: AlphaFold 3, algorithms 12, 13.

    Incoming is outgoing on z^T with a and b exchanged: sum_k b'_jk a'_ik, a' = a of z^T, is its entry (j, i), so the
    result stands where the transposed z needs it.
    """

    def __init__(self, dim: int, rows: Rows, incoming: bool) -> None:
        super().__init__()
        self.rows, self.incoming = rows, incoming
        self.norm_in = LayerNorm(dim)
        self.p_in = Linear(dim, 2 * dim)
        self.g_in = Linear(dim, 2 * dim)
        self.norm_out = LayerNorm(dim)
        self.p_out = Linear(dim, dim)
        self.g_out = Linear(dim, dim)

    def forward(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> Float[Tensor, "I N C"]:
        if not self.incoming:
            return self._outgoing(z, mask)
        return self.rows.transpose(self._outgoing(self.rows.transpose(z), mask))

    def _outgoing(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> Float[Tensor, "I N C"]:
        I, N, C = z.shape
        product = z.new_empty((C, I, N), dtype=self.p_in.weight.dtype)
        for channels in self._channel_blocks(z):
            left, right = self._operands(z, mask, channels)
            for owner, block in self.rows.stream(right):
                product[channels, :, owner * I : (owner + 1) * I] = torch.bmm(left, block.transpose(1, 2))

        def update(rows: slice) -> Float[Tensor, "R N C"]:
            y = self.p_out(self.norm_out(product[:, rows].permute(1, 2, 0)))
            return y * self.g_out(self.norm_in(z[rows])).sigmoid()

        return add_by_rows(z, update, N * C * 24)

    def _channel_blocks(self, z: Float[Tensor, "I N C"]) -> list[slice]:
        """As many channels at a time as the budget holds operands of: left, right, and one block under way."""
        I, N, C = z.shape
        bytes_each = 4 * I * N * self.p_in.weight.element_size()
        return list(chunks(C, bytes_each, torch.device(z.device)))

    def _operands(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"], channels: slice
    ) -> tuple[Float[Tensor, "D I N"], Float[Tensor, "D I N"]]:
        """a and b of some channels, channel-major; exchanged for the incoming direction."""
        I, N, C = z.shape
        width = channels.stop - channels.start
        index = torch.arange(channels.start, channels.stop, device=z.device)
        index = torch.cat([index, index + C])
        p, g = self.p_in.weight[index], self.g_in.weight[index]
        own = self.rows.mine(mask)
        both = z.new_empty((2 * width, I, N), dtype=p.dtype)
        for rows in chunks(I, N * (C + 4 * width) * 4, z.device):
            x = self.norm_in(z[rows]).to(p.dtype)
            gated = (x @ p.T) * (x @ g.T).sigmoid()
            pair_mask = (own[rows, None] * mask)[..., None].to(p.dtype)
            both[:, rows] = (gated * pair_mask).permute(2, 0, 1)
        a, b = both[:width], both[width:]
        return (b, a) if self.incoming else (a, b)


class GatedAttention(nn.Module):
    """The projections of triangle attention, under the names of the checkpoint."""

    def __init__(self, dim: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_width
        self.linear_q = Linear(dim, inner)
        self.linear_k = Linear(dim, inner)
        self.linear_v = Linear(dim, inner)
        self.linear_o = Linear(inner, dim)
        self.linear_g = Linear(dim, inner)

    def forward(
        self, x: Float[Tensor, "R N C"], bias: Float[Tensor, "H N N"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "R N C"]:
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, -1)) for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        o = triangle_attention(q, k, v, bias, mask).flatten(-2)
        return self.linear_o(o * self.linear_g(x).sigmoid())


class TriangleAttention(nn.Module):
    """Each row of z attends over its columns; the columns over their rows when `ending`: AlphaFold 3, 14, 15.

    Rows are whole, so the softmax is local. The bias, one number per head and pair, is the only N x N array that
    every rank holds.
    """

    def __init__(self, dim: int, num_heads: int, head_width: int, rows: Rows, ending: bool) -> None:
        super().__init__()
        self.rows, self.ending = rows, ending
        self.layer_norm = LayerNorm(dim)
        self.linear = Linear(dim, num_heads)
        self.mha = GatedAttention(dim, num_heads, head_width)

    def forward(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> Float[Tensor, "I N C"]:
        if not self.ending:
            return self._starting(z, mask)
        return self.rows.transpose(self._starting(self.rows.transpose(z), mask))

    def _starting(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> Float[Tensor, "I N C"]:
        I, N, C = z.shape
        bias = z.new_empty((I, self.mha.num_heads, N), dtype=self.linear.weight.dtype)
        for rows in chunks(I, N * C * 8, z.device):
            bias[rows] = self.linear(self.layer_norm(z[rows])).transpose(1, 2)
        whole = self.rows.gather(bias).transpose(0, 1)
        inner = self.mha.linear_q.out_features
        return add_by_rows(z, lambda rows: self.mha(self.layer_norm(z[rows]), whole, mask), N * (2 * C + 5 * inner) * 4)
