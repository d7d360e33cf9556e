"""When layers are recorded, and what a recording is given, on a CPU: a graph of the test runs
its function again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from foldcp.config import UNTRAINED
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, _Recording
from foldcp.model.trunk import pairformer
from foldcp.model.trunk.pairformer import Pairformer, PairformerFn


@dataclass
class Graph:
    """Reads and writes the memory of when it was recorded, as a CUDA graph does."""

    recorded: CUDAGraphWrapper[Any]
    given: list[Tensor]
    result: tuple[Tensor, ...]

    def replay(self) -> None:
        for place, x in zip(self.result, self.recorded.function(*self.given), strict=True):
            if place is not x:
                place.copy_(x)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    made: list[Graph] = []

    def record(self: CUDAGraphWrapper[Any], given: tuple[Tensor, ...]) -> _Recording[Any]:
        held = [x if index < self.updated else x.clone() for index, x in enumerate(given)]
        trial = [x.clone() for x in held]
        result = tuple(
            next((h for h, t in zip(held, trial, strict=True) if t is x), x)
            for x in self.function(*trial)
        )
        made.append(Graph(self, held, result))
        return _Recording(made[-1].replay, held, result)

    monkeypatch.setattr(CUDAGraphWrapper, "_record", record)
    monkeypatch.setattr(pairformer, "new_pool", lambda: None)
    monkeypatch.setattr(pairformer, "can_capture", lambda _: not torch.is_grad_enabled())
    return made


def stack_of_seven() -> Pairformer:
    torch.manual_seed(0)
    stack = Pairformer(UNTRAINED["tiny"], 7, UNTRAINED["tiny"].token_heads, ContextParallel())
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
    given = s.clone()
    got = refine(s, z)
    assert got[1].dtype == dtype
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    assert torch.equal(s, given)


def mask_of(num_tokens: int, size: int) -> Tensor:
    return (torch.arange(size) < num_tokens).float()


@torch.inference_mode()
def test_layers_are_recorded_once_for_all_complexes_of_a_size(
    recordings: list[Graph],
) -> None:
    stack = stack_of_seven()
    for num_tokens in (13, 16, 11):
        mask = mask_of(num_tokens, 16)
        refine = stack.repeated(mask, times=3)
        for _ in range(3):
            agrees(refine, stack, mask)
    assert len(recordings) == 3, "the first layer, four, and the last two"
    agrees(stack.repeated(mask, times=1), stack, mask)
    mask = mask_of(17, 20)
    agrees(stack.repeated(mask, times=2), stack, mask)
    assert len(recordings) == 5, "all but the first layer of the other size"


@torch.inference_mode()
def test_a_type_and_other_weights_are_recorded_apart(recordings: list[Graph]) -> None:
    stack = stack_of_seven()
    mask = mask_of(9, 12)
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        refine = stack.repeated(mask, times=2)
        agrees(refine, stack, mask, dtype)
        agrees(refine, stack, mask, dtype)
    assert len(recordings) == 6
    for parameter in stack.parameters():
        parameter.data = 1.1 * parameter.data
    refine = stack.repeated(mask, times=2)
    agrees(refine, stack, mask)
    agrees(refine, stack, mask)
    assert len(recordings) == 9


def test_what_is_used_once_or_large_or_differentiated_is_not_recorded(
    recordings: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of_seven()
    mask = mask_of(9, 12)
    with torch.inference_mode():
        agrees(stack.repeated(mask, times=1), stack, mask)
        assert not recordings
        refine = stack.repeated(mask, times=2)
        agrees(refine, stack, mask)
        assert recordings
    assert stack.repeated(mask, times=2)(*leaves(12))[0].requires_grad
    assert stack.recorded is None, "its memory is kept"
    monkeypatch.setattr(pairformer, "MOST_TOKENS", 11)
    del recordings[:]
    with torch.inference_mode():
        refine = stack.repeated(mask, times=2)
        agrees(refine, stack, mask)
        agrees(refine, stack, mask)
    assert not recordings


def leaves(size: int) -> tuple[Tensor, Tensor]:
    tiny = UNTRAINED["tiny"]
    return torch.randn(size, tiny.token_s, requires_grad=True), torch.randn(
        size, size, tiny.token_z
    )
