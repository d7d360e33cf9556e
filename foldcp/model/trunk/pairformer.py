"""The pairformer: blocks that refine the pair representation and, with it, the single
representation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foldcp.config import Architecture
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.kernels import pair_bias_attention, tf32_linear
from foldcp.kernels.dispatch import Backend
from foldcp.kernels.pair_bias_attention import PairBiasAttention
from foldcp.kernels.tf32_linear import LinearOps
from foldcp.model.layers.blocks import RunBlock, add_update, run_block
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.cuda_graph import (
    CUDAGraphWrapper,
    can_capture,
    new_pool,
    stream_of,
)
from foldcp.model.layers.layers import (
    KernelModule,
    LayerNorm,
    Linear,
    NormLinear,
    Transition,
)
from foldcp.model.trunk.triangle import TriangleAttention, TriangleMultiplication
from foldcp.progress import OnSteps, no_steps

# Of a rank. With more, the launches of a layer take less time than its work, and a graph's memory
# counts.
MAX_GRAPH_PAIRS = 1024**2
LAYERS_PER_GRAPH = 4


class PairBlock(nn.Module):
    """The five updates of z; no single representation."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.tri_mul_out = TriangleMultiplication(dim, cp, budget, incoming=False)
        self.tri_mul_in = TriangleMultiplication(dim, cp, budget, incoming=True)
        self.tri_att_start = TriangleAttention(dim, num_heads, head_width, cp, budget, ending=False)
        self.tri_att_end = TriangleAttention(dim, num_heads, head_width, cp, budget, ending=True)
        self.transition_z = Transition(dim, 4 * dim)

    def forward(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"],
        scales: Float[Tensor, "4 N"] | None = None,
    ) -> Float[Tensor, "I N C"]:
        """In training, dropout multiplies the first four updates by `scales`: those of a row by one
        number, those of a column at the ending node.
        """
        of_rows = of_columns = None
        if scales is not None:
            of_rows = self.cp.shard(scales[:3], 1)[..., None]
            of_columns = scales[3]
        updates = (self.tri_mul_out, self.tri_mul_in, self.tri_att_start)
        for index, update in enumerate(updates):
            z = add_update(update, z, mask, None if of_rows is None else of_rows[index])
        z = add_update(self.tri_att_end, z, mask, of_columns)
        return self.transition_z.add_to(z, self.budget)


