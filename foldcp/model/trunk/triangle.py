"""The two triangle updates of the pair representation; each is one class for both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels import (
    projection,
    quantization,
    triangle_attention,
    triangle_multiplication,
)
from foldcp.kernels.blocks import cat_blocks
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.projection import (
    AddAttentionOutput,
    AttentionOutputWeights,
    Projection,
    ProjectionWeights,
)
from foldcp.kernels.quantization import Int8Pairs
from foldcp.kernels.triangle_attention import RowAttention
from foldcp.kernels.triangle_multiplication import (
    GatedOutputWeights,
    GatedProjectionWeights,
)
from foldcp.model.layers.chunking import ChunkBudget, map_rows_
from foldcp.model.layers.layers import KernelModule, LayerNorm, Linear

INT8_CHUNK_FRACTION = 8

# Some rows of this rank's -> their products [C, R, N]
ProductRows = Callable[[slice], Tensor]


class TriangleMultiplication(KernelModule):
    """z_ij += gate * p_out(norm(sum_k a_ik b_jk)), or with a_ki b_kj when `incoming`: AlphaFold 3,
    algorithms 12, 13.

    Outgoing, the rows of b come by from all ranks, a block at a time. Incoming, they are terms of
    the sum instead, and meet the columns of a that stand in this rank's rows of the result; z
    itself never moves.

    With `keep_int8` the products wait for the other channels' in 8 bits, but where a gradient is
    wanted.
    """

    keep_int8 = False

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
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        weights_in = self._weights_in(slice(None))
        weights_out = self._weights_out()
        self.gated_projection = triangle_multiplication.choose_projection(backend, weights_in)
        self.add_gated_output = triangle_multiplication.choose_output(backend, weights_out)
        self.quantization = quantization.choose(backend, weights_out.p_out.dtype)

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        N = z.shape[1]
        weights = self._weights_out()
        bytes_per_row = self.add_gated_output.bytes_per_row(N, weights)
        if self.keep_int8 and not torch.is_grad_enabled():
            product_rows = self._product_in_int8(z, mask)
            bytes_per_row += self._bytes_read(N)
        else:
            product_rows = self._product(z, mask)

        def output(rows: slice) -> Float[Tensor, "R N C"]:
            return self.add_gated_output(z[rows], product_rows(rows), weights)

        return map_rows_(z, output, bytes_per_row, self._chunk_budget(z))

    def _chunk_budget(self, z: Float[Tensor, "I N C"]) -> ChunkBudget:
        """In 8 bits chunks take an eighth of z at most, lest they take what is saved."""
        if not self.keep_int8:
            return self.budget
        return self.budget.at_most(z.nbytes // INT8_CHUNK_FRACTION, z.device)

    def _product(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> ProductRows:
        I, N, C = z.shape
        product = z.new_empty((C, I, N), dtype=self.p_in.weight.dtype)
        for channels in self._channel_chunks(z):
            self._multiply(z, mask, channels, product[channels])
        return lambda rows: product[:, rows]

    def _product_in_int8(self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]) -> ProductRows:
        """Half the memory, and the product of a chunk of channels."""
        I, N, C = z.shape
        dtype = self.p_in.weight.dtype
        kept = Int8Pairs.empty(C, I, N, z.device)
        for channels in self._channel_chunks(z):
            num_channels = len(range(C)[channels])
            product = z.new_empty((num_channels, I, N), dtype=dtype)
            self._multiply(z, mask, channels, product)
            self.quantization.write(product, kept.channels(channels))
            del product  # before the next one is allocated
        return lambda rows: self.quantization.read(kept.rows(rows), dtype)

    def _bytes_read(self, N: int) -> int:
        """Bytes of a row of products that is no longer in 8 bits."""
        weight = self.p_out.weight
        return self.quantization.bytes_per_row(weight.shape[1], N, weight.dtype)

    def _multiply(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"],
        channels: slice,
        product: Float[Tensor, "D I N"],
    ) -> None:
        """Write the products of a chunk of channels."""
        a, b = self._operands(z, mask, channels)
        multiply = self._multiply_incoming if self.incoming else self._multiply_outgoing
        multiply(product, a, b)

    def _multiply_outgoing(
        self,
        product: Float[Tensor, "D I N"],
        a: Float[Tensor, "D I N"],
        b: Float[Tensor, "D I N"],
    ) -> None:
        I = a.shape[1]
        for chunk, owner, block in self.cp.pipelined_all_gather(b):
            columns = slice(owner * I, (owner + 1) * I)
            _write_product(product[chunk, :, columns], a[chunk], block.transpose(1, 2))

    def _multiply_incoming(
        self,
        product: Float[Tensor, "D I N"],
        a: Float[Tensor, "D I N"],
        b: Float[Tensor, "D I N"],
    ) -> None:
        for chunk, owner, columns, block in self.cp.pipelined_all_to_all(a, b):
            add = owner != self.cp.rank
            _write_product(product[chunk], columns.transpose(1, 2), block, add)

    def _channel_chunks(self, z: Float[Tensor, "I N C"]) -> list[slice]:
        """As many channels at a time as the budget holds operands of: a, b, and one block on its
        way.
        """
        I, N, C = z.shape
        num_arrays = 5 if self.keep_int8 else 4  # their product, too
        bytes_per_channel = num_arrays * I * N * self.p_in.weight.element_size()
        return self._chunk_budget(z).chunks(C, bytes_per_channel, z.device)

    def _operands(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"], channels: slice
    ) -> tuple[Float[Tensor, "D I N"], Float[Tensor, "D I N"]]:
        """a and b of a chunk of channels, channels first; zero where the sum's index is padding."""
        I, N, _ = z.shape
        weights = self._weights_in(channels)
        row_mask = self.cp.shard(mask)[:, None]
        blocks = []
        bytes_per_row = self.gated_projection.bytes_per_row(N, weights)
        for rows in self.budget.chunks(I, bytes_per_row, z.device):
            summed_mask = row_mask[rows] if self.incoming else mask
            blocks.append(self.gated_projection(z[rows], summed_mask, weights))
        a, b = cat_blocks(blocks, 1).chunk(2)
        return a, b

    def _weights_in(self, channels: slice) -> GatedProjectionWeights:
        """The weights of a chunk of channels of a and of b, which the checkpoint stacks."""
        dim = self.p_out.in_features
        p_in, g_in = (
            weight.unflatten(0, (2, dim))[:, channels].flatten(0, 1)
            for weight in (self.p_in.weight, self.g_in.weight)
        )
        return GatedProjectionWeights(self.norm_in.weight, self.norm_in.bias, p_in, g_in)

    def _weights_out(self) -> GatedOutputWeights:
        return GatedOutputWeights(
            norm_weight=self.norm_in.weight,
            norm_bias=self.norm_in.bias,
            norm_out_weight=self.norm_out.weight,
            norm_out_bias=self.norm_out.bias,
            p_out=self.p_out.weight,
            g_out=self.g_out.weight,
        )


