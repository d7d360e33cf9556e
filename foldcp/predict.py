"""Prediction of one complex: features in, coordinates and scores out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.checkpoint.precision import residual_dtype
from foldcp.config import Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.sample_parallel import sample_sharding, samples_of_rank
from foldcp.features.features import Features
from foldcp.features.layout import Layout
from foldcp.features.msa.subsample import MsaSubsample
from foldcp.features.steering import NO_CONSTRAINTS, Constraints
from foldcp.kernels import exposed_surface
from foldcp.metrics.geometry.geometry import geometry
from foldcp.metrics.interface.pae_blocks import PaeBlock, kept_chain_pairs, pae_blocks
from foldcp.metrics.interface.scores import DEFAULT_CUTOFFS
from foldcp.metrics.scorer import SampleScorer
from foldcp.metrics.scores import Scores
from foldcp.model.boltz2 import Boltz2, TrunkOutput
from foldcp.model.confidence import expected_plddt
from foldcp.model.diffusion.noise import SeededNoise
from foldcp.model.diffusion.sampler import no_steering
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.model.layers.offload import goes_to_host, offload, restore
from foldcp.model.layers.side_stream import side_stream, submit_ahead
from foldcp.model.steering.steering import NUM_PARTICLES, Steering
from foldcp.model.steering.weighted_potentials import weighted_potentials
from foldcp.model.trunk.pairformer import PairformerFn
from foldcp.model.trunk.passes import NoPassKeeper, PassKeeper
from foldcp.progress import OnSteps, Progress, ProgressCounter, StageTimer, no_progress
from foldcp.structure.predicted import PredictedStructure

# On a GPU, tokens are padded to a multiple of this for each rank, as kernels move so many numbers
# at a time.
GPU_MULTIPLE = 16

# So many samples may wait for their scores while the confidence module goes on with others.
SAMPLES_BESIDE = 2
MAX_ATOMS_BESIDE = 40_000  # with more, memory is scarce

NO_PASS_KEEPER = NoPassKeeper()

# Smallest legal value of a setting.
MINIMA = {
    "recycling": 0,
    "steps": 1,
    "samples": 1,
    "parallel_samples": 1,
    "msa_subsample": 0,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a fold; the defaults are those of `boltz predict`. Raises ValueError naming
    a number that is too small.
    """

    recycling: int = 3  # passes through the trunk after the first
    steps: int = 200  # of the diffusion sampler
    samples: int = 1
    parallel_samples: int = 5  # drawn at once
    precision: Precision = "fp32"
    msa_subsample: int = 0  # MSA rows drawn again for each pass; 0 uses all
    potentials: bool = False  # steer towards plausible chemistry, choosing among several particles
    seed: int = 0
    pae_cutoffs: tuple[int, ...] = DEFAULT_CUTOFFS  # Å, of ipSAE and LIS
    keep_pairs: bool = False  # also return whole PAE and PDE
    kept_pae_pairs: float = 0.0  # best pairs of chains whose PAE is kept in blocks; inf: all

    def __post_init__(self) -> None:
        for name, minimum in MINIMA.items():
            value = getattr(self, name)
            if value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, not {value}")


@dataclass(frozen=True)
class Prediction:
    """The predicted structures of one complex and their scores; numpy arrays and plain numbers.

    M samples, A atoms, T tokens, without padding; equal on every rank, but for the blocks of PAE,
    the seconds and the memory.
    Names of chains, tokens and atoms are in `layout`.

    >>> import foldcp
    >>> model = foldcp.load_model("untrained:tiny", device="cpu")
    >>> chain = foldcp.Chain("A", "protein", "MKTAYIAKQR")
    >>> prediction = foldcp.fold(model, foldcp.Complex("peptide", (chain,)), samples=2, steps=2)
    >>> prediction.plddt.shape
    (2, 10)
    >>> prediction.layout.atom_name[:4]
    ['N', 'CA', 'C', 'O']
    """

    coords: Float[np.ndarray, "M A 3"]  # Å
    plddt: Float[np.ndarray, "M T"]  # 0 .. 1
    scores: list[Scores]  # [M]
    # Whole arrays of each sample in Å, if they were kept: the error of j in the frame of i.
    pae: list[Float[np.ndarray, "T T"]]
    pde: list[Float[np.ndarray, "T T"]]
    layout: Layout
    seconds: dict[str, float]  # of each stage
    peak_bytes: int  # of this rank's device memory; 0 on a CPU
    pae_blocks: Sequence[PaeBlock] = ()  # this rank's, with `kept_pae_pairs`

    @property
    def best_sample(self) -> int:
        """Number of the sample with the highest confidence score; the first of equal ones."""
        return int(np.argmax([scores.confidence_score for scores in self.scores]))

    def write_cif(self, path: str | Path, sample: int | None = None) -> None:
        """Write one sample as ModelCIF with 100 pLDDT as B-factors: number `sample`, from 0, or the
        best one. A name in .cif.gz is gzipped, one in .bcif BinaryCIF, any other is text. Raises
        ValueError when its coordinates are not finite, and OSError.
        """
        index = self.best_sample if sample is None else sample
        file = Path(path)
        structure = PredictedStructure(
            layout=self.layout,
            coords=self.coords[index],
            plddt=self.plddt[index],
            name=file.stem.removesuffix(".cif"),  # of x.cif and x.cif.gz
            scores=self.scores[index],
        )
        from foldcp.structure.write import structure_format, write_structure  # imports Biotite

        write_structure(file, structure, structure_format(file))


