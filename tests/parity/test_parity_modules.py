"""Every module, and every stage given the stages before it from Boltz, for any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.distributed import pipelining
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.kernels.triangle_attention import reference as triangle_attention
from foldcp.metrics.geometry.geometry import UNKNOWN
from foldcp.metrics.scorer import SampleScorer
from foldcp.model.boltz2 import Boltz2
from foldcp.model.confidence import expected_plddt
from foldcp.model.diffusion.schedule import NoiseLevel, StepScalars
from foldcp.model.diffusion.score_model import DenoiserCache
from tests.parity.support.cases import CASES, Case
from tests.parity.support.forms import PAIRS, TOKENS, Share
from tests.parity.support.modules import compared, modules
from tests.parity.support.oracle import Oracle, ReplayedNoise, features_of
from tests.parity.support.scores import of_scores
from tests.parity.support.table import Measured, check, largest, relative, worst
from tests.support.distributed import run

MODULE = 1e-5
ANGSTROM = 1e-3
LOGITS = 1e-4
SCORES = 1e-5
Compared = Iterator[tuple[str, Tensor, Tensor]]  # what, ours, Boltz's


def measure(cp: ContextParallel, oracle: Oracle, case: Case) -> list[Measured]:
    """All errors of one rank; of two, on as little memory as can be: every array is worked
    through in pieces.
    """
    if cp.size != 2:
        return measured(cp, oracle, case)
    little = 1 << 17  # bytes
    with (
        patch.object(triangle_attention, "MAX_SCORE_BYTES", little),
        patch.object(pipelining, "TILE_BYTES", little),
    ):
        return measured(cp, oracle, case, chunk_bytes=little)


def measured(
    cp: ContextParallel, oracle: Oracle, case: Case, chunk_bytes: int = 0
) -> list[Measured]:
    record = oracle.record("prediction", case)
    drawn = [chosen.tolist() for chosen in record["msa_rows"]]
    real = features_of(oracle.batch(case.input)[0])
    share = Share(cp, real.pad(cp.size), real.num_tokens, drawn[0] if drawn else None)
    model = load(oracle.checkpoint(case.size), cp=cp, chunk_bytes=chunk_bytes)
    with torch.inference_mode():
        stages = [(what, relative(x, y), MODULE) for what, x, y in of_modules(model, share, record)]
        stages += [(what, relative(x, y), MODULE) for what, x, y in of_stages(model, share, record)]
        stages += sampling(model, share, record, case)
        stages += confidence(model, share, record)
    return stages


def of_modules(model: Boltz2, share: Share, record: dict[str, Any]) -> Compared:
    """Each given what Boltz's was given."""
    known = modules(model.architecture)
    for name, call in record["calls"].items():
        for output, ours, theirs in compared(known[name], model, share, call):
            yield f"{name}: {output}", ours, theirs


def of_stages(model: Boltz2, share: Share, record: dict[str, Any]) -> Compared:
    """The stages of a prediction, each given Boltz's results of the stages before it."""
    # The first pass recycles zeros, of which the norm's bias is left.
    s_inputs = TOKENS.to_shard(share, record["s_inputs"])
    started = model.recycled(None, s_inputs, share.features, torch.float32)
    yield (
        "initial z",
        PAIRS.to_boltz(share, started - model.z_recycle(model.z_norm.bias)),
        record["z_init"],
    )
    z = PAIRS.to_shard(share, record["z"])
    logits = z.new_empty((*z.shape[:2], model.architecture.num_distogram_bins))

    def on_logits(rows: slice, block: Tensor) -> None:
        logits[rows] = block

    model.distogram(z, on_logits)
    yield "distogram", PAIRS.to_boltz(share, logits), record["pdistogram"][..., 0, :]
    yield (
        "B-factor",
        TOKENS.to_boltz(share, model.bfactor(TOKENS.to_shard(share, record["s"]))),
        record["pbfactor"],
    )
    prepared = prepare(model, share, record)
    diffusion = model.structure_module
    for call in record["scores"]:
        level = NoiseLevel(
            sigma=float(call["sigma"]),
            variance=0.0,
            step_scale=1.0,
            sigma_data=diffusion.sigma_data,
        )
        scalars = StepScalars.unpack(call["x"].new_tensor(level.scalars()))
        (s,) = diffusion.score_model.conditioned(scalars.time, prepared)
        denoised = diffusion.denoise(call["x"], scalars, s, prepared)
        yield (
            f"denoised structure at {call['sigma']:g} Å of noise",
            denoised,
            call["out"],
        )


