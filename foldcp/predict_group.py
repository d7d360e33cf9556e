"""Prediction of several small complexes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from threading import Lock

import torch
from torch import Tensor

from foldcp.features.features import Features
from foldcp.model.boltz2 import Boltz2, TrunkOutput
from foldcp.model.diffusion.conditioning import DiffusionConditioningOutput
from foldcp.model.diffusion.noise import PackedNoise
from foldcp.model.diffusion.packing import atoms_of_each, packed
from foldcp.model.diffusion.score_model import DenoiserCache
from foldcp.model.layers.transformer import Modulator
from foldcp.predict import (
    GPU_MULTIPLE,
    Prediction,
    ScoredSample,
    Settings,
    finished,
    run_trunk,
    sample_batches,
    score,
)
from foldcp.progress import Progress, ProgressCounter, StageTimer, no_progress

# Trunks of so many complexes are on the GPU at once, and so many are scored: the kernels of one do
# not fill it, and scores are the CPU's work as well.
TRUNK_STREAMS = 2
SCORE_STREAMS = 3


@dataclass(frozen=True)
class _Folded:
    """A complex after its trunk."""

    features: Features  # padded
    trunk: TrunkOutput
    conditioning: DiffusionConditioningOutput
    cache: DenoiserCache


def fold_group(
    model: Boltz2,
    group: Sequence[Features],
    settings: Settings,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Fold complexes on one GPU, each as `fold` would, up to rounding, in less time if they are
    small: trunks and scores of several run side by side, a step of the sampler is one for all, and
    layers captured as CUDA graphs serve all, for they are padded to as many tokens.

    The pairs and pair biases of all complexes are in memory at once. For complexes without forces.
    `seconds` of a complex are its share of those of all; steps of `progress` are those of all.
    Raises ValueError for a network on several ranks, for steering, and without a complex.
    """
    _check(model, group, settings)
    device = next(model.parameters()).device
    multiple = GPU_MULTIPLE if device.type == "cuda" else 1
    num_tokens = max(features.num_tokens for features in group)
    num_tokens += -num_tokens % multiple
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timer = StageTimer(device)
    with torch.inference_mode():
        with timer("trunk"):
            folded = _through_trunks(model, group, num_tokens, settings, progress)
        with timer("sampling"):
            coords = _sample(model, folded, settings, progress)
        with timer("confidence"):
            scored = _score(model, folded, coords, settings, progress)
        seconds = {stage: of_all / len(group) for stage, of_all in timer.seconds().items()}
        return [
            finished(model, each.features, of_each, scores, seconds)
            for each, of_each, scores in zip(folded, coords, scored, strict=True)
        ]


def _check(model: Boltz2, group: Sequence[Features], settings: Settings) -> None:
    if not group:
        raise ValueError("no complex to fold")
    if model.cp.size > 1:
        raise ValueError(f"a group of complexes is folded on 1 rank, not on {model.cp.size}")
    if settings.potentials:
        raise ValueError("a complex with potentials is folded alone")


class _ProgressOfAll:
    """Progress of a stage of several complexes, each of which has as many steps."""

    def __init__(self, number: int, progress: Progress) -> None:
        self._done = [0] * number
        self._progress = progress
        self._lock = Lock()  # several threads report

    def of(self, index: int) -> Progress:
        """What one of them reports its progress to."""

        def report(stage: str, done: int, total: int) -> None:
            with self._lock:
                self._done[index] = done
                self._progress(stage, sum(self._done), total * len(self._done))

        return report


@cache
def _streams(device: torch.device, number: int) -> Sequence[torch.cuda.Stream | None]:
    """Streams of a GPU, always the same ones, as they have CUDA graphs; none on a CPU."""
    if device.type != "cuda":
        return (None,)
    return tuple(torch.cuda.Stream(device) for _ in range(number))