def fold(
    model: Boltz2,
    features: Features,
    settings: Settings,
    progress: Progress = no_progress,
    constraints: Constraints = NO_CONSTRAINTS,
    passes: PassKeeper = NO_PASS_KEEPER,
) -> Prediction:
    """Fold one complex on the ranks of `model.cp`. Collective, with equal arguments on all ranks.

    A complex with forced pockets or contacts, and every one with `settings.potentials`, needs its
    `constraints` from `foldcp.features.steering`. Deterministic in (features, settings,
    constraints): the number of ranks changes the result by rounding only; so does steering on a
    GPU, where forces add up in any order. A fold that goes on from a pass that `passes` kept gives
    the same result. Where `sample_sharding` says so, each rank draws and scores samples of its own.
    Raises ValueError if constraints and settings disagree about potentials.
    """
    if settings.potentials != (constraints.molecules is not None):
        raise ValueError(
            f"the constraints must be made with potentials={settings.potentials}, as the "
            "settings say"
        )
    device = next(model.parameters()).device
    multiple = GPU_MULTIPLE if device.type == "cuda" else 1
    padded = features.pad(model.cp.size * multiple).to(device)
    constraints = constraints.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timer = StageTimer(device)
    cp = model.cp
    sampler = model
    samples = range(settings.samples)
    sharding = sample_sharding(
        len(features.layout.token_chain), settings.samples, settings.parallel_samples, cp.size
    )
    has_own_samples = sharding.ranks_per_sample < cp.size
    if has_own_samples:
        sampler = model.on_one_rank
        samples = samples_of_rank(settings.samples, cp.rank, cp.size)
    with torch.inference_mode():
        # Before the trunk, as this frees the CUDA graphs of a complex of another size.
        refine = sampler.confidence_module.pairformer_stack.graphed(padded.token_mask, len(samples))
        with timer("trunk"):
            trunk = run_trunk(model, padded, settings, progress, passes)
            if has_own_samples:
                trunk = replace(trunk, z=cp.all_gather(trunk.z))
        with timer("sampling"):
            coords = sample(sampler, trunk, padded, constraints, settings, samples, progress)
        with timer("confidence"):
            scored = score(sampler, trunk, coords, padded, refine, settings, samples, progress)
            if has_own_samples:
                coords, scored = gather_samples(cp, coords, scored)
    return finished(model, padded, coords, scored, timer.seconds())


def finished(
    model: Boltz2,
    features: Features,
    coords: Float[Tensor, "M A 3"],
    scored: Sequence[ScoredSample],
    seconds: dict[str, float],
) -> Prediction:
    """The prediction in host memory, without padding."""
    num_atoms = len(features.layout.atom_token)
    return Prediction(
        coords=coords[:, :num_atoms].cpu().numpy(),
        plddt=np.stack([sample.plddt for sample in scored]),
        scores=[sample.scores for sample in scored],
        pae=[sample.pae for sample in scored if sample.pae is not None],
        pde=[sample.pde for sample in scored if sample.pde is not None],
        layout=features.layout,
        seconds=seconds,
        peak_bytes=peak_bytes(coords.device, model.cp),
        pae_blocks=[block for sample in scored for block in sample.pae_blocks],
    )


def run_trunk(
    model: Boltz2,
    features: Features,
    settings: Settings,
    progress: Progress,
    passes: PassKeeper = NO_PASS_KEEPER,
) -> TrunkOutput:
    """The trunk with recycling, each pass on its own subsample of the MSA.

    It begins after the last pass that was kept; a step is a block.
    """
    dtype = residual_dtype(settings.precision)
    num_tokens = len(features.layout.token_chain)
    start = passes.restore(num_tokens, features.num_tokens, dtype)
    model.budget.resize(features.token_mask.device, model.cp)
    blocks = model.architecture.msa_blocks + model.architecture.pairformer_blocks
    num_done = 0 if start is None else start.num_passes * blocks
    return model.trunk(
        features,
        settings.recycling,
        dtype,
        MsaSubsample(features.num_msa_rows, settings.msa_subsample, settings.seed),
        ProgressCounter("trunk", (settings.recycling + 1) * blocks, progress, num_done),
        start,
        passes.keep,
    )