def prepare(model: Boltz2, share: Share, record: dict[str, Any]) -> DenoiserCache:
    """Inputs of the sampler, from Boltz's trunk."""
    s = TOKENS.to_shard(share, record["s"])
    s_inputs = TOKENS.to_shard(share, record["s_inputs"])
    z = PAIRS.to_shard(share, record["z"])
    conditioning = model.diffusion_conditioning(s, z, model.rel_pos, share.features)
    return model.structure_module.score_model.prepare(s, s_inputs, conditioning, share.features)


def sampling(model: Boltz2, share: Share, record: dict[str, Any], case: Case) -> list[Measured]:
    """The whole sampler with Boltz's random numbers."""
    drawn = record["sample"]
    diffusion = model.structure_module
    real = share.features.atom_mask > 0
    coords = diffusion.sample(
        prepare(model, share, record),
        case.steps,
        ReplayedNoise(drawn, torch.device("cpu")),
    )
    return [
        (
            "noise levels",
            relative(torch.tensor(diffusion.schedule(case.steps)), drawn["sigmas"]),
            MODULE,
        ),
        (
            "sampling (largest error, Å)",
            largest(coords[:, real], drawn["coords"][:, real]),
            ANGSTROM,
        ),
    ]


def confidence(model: Boltz2, share: Share, record: dict[str, Any]) -> list[Measured]:
    """Logits and scores of Boltz's samples, from Boltz's trunk; the worst of the samples."""
    contact = model.contact_probability(PAIRS.to_shard(share, record["z"]))
    each = [
        dict(of_sample(model, share, record, contact, k))
        for k in range(len(record["sample"]["coords"]))
    ]
    allowed = {name: LOGITS if "logits" in name else SCORES for name in each[0]}
    return [
        (f"confidence: {name}", max(errors[name] for errors in each), allowed[name])
        for name in each[0]
    ]


def of_sample(
    model: Boltz2, share: Share, record: dict[str, Any], contact: Tensor, k: int
) -> Iterator[tuple[str, float]]:
    s, s_inputs = (TOKENS.to_shard(share, record[name]) for name in ("s", "s_inputs"))
    coords = record["sample"]["coords"][k]
    theirs = record["confidence"]
    T = share.num_tokens
    z = PAIRS.to_shard(share, record["z"])
    pae, pde = (z.new_empty((*z.shape[:2], model.architecture.num_pae_bins)) for _ in range(2))
    scorer = SampleScorer(share.features, coords, share.cp, UNKNOWN, keep_pae=True, keep_pde=True)
    first = share.cp.first_row(share.features.num_tokens)

    def on_logits(start: int, pae_logits: Tensor, pde_logits: Tensor) -> None:
        here = slice(start - first, start - first + len(pae_logits))
        pae[here], pde[here] = pae_logits, pde_logits
        scorer.update(start, pae_logits, pde_logits, contact[here])

    module = model.confidence_module
    pairs = module.initial_pairs(s_inputs, z, share.features, out=z)
    plddt, resolved = module(s_inputs, s, pairs, coords, share.features, on_logits)
    for name, x in (("pae_logits", pae), ("pde_logits", pde)):
        yield name, relative(PAIRS.to_boltz(share, x)[0], theirs[name][k])
    for name, x in (
        ("plddt_logits", plddt),
        ("resolved_logits", resolved),
        ("plddt", expected_plddt(plddt)),
    ):
        yield name, relative(x[:T], theirs[name][k])
    summary = scorer.compute(expected_plddt(plddt))
    yield "pae", relative(PAIRS.to_boltz(share, scorer.pae)[0], theirs["pae"][k])
    yield "pde", relative(PAIRS.to_boltz(share, scorer.pde)[0], theirs["pde"][k])
    yield from of_scores(summary, theirs, k)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.modules])
def test_every_stage_computes_what_boltz_computes(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, CASES[name]), name))