def _write_product(
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
    """The weights of triangle attention under the names of the checkpoint; without `forward`, as
    `TriangleAttention` computes with them.
    """

    def __init__(self, dim: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_width
        self.linear_q = Linear(dim, inner)
        self.linear_k = Linear(dim, inner)
        self.linear_v = Linear(dim, inner)
        self.linear_o = Linear(inner, dim)
        self.linear_g = Linear(dim, inner)


class TriangleAttention(KernelModule):
    """Each row of z attends over its columns; the columns over their rows when `ending`: AlphaFold
    3, algorithms 14, 15.

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
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        dtype = self.mha.linear_q.weight.dtype
        channels = self.mha.linear_q.in_features
        self.bias_projection = projection.choose(backend, self._bias_weights())
        self.qkv_projection = projection.choose(backend, self._qkv_weights())
        self.attention = triangle_attention.choose(backend, dtype, channels)
        self.add_output = projection.choose_output(backend, self._output_weights())

    def forward(
        self, z: Float[Tensor, "I N C"], mask: Float[Tensor, " N"]
    ) -> Float[Tensor, "I N C"]:
        _, N, C = z.shape
        attend = TriangleAttentionRows(
            self.qkv_projection,
            self.attention.under(self._bias(z), mask),
            self.add_output,
            self.mha.num_heads,
            self._qkv_weights(),
            self._output_weights(),
        )
        linear_q = self.mha.linear_q
        bytes_per_row = self.attention.bytes_per_row(
            N, C, linear_q.out_features, linear_q.weight.dtype
        )
        if self.ending:
            # and the chunks that arrive, are computed and return
            bytes_per_column = bytes_per_row + 7 * N * C * z.element_size()
            max_columns = self.budget.rows_per_chunk(bytes_per_column, z.device)
            return self.cp.map_columns(z, attend, max_columns)

        def attend_rows(rows: slice) -> Tensor:
            return attend([z[rows]])[0]

        return map_rows_(z, attend_rows, bytes_per_row, self.budget)

    def _bias(self, z: Float[Tensor, "I N C"]) -> Float[Tensor, "H N N"]:
        """One number per head, query and key, whole on every rank. Rows of z are its queries or,
        when `ending`, its keys, so that they need not move.
        """
        I, N, _ = z.shape
        weights = self._bias_weights()
        bytes_per_row = self.bias_projection.bytes_per_row(N, weights)
        blocks = [
            self.bias_projection.channels_first(z[rows], weights)
            for rows in self.budget.chunks(I, bytes_per_row, z.device)
        ]
        bias = self.cp.all_gather(cat_blocks(blocks, 1), 1)
        return bias.transpose(1, 2) if self.ending else bias

    def _bias_weights(self) -> ProjectionWeights:
        return ProjectionWeights(self.layer_norm.weight, self.layer_norm.bias, self.linear.weight)

    def _qkv_weights(self) -> ProjectionWeights:
        mha = self.mha
        stacked = torch.cat([mha.linear_q.weight, mha.linear_k.weight, mha.linear_v.weight])
        return ProjectionWeights(self.layer_norm.weight, self.layer_norm.bias, stacked)

    def _output_weights(self) -> AttentionOutputWeights:
        return AttentionOutputWeights(
            norm_weight=self.layer_norm.weight,
            norm_bias=self.layer_norm.bias,
            gate=self.mha.linear_g.weight,
            out=self.mha.linear_o.weight,
        )


@dataclass(frozen=True)
class TriangleAttentionRows:
    """z + attention for some rows of z, which come in blocks; in place where no gradient is
    wanted.
    """

    project: Projection
    attend: RowAttention  # under the bias of all rows
    add_output: AddAttentionOutput
    num_heads: int
    qkv_weights: ProjectionWeights
    output_weights: AttentionOutputWeights

    def __call__(self, blocks: list[Float[Tensor, "R J C"]]) -> list[Float[Tensor, "R J C"]]:
        attended = self._attended(blocks)
        widths = [z.shape[1] for z in blocks]
        return [
            self.add_output(z, of_block, self.output_weights)
            for z, of_block in zip(blocks, attended.split(widths, 1), strict=True)
        ]

    def _attended(self, blocks: list[Float[Tensor, "R J C"]]) -> Float[Tensor, "R N D"]:
        """The output of all heads; q, k and v are freed when this returns."""
        qkv = self.project.qkv(blocks, self.qkv_weights, self.num_heads)
        return self.attend(*qkv).flatten(-2)
