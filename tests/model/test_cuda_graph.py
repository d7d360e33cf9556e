"""Capture of layers, and inputs and outputs of graphs, on a CPU: a graph of the test runs its
function again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from foldcp.config import UNTRAINED
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import with_ranks
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, _CapturedGraph
from foldcp.model.trunk import pairformer
from foldcp.model.trunk.pairformer import Pairformer, PairformerFn
from tests.support.distributed import run


@dataclass
class Graph:
    """Reads and writes the memory of when it was captured, as a CUDA graph does."""

    wrapper: CUDAGraphWrapper[Any]
    static_inputs: list[Tensor]
    outputs: tuple[Tensor, ...]

    def replay(self) -> None:
        new = self.wrapper.function(*self.static_inputs)
        for output, x in zip(self.outputs, new, strict=True):
            if output is not x:
                output.copy_(x)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    return capture_on_cpu(monkeypatch)


def capture_on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """All that is captured from now on."""
    captured: list[Graph] = []

    def capture(self: CUDAGraphWrapper[Any], args: tuple[Tensor, ...]) -> _CapturedGraph[Any]:
        static = [x if index < self.num_inplace_args else x.clone() for index, x in enumerate(args)]
        trial = [x.clone() for x in static]
        outputs = tuple(
            next((s for s, t in zip(static, trial, strict=True) if t is x), x)
            for x in self.function(*trial)
        )
        captured.append(Graph(self, static, outputs))
        return _CapturedGraph(captured[-1].replay, static, outputs)

    monkeypatch.setattr(CUDAGraphWrapper, "_capture", capture)
    monkeypatch.setattr(pairformer, "new_pool", lambda: None)
    monkeypatch.setattr(pairformer, "can_capture", lambda _: not torch.is_grad_enabled())
    return captured


def stack_of_seven(cp: ContextParallel | None = None) -> Pairformer:
    torch.manual_seed(0)
    tiny = UNTRAINED["tiny"]
    stack = Pairformer(tiny, 7, tiny.token_heads, cp or ContextParallel(), ChunkBudget())
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return stack


def agrees(
    refine: PairformerFn, stack: Pairformer, mask: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """On fresh random numbers."""
    s, z = (x.detach() for x in leaves(len(mask)))
    z = z.to(dtype)
    expected = stack(s, z.clone(), mask)
    before = s.clone()
    got = refine(s, z)
    assert got[1].dtype == dtype
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    assert torch.equal(s, before)


def mask_of(num_tokens: int, size: int) -> Tensor:
    return (torch.arange(size) < num_tokens).float()


@torch.inference_mode()
def test_pairformer_captures_layers_once_for_all_complexes_of_a_size(
    graphs: list[Graph],
) -> None:
    stack = stack_of_seven()
    for num_tokens in (13, 16, 11):
        mask = mask_of(num_tokens, 16)
        refine = stack.graphed(mask, num_calls=3)
        for _ in range(3):
            agrees(refine, stack, mask)
    assert len(graphs) == 3, "the first layer, four, and the last two"
    agrees(stack.graphed(mask, num_calls=1), stack, mask)
    mask = mask_of(17, 20)
    agrees(stack.graphed(mask, num_calls=2), stack, mask)
    assert len(graphs) == 5, "all but the first layer of the other size"


@torch.inference_mode()
def rows_by_graphs(cp: ContextParallel) -> tuple[int, list[bool]]:
    """How many graphs a rank captures for three calls, and which of them agree with eager ones."""
    fences = 0

    def fence() -> None:
        nonlocal fences
        fences += 1

    with pytest.MonkeyPatch.context() as monkeypatch:
        graphs = capture_on_cpu(monkeypatch)
        stack = stack_of_seven(cp)
        mask = mask_of(16, 18)
        refine = stack.graphed(mask, num_calls=3)
        monkeypatch.setattr(cp, "fence", fence)
        agree = []
        for _ in range(3):
            s, z = (cp.shard(x.detach()) for x in leaves(18))
            expected = stack(s, z.clone(), mask)
            fences = 0
            got = refine(s, z.clone())
            agree += [torch.equal(x, y) for x, y in zip(got, expected, strict=True)]
        assert fences == 2 * len(graphs), "each graph begins and ends with a fence"
    return len(graphs), agree


@pytest.mark.parametrize("size", [2, 3])
def test_pairformer_captures_on_several_ranks(size: int) -> None:
    assert run(rows_by_graphs, size) == [(3, [True] * 6)] * size


@torch.inference_mode()
def test_pairformer_captures_for_each_stream(
    graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of_seven()
    mask = mask_of(9, 12)
    for stream in (1, 2, 1, 2):
        monkeypatch.setattr(pairformer, "stream_of", lambda device, stream=stream: stream)
        refine = stack.graphed(mask, num_calls=2)
        agrees(refine, stack, mask)
        agrees(refine, stack, mask)
    assert len(graphs) == 6, "three of each stream"
    assert len({id(layers) for layers in stack.graphed_layers.values()}) == 2
    stack.graphed(mask_of(14, 16), num_calls=1)
    assert not stack.graphed_layers, "both sizes do not stay"


@torch.inference_mode()
def test_pairformer_captures_again_for_other_types_and_weights(graphs: list[Graph]) -> None:
    stack = stack_of_seven()
    mask = mask_of(9, 12)
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        refine = stack.graphed(mask, num_calls=2)
        agrees(refine, stack, mask, dtype)
        agrees(refine, stack, mask, dtype)
    assert len(graphs) == 6
    for parameter in stack.parameters():
        parameter.data = 1.1 * parameter.data
    refine = stack.graphed(mask, num_calls=2)
    agrees(refine, stack, mask)
    agrees(refine, stack, mask)
    assert len(graphs) == 9


def test_pairformer_does_not_capture_single_or_large_or_differentiated_calls(
    graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of_seven()
    mask = mask_of(9, 12)
    with torch.inference_mode():
        agrees(stack.graphed(mask, num_calls=1), stack, mask)
        assert not graphs
        refine = stack.graphed(mask, num_calls=2)
        agrees(refine, stack, mask)
        assert graphs
    assert stack.graphed(mask, num_calls=2)(*leaves(12))[0].requires_grad
    assert not stack.graphed_layers, "its memory is kept"
    monkeypatch.setattr(pairformer, "MAX_GRAPH_PAIRS", 11**2)
    del graphs[:]
    with torch.inference_mode():
        refine = stack.graphed(mask, num_calls=2)
        agrees(refine, stack, mask)
        agrees(refine, stack, mask)
    assert not graphs


def leaves(size: int) -> tuple[Tensor, Tensor]:
    tiny = UNTRAINED["tiny"]
    return torch.randn(size, tiny.token_s, requires_grad=True), torch.randn(
        size, size, tiny.token_z
    )


@torch.inference_mode()
def test_pairformer_on_one_rank_does_not_replay_graphs_of_several(graphs: list[Graph]) -> None:
    stack = stack_of_seven()
    two_ranks = ContextParallel()
    two_ranks.size = 2  # of which nothing else is asked
    several = with_ranks(stack, two_ranks)
    mask = mask_of(9, 12)
    for _ in range(2):
        several.graphed(mask, num_calls=2)
        agrees(stack.graphed(mask, num_calls=2), stack, mask)
    assert len(graphs) == 4, "two each time"
    assert len(stack.graphed_layers) == 1, "those of the other number of ranks are gone"