class AttentionPairBias(KernelModule):
    """Tokens attend to tokens, biased by the pair representation: AlphaFold 3, algorithm 24
    without conditioning.

    In fp32, but where a kernel attends under a bias in bf16: then q, k, v, the gate and what is
    attended to are fp16, and `tf32` lets other products be in TF32. Where gradients are enabled all
    is fp32.
    """

    tf32 = False

    def __init__(
        self,
        dim: int,
        pair_dim: int,
        num_heads: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.budget = budget
        self.num_heads = num_heads
        self.proj_q = Linear(dim, dim, bias=True)
        self.proj_k = Linear(dim, dim)
        self.proj_v = Linear(dim, dim)
        self.proj_g = Linear(dim, dim)
        self.proj_z = NormLinear(pair_dim, num_heads)
        self.proj_o = Linear(dim, dim)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        dtype = self.proj_z.linear.weight.dtype
        width = self.proj_q.weight.shape[0] // self.num_heads
        self.pair_bias_attention = pair_bias_attention.choose(backend, dtype, width)
        self.linear_ops = tf32_linear.choose(backend, self.tf32)

    def forward(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
    ) -> Float[Tensor, "I C"]:
        I, N, _ = z.shape
        attention = self.pair_bias_attention
        ops = self.linear_ops
        if torch.is_grad_enabled():
            attention = PairBiasAttention()
            ops = LinearOps()
        # From one product: for small complexes launches count.
        weights = [layer.weight for layer in (self.proj_q, self.proj_k, self.proj_v, self.proj_g)]
        dtype = attention.input_dtype(self.proj_q.weight.dtype)
        projected = ops.linear(s, weights, self.proj_q.bias, dtype=dtype)
        C = s.shape[-1]
        q, kv, gate = projected.split([C, 2 * C, C], -1)
        k, v = self.cp.all_gather(kv).chunk(2, -1)
        q, k, v, gate = (x.unflatten(-1, (self.num_heads, -1))[None] for x in (q, k, v, gate))
        bytes_per_row = self.proj_z.bytes_per_row(N)
        bytes_per_row += N * 3 * self.num_heads * 4  # the bias, masked, and its copy for attention
        o = []
        for rows in self.budget.chunks(I, bytes_per_row, z.device):
            bias = self.proj_z.channels_first(z[rows])
            o.append(attention(q[:, rows], k, v, gate[:, rows], bias, mask)[0])
        attended = o[0] if len(o) == 1 else torch.cat(o)
        return ops.linear(attended.flatten(1), [self.proj_o.weight])


class PairformerLayer(PairBlock):
    """A pair block, then attention and a transition on s with the new z as bias. s is fp32
    throughout, as in Boltz.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_heads: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        a = architecture
        super().__init__(a.token_z, a.pair_heads, a.pair_head_width, cp, budget)
        self.pre_norm_s = LayerNorm(a.token_s)
        self.attention = AttentionPairBias(a.token_s, a.token_z, num_heads, cp, budget)
        self.transition_s = Transition(a.token_s, 4 * a.token_s)

    def update(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
        scales: Float[Tensor, "4 N"] | None = None,
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I N Z"]]:
        z = self(z, mask, scales)
        s = s + self.attention(self.pre_norm_s(s), z, mask)
        return s + self.transition_s(s), z


@runtime_checkable
class PairformerFn(Protocol):
    """s and z -> the same, refined; z in place. `on_steps` hears of the blocks that are done."""

    def __call__(
        self, s: Tensor, z: Tensor, on_steps: OnSteps = no_steps, /
    ) -> tuple[Tensor, Tensor]: ...


LayersGraph = CUDAGraphWrapper[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class GraphedLayers:
    """All layers as CUDA graphs, some layers each, and what they are valid for."""

    key: list[int]  # the numbers of tokens and ranks, and where weights are
    graphs: list[LayersGraph]
    num_layers: list[int]  # of each graph


class Pairformer(nn.Module):
    """A stack of layers on s and z."""

    def __init__(
        self,
        architecture: Architecture,
        num_blocks: int,
        num_heads: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.cp = cp
        self.layers = nn.ModuleList(
            PairformerLayer(architecture, num_heads, cp, budget) for _ in range(num_blocks)
        )
        self.graphed_layers: dict[int, GraphedLayers] = {}  # of each stream that replays some

    def forward(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
        on_steps: OnSteps = no_steps,
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I N Z"]]:
        """`on_steps` is called after every block."""
        for layer in self.layers:
            z, s = _run_layers([layer], z, s, mask)
            on_steps(1)
        return s, z

    def train_forward(
        self,
        s: Float[Tensor, "I C"],
        z: Float[Tensor, "I N Z"],
        mask: Float[Tensor, " N"],
        scales: Sequence[Float[Tensor, "4 N"] | None],
        run: RunBlock,
    ) -> tuple[Float[Tensor, "I C"], Float[Tensor, "I N Z"]]:
        """The same with dropout, one set of scales a layer; `run` runs each layer."""
        for layer, of_layer in zip(self.layers, scales, strict=True):
            assert isinstance(layer, PairformerLayer)
            s, z = run(layer.update, s, z, mask, of_layer)
        return s, z

    def graphed(self, mask: Float[Tensor, " N"], num_calls: int) -> PairformerFn:
        """The stack under this mask for several calls, as CUDA graphs where that is faster.

        Of a small complex the first call is captured, some layers at a time, while the layers
        before them run; the other calls are replays, as are all of the next complex if it has as
        many tokens. s, and z as it is returned, then live until the next call. Every stream has
        graphs of its own, so that complexes in several of them do not wait for each other.
        """
        small = len(mask) ** 2 <= MAX_GRAPH_PAIRS * self.cp.size
        layers = None
        if small and can_capture(mask.device):
            layers = self._layers_of_stream(mask, num_calls)
        else:
            self.graphed_layers.clear()
        if layers is None:
            return lambda s, z, on_steps=no_steps: self(s, z, mask, on_steps)

        def refine(s: Tensor, z: Tensor, on_steps: OnSteps = no_steps, /) -> tuple[Tensor, Tensor]:
            for graph, num_layers in zip(layers.graphs, layers.num_layers, strict=True):
                z, s = graph(z, s, mask)
                on_steps(num_layers)
            return s, z

        return refine

    def _layers_of_stream(self, mask: Float[Tensor, " N"], num_calls: int) -> GraphedLayers | None:
        """The graphs of the current stream, if there are any that are valid or several calls for
        new ones.
        """
        # Weights move together, and to look at those of all layers takes 5 ms.
        weights = chain(self.layers[0].parameters(), self.layers[-1].parameters())
        key = [len(mask), self.cp.size, *(weight.data_ptr() for weight in weights)]
        for stream, of_stream in list(self.graphed_layers.items()):
            if of_stream.key != key:
                self.graphed_layers.pop(stream, None)
        stream = stream_of(mask.device)
        if num_calls > 1 and stream not in self.graphed_layers:
            self.graphed_layers[stream] = self._graphed_layers(key)
        return self.graphed_layers.get(stream)

    def _graphed_layers(self, key: list[int]) -> GraphedLayers:
        pool = new_pool()
        first, *others = self.layers  # the first compiles what the others need
        run = partial(_run_fenced, self.cp, [first])
        graphs = [CUDAGraphWrapper(run, pool, num_inplace_args=1)]
        num_layers = [1]
        for chunk in split_range(len(others), LAYERS_PER_GRAPH):
            run = partial(_run_fenced, self.cp, others[chunk])
            graphs.append(CUDAGraphWrapper(run, pool, num_inplace_args=1, skip_warmup=True))
            num_layers.append(len(others[chunk]))
        return GraphedLayers(key, graphs, num_layers)


def _run_layers(
    layers: Iterable[nn.Module],
    z: Float[Tensor, "I N Z"],
    s: Float[Tensor, "I C"],
    mask: Float[Tensor, " N"],
) -> tuple[Float[Tensor, "I N Z"], Float[Tensor, "I C"]]:
    for layer in layers:
        assert isinstance(layer, PairformerLayer)
        s, z = layer.update(s, z, mask)
    return z, s


def _run_fenced(
    cp: ContextParallel,
    layers: Sequence[nn.Module],
    z: Float[Tensor, "I N Z"],
    s: Float[Tensor, "I C"],
    mask: Float[Tensor, " N"],
) -> tuple[Float[Tensor, "I N Z"], Float[Tensor, "I C"]]:
    cp.fence()
    z, s = _run_layers(layers, z, s, mask)
    cp.fence()
    return z, s


class PairStack(nn.Module):
    """A stack of pair blocks on z alone."""

    def __init__(
        self,
        dim: int,
        num_blocks: int,
        num_heads: int,
        head_width: int,
        cp: ContextParallel,
        budget: ChunkBudget,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PairBlock(dim, num_heads, head_width, cp, budget) for _ in range(num_blocks)
        )

    def forward(
        self,
        z: Float[Tensor, "I N C"],
        mask: Float[Tensor, " N"],
        scales: Sequence[Float[Tensor, "4 N"] | None] = (),
        run: RunBlock = run_block,
    ) -> Float[Tensor, "I N C"]:
        """In training, with dropout, one set of scales a layer; `run` runs each layer."""
        for layer, of_layer in zip_longest(self.layers, scales):
            z = run(layer, z, mask, of_layer)
        return z