@contextmanager
def _beside(streams: Sequence[torch.cuda.Stream | None], device: torch.device) -> Iterator[None]:
    """Within it work may be put into these streams: after what was queued before, and before what
    is queued afterwards.
    """
    for stream in streams:
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(device))
    try:
        yield
    finally:
        for stream in streams:
            if stream is not None:
                torch.cuda.current_stream(device).wait_stream(stream)


def _through_trunks(
    model: Boltz2,
    group: Sequence[Features],
    num_tokens: int,
    settings: Settings,
    progress: Progress,
) -> list[_Folded]:
    device = next(model.parameters()).device
    modulator = model.structure_module.score_model.modulator()
    of_all = _ProgressOfAll(len(group), progress)
    streams = _streams(device, TRUNK_STREAMS)
    folded = []
    with _beside(streams, device):
        for index, (features, stream) in enumerate(zip(group, cycle(streams))):
            with torch.cuda.stream(stream):
                padded = features.pad_to(num_tokens).to(device)
                folded.append(_through_trunk(model, padded, modulator, settings, of_all.of(index)))
    return folded


def _through_trunk(
    model: Boltz2,
    features: Features,
    modulator: Modulator,
    settings: Settings,
    progress: Progress,
) -> _Folded:
    trunk = run_trunk(model, features, settings, progress)
    # What the layers return lives until the next complex, where they are CUDA graphs.
    trunk = TrunkOutput(trunk.s_inputs, trunk.s.clone(), trunk.z.clone())
    conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
    score_model = model.structure_module.score_model
    cache = score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features, modulator)
    return _Folded(features, trunk, conditioning, cache)


def _sample(
    model: Boltz2, folded: Sequence[_Folded], settings: Settings, progress: Progress
) -> list[Tensor]:
    """The coordinates [M, A, 3] of each complex in Å."""
    device = folded[0].trunk.z.device
    model.budget.resize(device, model.cp)
    cache = packed([each.cache for each in folded])
    num_atoms = [each.features.num_atoms for each in folded]
    atoms_each = atoms_of_each(num_atoms)
    batches = sample_batches(range(settings.samples), settings.parallel_samples)
    count = ProgressCounter("sampling", len(batches) * settings.steps, progress)
    drawn = [
        model.structure_module.sample(
            cache,
            settings.steps,
            PackedNoise(settings.seed, batch, num_atoms, atoms_each, device),
            count,
        )
        for batch in batches
    ]
    for each in folded:
        each.conditioning.restore_z()
    by_complex = torch.cat(drawn).unflatten(1, (len(folded), atoms_each)).unbind(1)
    return [x[:, :count] for x, count in zip(by_complex, num_atoms, strict=True)]


def _score(
    model: Boltz2,
    folded: Sequence[_Folded],
    coords: Sequence[Tensor],
    settings: Settings,
    progress: Progress,
) -> list[list[ScoredSample]]:
    device = folded[0].trunk.z.device
    of_all = _ProgressOfAll(len(folded), progress)
    streams = _streams(device, SCORE_STREAMS)
    stack = model.confidence_module.pairformer_stack

    def run(part: int) -> list[list[ScoredSample]]:
        """Of every complex that belongs to a stream."""
        scored = []
        with torch.inference_mode(), torch.cuda.stream(streams[part]):
            for index in range(part, len(folded), len(streams)):
                each = folded[index]
                refine = stack.graphed(each.features.token_mask, len(folded) * settings.samples)
                report = of_all.of(index)
                scored.append(
                    score(
                        model,
                        each.trunk,
                        coords[index],
                        each.features,
                        refine,
                        settings,
                        range(settings.samples),
                        report,
                    )
                )
        return scored

    if len(streams) == 1:
        return run(0)
    with _beside(streams, device), ThreadPoolExecutor(len(streams)) as threads:
        parts = list(threads.map(run, range(len(streams))))
    return [parts[index % len(parts)][index // len(parts)] for index in range(len(folded))]
