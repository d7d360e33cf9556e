"""Training examples made ahead in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from foldcp.training.data.dataset import TrainingDataset
from foldcp.training.example import TrainingExample


def prefetch(
    dataset: TrainingDataset, seeds: Iterable[int], *, workers: int, ahead: int = 2
) -> Iterator[TrainingExample]:
    """`dataset.draw(seed)` of each seed in their order; each worker has up to `ahead` waiting.

    Without workers they are made as they are asked for. Raises ValueError as `draw` does, and
    RuntimeError when a worker has died.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"{workers} workers with {ahead} examples ahead: too few")
    if not workers:
        yield from map(dataset.draw, seeds)
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
    examples = iter(loader)
    while True:
        try:
            made = next(examples)
        except StopIteration:
            return
        except RuntimeError as error:
            raise RuntimeError(
                f"a process that makes training examples has died ({error}); too little memory is "
                "a usual cause: fewer workers, or smaller crops"
            ) from error
        if isinstance(made, _Failure):
            raise ValueError(made.reason)
        yield made


@dataclass(frozen=True)
class _Failure:
    """An example that could not be made."""

    reason: str


class _Draws(Dataset[Any]):
    """Examples by seed; a ValueError is returned, so that its text comes as it is."""

    def __init__(self, dataset: TrainingDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> TrainingExample | _Failure:
        try:
            return self.dataset.draw(index)
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
    import torch

    torch.set_num_threads(1)
