"""Fold one complex: features in, coordinates and scores out. Run as a module it folds on many
ranks without Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.checkpoint.precision import residual_dtype
from foldcp.config import Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.steering import NO_CONSTRAINTS, Constraints
from foldcp.metrics.scorer import SampleScorer, Scores
from foldcp.model.boltz2 import Boltz2, TrunkOutput
from foldcp.model.confidence import expected_plddt
from foldcp.model.diffusion.noise import SeededNoise
from foldcp.model.diffusion.sampler import no_steering
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.steering.steering import NUM_PARTICLES, Steering
from foldcp.model.steering.weighted_potentials import weighted_potentials
from foldcp.model.trunk.pairformer import PairformerFn


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a complex is folded; the defaults are those of `boltz predict`."""

    recycling: int = 3  # passes through the trunk after the first
    steps: int = 200  # of the sampler
    samples: int = 1
    parallel_samples: int = 5  # drawn at once
    precision: Precision = "fp32"
    msa_subsample: int = 0  # rows of the alignment drawn anew in each pass; 0 uses all
    potentials: bool = (
        False  # steer towards plausible chemistry: each sample is chosen among several
    )
    seed: int = 0
    keep_pairs: bool = False  # also return full PAE and PDE

    def __post_init__(self) -> None:
        for name, least in {
            "recycling": 0,
            "steps": 1,
            "samples": 1,
            "parallel_samples": 1,
            "msa_subsample": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, but at least {least} is needed")


@dataclass(frozen=True)
class Prediction:
    """M samples of one complex, without padding; the same on every rank."""

    coords: Float[np.ndarray, "M A 3"]  # Å
    plddt: Float[np.ndarray, "M T"]  # 0 .. 1
    scores: list[Scores]
    pae: list[
        Float[np.ndarray, "T T"]
    ]  # Å, [i, j]: error of j in the frame of i; empty unless asked for
    pde: list[Float[np.ndarray, "T T"]]  # Å
    seconds: dict[str, float]
    peak_bytes: int  # of this rank's device memory; 0 on a CPU


Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def no_progress(stage: str, done: int, total: int) -> None:
    """Nobody looks."""


def fold(
    model: Boltz2,
    features: Features,
    settings: Settings,
    progress: Progress = no_progress,
    constraints: Constraints = NO_CONSTRAINTS,
) -> Prediction:
    """Fold one complex on this rank's group; all ranks call it together with equal arguments.

    A complex with forced pockets or contacts, and every one with `settings.potentials`, needs its
    `constraints` from `foldcp.features.steering`. Deterministic in (features, settings,
    constraints): the number of ranks changes the result by rounding only; so does steering on a
    GPU, where forces add up in any order. Raises ValueError if constraints and settings disagree
    about potentials.
    """
    if settings.potentials != (constraints.molecules is not None):
        raise ValueError(
            f"the constraints must be made with potentials={settings.potentials}, as the "
            "settings say"
        )
    device = next(model.parameters()).device
    num_atoms = len(features.layout.atom_token)
    # Kernels move 16 numbers at a time; the padding is masked everywhere.
    multiple = model.cp.size * (16 if device.type == "cuda" else 1)
    features = features.pad(multiple).to(device)
    constraints = constraints.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = StageTimer(device)
    with torch.inference_mode():
        # Now, as it lets go of what a complex of another size left.
        refine = model.confidence_module.pairformer_stack.graphed(
            features.token_mask, settings.samples
        )
        with clock("trunk"):
            model.budget.resize(device, model.cp)
            count = ProgressCounter("trunk", settings.recycling + 1, progress)
            rows = MsaSubsample(features.num_msa_rows, settings.msa_subsample, settings.seed)
            trunk = model.trunk(
                features,
                settings.recycling,
                residual_dtype(settings.precision),
                rows,
                count,
            )
        with clock("sampling"):
            model.budget.resize(device, model.cp)
            coords = sample(model, trunk, features, constraints, settings, progress)
        with clock("confidence"):
            model.budget.resize(device, model.cp)
            contact = model.contact_probability(trunk.z)
            count = ProgressCounter("confidence", settings.samples, progress)
            scored = []
            for index, x in enumerate(coords):
                last = index + 1 == settings.samples
                scored.append(
                    score(
                        model,
                        trunk,
                        x,
                        features,
                        contact,
                        refine,
                        settings.keep_pairs,
                        last,
                    )
                )
                count()
    return Prediction(
        coords=coords[:, :num_atoms].cpu().numpy(),
        plddt=np.stack([sample.plddt for sample in scored]),
        scores=[sample.scores for sample in scored],
        pae=[sample.pae for sample in scored if sample.pae is not None],
        pde=[sample.pde for sample in scored if sample.pde is not None],
        seconds=clock.seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) + model.cp.transport.reserved_bytes
        if device.type == "cuda"
        else 0,
    )


