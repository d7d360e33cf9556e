"""Memory of a training step: no rank has an array of all pairs of tokens or atoms, in losses or in
gradients, and what it has of pairs of tokens grows as N^2 / P.

The one exception, here as in a prediction, is the bias of triangle attention, whole on each rank,
and the scores of a row.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foldcp.complex import Chain, Complex
from foldcp.config import TINY
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.featurize import featurize
from foldcp.kernels.triangle_attention import reference as triangle_attention
from foldcp.model.boltz2 import Boltz2
from foldcp.training.example import TrainingExample
from foldcp.training.gradients import require_gradients
from foldcp.training.settings import LossWeights, TrainingSettings
from foldcp.training.step import training_step
from tests.support.distributed import run
from tests.training.examples import truth_of

SEQUENCE = "MKWAYIFKQRWISFVKYHFWR"  # its number of atoms is the length of no other axis
HEADS = 5  # of triangle attention: no other array has an axis of this length
ARCHITECTURE = replace(TINY, pair_heads=HEADS)
SETTINGS = TrainingSettings(
    weights=LossWeights(diffusion=1.0, distogram=1.0, bfactor=1.0, confidence=1.0),
    recycling=1,
    random_recycling=False,
    multiplicity=2,
    sampling_steps=2,
    checkpointing="blocks",
)


class Found(NamedTuple):
    """What a rank had."""

    whole: set[tuple[int, ...]]  # shapes with two axes of all tokens or atoms
    peak: int  # bytes of arrays of its pairs of tokens


class PairArrays(TorchDispatchMode):
    """Looks at the result of every operation, those of the gradients too."""

    def __init__(self, num_tokens: int, num_rows: int, num_atoms: int) -> None:
        super().__init__()
        self.whole_axes = (num_tokens, num_atoms)
        self.pair_axes = (num_tokens, num_rows)
        self.whole: set[tuple[int, ...]] = set()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and HEADS not in leaf.shape:
                self._look(leaf)
        return out

    def _look(self, x: Tensor) -> None:
        if sum(size in self.whole_axes for size in x.shape) > 1:
            self.whole.add(tuple(x.shape))
        if sum(size in self.pair_axes for size in x.shape) > 1:
            storage = x.untyped_storage()
            self.live = {key: item for key, item in self.live.items() if not item[0].expired()}
            self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.peak = max(self.peak, sum(size for _, size in self.live.values()))


def example_of(num_tokens: int) -> TrainingExample:
    chains = [Chain(name, "protein", SEQUENCE[: num_tokens // 2]) for name in "AB"]
    features = featurize(Complex("dimer", tuple(chains)))
    return TrainingExample(features, truth_of(features, 1, 3), "dimer")


def step(cp: ContextParallel, num_tokens: int) -> Found:
    torch.manual_seed(0)
    model = Boltz2(ARCHITECTURE, cp)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    require_gradients(model, SETTINGS.weights)
    example = example_of(num_tokens).pad(cp.size)
    features = example.features
    with PairArrays(num_tokens, num_tokens // cp.size, features.num_atoms) as looked:
        training_step(model, example, SETTINGS, torch.Generator().manual_seed(5))
    return Found(looked.whole, looked.peak)


@cache
def on_ranks(num_ranks: int, num_tokens: int) -> list[Found]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triangle_attention, "MAX_SCORE_BYTES", 1)  # a row at a time
        return run(step, num_ranks, num_tokens)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_no_rank_has_all_pairs(num_ranks: int) -> None:
    for found in on_ranks(num_ranks, 42):
        assert not found.whole


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_pairs_of_a_rank_are_its_share(num_ranks: int) -> None:
    (alone,) = on_ranks(1, 42)
    for found in on_ranks(num_ranks, 42):
        assert found.peak < 1.1 * alone.peak / num_ranks


def test_pairs_of_a_rank_grow_with_the_square_of_the_tokens() -> None:
    for small, large in zip(on_ranks(2, 18), on_ranks(2, 42), strict=True):
        assert large.peak / small.peak == pytest.approx((42 / 18) ** 2, rel=0.05)