def sample(
    model: Boltz2,
    trunk: TrunkOutput,
    features: Features,
    constraints: Constraints,
    settings: Settings,
    samples: range,
    progress: Progress,
) -> Float[Tensor, "M A 3"]:
    """Coordinates of the samples with these numbers in Å, as many at once as the settings allow. A
    steered sample is chosen among several particles.
    """
    device = trunk.z.device
    if not samples:
        return torch.zeros(0, features.num_atoms, 3, device=device)
    model.budget.resize(device, model.cp)
    conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
    diffusion = model.structure_module
    prepared = diffusion.score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features)
    potentials = weighted_potentials(features, constraints)
    particles = NUM_PARTICLES if potentials and settings.potentials else 1
    batches = sample_batches(samples, settings.parallel_samples // particles)
    count = ProgressCounter("sampling", len(batches) * settings.steps, progress)
    coords = []
    for batch in batches:
        noise = SeededNoise(settings.seed, batch, features.num_atoms, device, particles)
        steer = no_steering
        if potentials:
            steer = Steering(potentials, particles, settings.steps, noise.resample, model.cp)
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
    conditioning.restore_z()
    return torch.cat(coords)


def sample_batches(samples: range, size: int) -> list[range]:
    """The numbers of the samples that are drawn together: at most `size`, but one at least."""
    size = max(1, size)
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@dataclass(frozen=True)
class ScoredSample:
    """The confidence of one sample; T tokens without padding."""

    scores: Scores
    plddt: Float[np.ndarray, " T"]
    pae: Float[np.ndarray, "T T"] | None
    pde: Float[np.ndarray, "T T"] | None
    pae_blocks: list[PaeBlock]


def score(
    model: Boltz2,
    trunk: TrunkOutput,
    coords: Float[Tensor, "M A 3"],
    features: Features,
    refine: PairformerFn,
    settings: Settings,
    samples: range,
    progress: Progress,
) -> list[ScoredSample]:
    """Scores of the samples with these numbers, in their order. The trunk's z is overwritten: by
    the pairs that all samples start from, then by the last sample, or by every one of a large
    complex, of whose pairs there is a copy in host memory.

    On a GPU the geometry of the samples, and on one rank the scores of a sample, too, are computed
    beside the confidence module of the samples after it. Scores of several ranks are collective:
    they are computed in turn, as is all of a large complex.
    """
    if not samples:
        return []
    device = trunk.z.device
    model.budget.resize(device, model.cp)
    contact = model.contact_probability(trunk.z)
    pairs = model.confidence_module.initial_pairs(trunk.s_inputs, trunk.z, features, out=trunk.z)
    large = goes_to_host(pairs)
    copy = offload(pairs, len(pairs)) if large and len(samples) > 1 else []
    blocks = model.architecture.confidence_blocks
    # A step is a block, and one more is to score the sample.
    count = ProgressCounter("confidence", len(samples) * (blocks + 1), progress)
    beside = device.type == "cuda" and coords.shape[1] <= MAX_ATOMS_BESIDE
    most_waiting = SAMPLES_BESIDE if beside and model.cp.size == 1 else 0
    makers = [partial(new_scorer, model, features, settings, x) for x in coords]
    scored: list[ScoredSample] = []
    waiting: deque[Callable[[], ScoredSample]] = deque()
    # In one thread: several would hold each other up, as all they do is launch small kernels.
    with side_stream("scores", device, int(beside)) as submit:
        # `cache`: in this thread, when the result is asked for.
        defer = submit if most_waiting else cache
        scorers = submit_ahead(submit, makers, 1)
        for number, x in zip(samples, coords, strict=True):
            wait_for_scorer = next(scorers)  # not by `zip`, which holds the one before
            workspace = pairs if large or number == samples[-1] else None
            if number > samples[0]:
                restore(pairs, copy)
            plddt = run_confidence(
                model, trunk, pairs, x, features, wait_for_scorer, contact, refine, workspace, count
            )
            # In no variable: a scorer's arrays of pairs would outlive its scores.
            waiting.append(
                defer(partial(scores_of, model, wait_for_scorer(), plddt, settings, number))
            )
            if len(waiting) > most_waiting:
                scored.append(waiting.popleft()())
                count()
        for wait in waiting:
            scored.append(wait())
            count()
    return scored


def gather_samples(
    cp: ContextParallel, coords: Float[Tensor, "m A 3"], scored: list[ScoredSample]
) -> tuple[Float[Tensor, "M A 3"], list[ScoredSample]]:
    """The samples of all ranks from those of each, in their order. Blocks of PAE stay where they
    are. Collective.
    """
    without_blocks = [replace(sample, pae_blocks=[]) for sample in scored]
    by_rank = cp.gather_objects((coords.cpu(), without_blocks))
    whole = torch.cat([of_rank for of_rank, _ in by_rank]).to(coords.device)
    others = [of_rank for _, of_rank in by_rank]
    others[cp.rank] = scored
    return whole, [sample for of_rank in others for sample in of_rank]


def new_scorer(
    model: Boltz2,
    features: Features,
    settings: Settings,
    coords: Float[Tensor, "A 3"],
) -> SampleScorer:
    """The scorer of one sample, which knows its geometry."""
    return SampleScorer(
        features,
        coords,
        model.cp,
        geometry(features, coords, exposed_surface.choose(model.backend)),
        pae_cutoffs=settings.pae_cutoffs,
        keep_pae=settings.keep_pairs or settings.kept_pae_pairs > 0,
        keep_pde=settings.keep_pairs,
    )


def run_confidence(
    model: Boltz2,
    trunk: TrunkOutput,
    pairs: Float[Tensor, "I N Z"],
    coords: Float[Tensor, "A 3"],
    features: Features,
    wait_for_scorer: Callable[[], SampleScorer],
    contact: Float[Tensor, "I N"],
    refine: PairformerFn,
    workspace: Float[Tensor, "I N Z"] | None,
    on_steps: OnSteps,
) -> Float[Tensor, " N"]:
    """Updates the scorer of a sample with its logits, and returns its pLDDT."""
    first = model.cp.first_row(features.num_tokens)

    def on_logits(start: int, pae: Float[Tensor, "R N B"], pde: Float[Tensor, "R N B"]) -> None:
        # Waited for with the first logits, when the work before them is on the GPU's queue.
        chunk = slice(start - first, start - first + len(pae))
        wait_for_scorer().update(start, pae, pde, contact[chunk])

    logits, _ = model.confidence_module(
        trunk.s_inputs,
        trunk.s,
        pairs,
        coords,
        features,
        on_logits,
        workspace,
        refine,
        on_steps,
    )
    return expected_plddt(logits)


def scores_of(
    model: Boltz2,
    scorer: SampleScorer,
    plddt: Float[Tensor, " N"],
    settings: Settings,
    sample: int,
) -> ScoredSample:
    """Scores of a sample whose logits the scorer has seen; on request, whole PAE and PDE in host
    memory and blocks of PAE, too. Collective.

    Returns when the device has done all of it: what another stream has allocated is freed then.
    """
    num_tokens = scorer.rows.spans.num_tokens
    scores = scorer.compute(plddt)
    pae = pde = None
    if settings.keep_pairs:
        pae = whole_pairs(scorer.pae, num_tokens, model)
        pde = whole_pairs(scorer.pde, num_tokens, model)
    blocks = []
    if settings.kept_pae_pairs:
        rows = scorer.rows
        kept = kept_chain_pairs(settings.kept_pae_pairs, scores)
        own_rows = scorer.pae[: rows.num_rows, :num_tokens]
        blocks = pae_blocks(own_rows, rows.first, rows.spans, kept, sample)
    return ScoredSample(scores, plddt[:num_tokens].cpu().numpy(), pae, pde, blocks)


def whole_pairs(
    pairs: Float[Tensor, "I N"], num_tokens: int, model: Boltz2
) -> Float[np.ndarray, "T T"]:
    """The rows of all ranks without padding, in host memory. Collective."""
    whole = gather_to_host(pairs, model.cp, model.budget)
    return whole.numpy()[:num_tokens, :num_tokens]


def gather_to_host(
    pairs: Float[Tensor, "I N"], cp: ContextParallel, budget: ChunkBudget
) -> Float[Tensor, "N N"]:
    """The rows of all ranks in host memory; only a chunk at a time passes through the devices."""
    I, N = pairs.shape
    whole = torch.empty((cp.size, I, N), dtype=pairs.dtype)
    bytes_per_row = cp.size * N * pairs.element_size()
    for rows in budget.chunks(I, bytes_per_row, pairs.device):
        whole[:, rows] = cp.all_gather(pairs[None, rows]).cpu()
    return whole.flatten(0, 1)


def peak_bytes(device: torch.device, cp: ContextParallel) -> int:
    """Peak device memory of this rank since the prediction began, with the buffers of its
    transport; 0 on a CPU.
    """
    if device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated(device) + cp.transport.reserved_bytes