def sample(
    model: Boltz2,
    trunk: TrunkOutput,
    features: Features,
    constraints: Constraints,
    settings: Settings,
    progress: Progress,
) -> Float[Tensor, "M A 3"]:
    """All samples, as many at once as the settings allow; steered ones are chosen among
    particles.
    """
    conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
    diffusion = model.structure_module
    prepared = diffusion.score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features)
    potentials = weighted_potentials(features, constraints)
    particles = NUM_PARTICLES if potentials and settings.potentials else 1
    size = max(1, settings.parallel_samples // particles)
    batches = [
        range(first, min(first + size, settings.samples))
        for first in range(0, settings.samples, size)
    ]
    count = ProgressCounter("sampling", len(batches) * settings.steps, progress)
    coords = []
    for batch in batches:
        noise = SeededNoise(settings.seed, batch, features.num_atoms, trunk.z.device, particles)
        steer = (
            Steering(potentials, particles, settings.steps, noise.resample, model.cp)
            if potentials
            else no_steering
        )
        coords.append(
            diffusion.sample(
                prepared,
                settings.steps,
                noise,
                count,
                steer,
                max_parallel=settings.parallel_samples,
            )
        )
    return torch.cat(coords)


@dataclass(frozen=True)
class SampleScores:
    """What the confidence module says of one sample; T tokens without padding."""

    scores: Scores
    plddt: Float[np.ndarray, " T"]
    pae: Float[np.ndarray, "T T"] | None
    pde: Float[np.ndarray, "T T"] | None


def score(
    model: Boltz2,
    trunk: TrunkOutput,
    coords: Float[Tensor, "A 3"],
    features: Features,
    contact: Float[Tensor, "I N"],
    refine: PairformerFn,
    keep_pairs: bool,
    last: bool = False,
) -> SampleScores:
    """Scores of one sample, reduced while the logits exist; whole PAE and PDE, in host memory, on
    request.

    The `last` sample uses up the trunk's z.
    """
    cp = model.cp
    num_tokens = len(features.layout.token_chain)
    scorer = SampleScorer(features, coords, cp, keep_pairs=keep_pairs)
    first = cp.first_row(features.num_tokens)

    def take(start: int, pae: Float[Tensor, "R N B"], pde: Float[Tensor, "R N B"]) -> None:
        scorer.add(start, pae, pde, contact[start - first : start - first + len(pae)])

    def whole(pairs: Float[Tensor, "I N"]) -> Float[np.ndarray, "T T"]:
        return gather_to_host(pairs, cp, model.budget).numpy()[:num_tokens, :num_tokens]

    into = trunk.z if last else None
    logits, _ = model.confidence_module(
        trunk.s_inputs, trunk.s, trunk.z, coords, features, take, into, refine
    )
    plddt = expected_plddt(logits)
    return SampleScores(
        scores=scorer.finish(plddt),
        plddt=plddt[:num_tokens].cpu().numpy(),
        pae=whole(scorer.pae) if keep_pairs else None,
        pde=whole(scorer.pde) if keep_pairs else None,
    )


def gather_to_host(
    pairs: Float[Tensor, "I N"], cp: ContextParallel, budget: ChunkBudget
) -> Float[Tensor, "N N"]:
    """The rows of all ranks in host memory; only a few at a time pass through the devices."""
    I, N = pairs.shape
    whole = torch.empty((cp.size, I, N), dtype=pairs.dtype)
    for some in budget.chunks(I, cp.size * N * pairs.element_size(), pairs.device):
        whole[:, some] = cp.all_gather(pairs[None, some]).cpu()
    return whole.flatten(0, 1)


class MsaSubsample:
    """Which rows of the alignment a pass uses: all, or a fresh draw as `boltz predict
    --subsample_msa` makes it.
    """

    def __init__(self, depth: int, most: int, seed: int) -> None:
        self.depth = depth
        self.most = most
        self.seed = seed

    def __call__(self, index: int) -> list[int] | None:
        if not self.most or self.depth <= self.most:
            return None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return torch.randperm(self.depth, generator=generator)[: self.most].tolist()


class ProgressCounter:
    """Counts the steps of a stage for whoever shows progress."""

    def __init__(self, stage: str, total: int, progress: Progress) -> None:
        self.stage = stage
        self.total = total
        self.progress = progress
        self.done = 0
        progress(stage, 0, total)

    def __call__(self) -> None:
        self.done += 1
        self.progress(self.stage, self.done, self.total)


class StageTimer:
    """Seconds per stage; waits for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[stage] = self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
