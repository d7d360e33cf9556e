"""The score network as one launch: on a GPU a step of a small complex is recorded once and replayed 199 times."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from foldcp.model.diffusion import Prepared, ScoreModel

Score = Callable[[Tensor, Tensor], Tensor]  # scaled coordinates [M, A, 3], scaled noise level [1] -> update [M, A, 3]

# Above this, launching the kernels takes no time worth saving, and a recording's memory is.
MOST_TOKENS = 3000


def replayed(model: ScoreModel, prepared: Prepared) -> Score:
    """The score network with `prepared` given; recorded where that is faster and no gradient is wanted."""
    score = partial(_score, model, prepared)
    small = prepared.features.num_tokens <= MOST_TOKENS
    return Recorded(score) if prepared.q.is_cuda and small and not torch.is_grad_enabled() else score


def _score(model: ScoreModel, prepared: Prepared, r: Tensor, time: Tensor) -> Tensor:
    return model(r, time, prepared)


class Recorded:
    """A CUDA graph per shape of input. Results live in the graph's memory until the next call."""

    def __init__(self, function: Score) -> None:
        self.function = function
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = {}

    def __call__(self, r: Tensor, time: Tensor) -> Tensor:
        if r.shape not in self.graphs:
            self.graphs[r.shape] = self._record(r, time)
        graph, given_r, given_time, update = self.graphs[r.shape]
        given_r.copy_(r)
        given_time.copy_(time)
        graph.replay()
        return update

    def _record(self, r: Tensor, time: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        r, time = r.clone(), time.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.function(r, time)  # kernels are compiled and workspaces made outside the recording
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            update = self.function(r, time)
        return graph, r, time, update
