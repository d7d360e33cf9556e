"""Training examples made ahead in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from foldcp.training.data.dataset import TrainingDataset
from foldcp.training.example import TrainingExample

MAX_REPLACED = 10  # examples in a row that cannot be made


def prefetch(
    dataset: TrainingDataset, seeds: Iterable[int], *, workers: int, ahead: int = 2
) -> Iterator[TrainingExample]:
    """`draw_or_replace` of each seed in their order; each worker has up to `ahead` waiting.

    Without workers they are made as they are asked for. Raises ValueError as `draw_or_replace`
    does, and RuntimeError when a worker has died.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"{workers} workers with {ahead} examples ahead: too few")
    if not workers:
        yield from map(partial(draw_or_replace, dataset), seeds)
        return
    loader = DataLoader(
        _Draws(dataset),
        batch_size=None,
        sampler=_Seeds(seeds),
        num_workers=workers,
        prefetch_factor=ahead,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        # Forked processes may not use CUDA, and inherit locks.
        multiprocessing_context="spawn",
    )
    made = iter(loader)
    while True:
        try:
            packed = next(made)
        except StopIteration:
            return
        except RuntimeError as error:
            raise RuntimeError(
                f"a process that makes training examples has died ({error}); too little memory is "
                "a usual cause: fewer workers, or smaller crops"
            ) from error
        if isinstance(packed, _Failure):
            raise ValueError(packed.reason)
        yield _unpack(packed)


def draw_or_replace(dataset: TrainingDataset, seed: int) -> TrainingExample:
    """`dataset.draw(seed)`; where that example cannot be made, which is said on stderr, the one of
    another seed, which follows from this one.

    Raises ValueError naming the last structure when too many in a row cannot be made.
    """
    reason = ""
    for _ in range(MAX_REPLACED):
        try:
            return dataset.draw(seed)
        except ValueError as error:
            reason = str(error)
            print(f"an example is replaced by another one: {reason}", file=sys.stderr)
            seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    raise ValueError(f"{MAX_REPLACED} examples in a row could not be made; the last: {reason}")


@dataclass(frozen=True)
class _Failure:
    """An example that could not be made."""

    reason: str


@dataclass(frozen=True)
class _PackedTensor:
    """A tensor as it travels between processes: a shared one would hold an open file in each, of
    which an example has some fifty. `stored` is what it does not repeat.
    """

    stored: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _PackedObject:
    """A dataclass as it travels."""

    kind: type
    values: dict[str, Any]


def _pack(x: Any) -> Any:
    if isinstance(x, Tensor):
        stored = x[tuple(slice(None) if stride else slice(0, 1) for stride in x.stride())]
        return _PackedTensor(stored.contiguous().numpy(), tuple(x.shape))
    if is_dataclass(x) and not isinstance(x, type):
        return _PackedObject(
            type(x), {each.name: _pack(getattr(x, each.name)) for each in fields(x)}
        )
    return x


def _unpack(x: Any) -> Any:
    if isinstance(x, _PackedTensor):
        return torch.from_numpy(x.stored).expand(x.shape)
    if isinstance(x, _PackedObject):
        return x.kind(**{name: _unpack(value) for name, value in x.values.items()})
    return x


class _Draws(Dataset[Any]):
    """Packed examples by seed; a ValueError is returned, so that its text comes as it is."""

    def __init__(self, dataset: TrainingDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> _PackedObject | _Failure:
        try:
            return _pack(draw_or_replace(self.dataset, index))
        except ValueError as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _Seeds:
    """The seeds as the loader asks for them."""

    seeds: Iterable[int]

    def __iter__(self) -> Iterator[int]:
        return iter(self.seeds)


def _as_it_is(made: Any) -> Any:
    return made


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
