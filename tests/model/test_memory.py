"""Memory of each rank for a 4,000-residue complex: none holds N^2 times all channels, and the peak
falls with P.

The network runs on fake tensors: every operation happens, with the shapes and the lifetimes of its
results, except the arithmetic, which would take an hour on a CPU. That the count is right is shown
on real tensors and real ranks.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.distributed.fake_pg import FakeStore

from foldcp.complex import Chain, Complex
from foldcp.config import TINY
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.kernels.pair_bias_attention import AttentionUnderBias, PairBiasAttention
from foldcp.kernels.triangle_attention import reference as triangle_attention
from foldcp.metrics.geometry.geometry import UNKNOWN
from foldcp.metrics.scorer import SampleScorer
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.packing import packed
from foldcp.model.diffusion.schedule import NoiseLevel, StepScalars
from foldcp.model.diffusion.score_model import TokenAttention
from foldcp.model.layers.chunking import ChunkBudget
from tests.support.distributed import run
from tests.support.memory import LiveBytes


def features_of(num_residues: int) -> Features:
    sequence = ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRV" * num_residues)[: num_residues // 2]
    return featurize(
        Complex("large", (Chain("A", "protein", sequence), Chain("B", "protein", sequence)))
    )


def whole_prediction(model: Boltz2, features: Features) -> None:
    """Every stage once; one denoising step stands for all, and the scores are reduced as in a
    prediction.
    """
    trunk = model.trunk(features, recycling=0)
    conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
    score_model = model.structure_module.score_model
    prepared = score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features)
    level = NoiseLevel(sigma=16.0, variance=1.0, step_scale=1.0, sigma_data=16.0)
    scalars = StepScalars.unpack(torch.tensor(level.scalars()))
    s = score_model.conditioned(scalars.time, prepared)[0]
    noisy = torch.ones(1, features.num_atoms, 3)
    coords = model.structure_module.denoise(noisy, scalars, s, prepared)[0]
    del conditioning, prepared, s
    contact = model.contact_probability(trunk.z)
    scorer = SampleScorer(features, coords, model.cp, UNKNOWN)
    first = model.cp.first_row(features.num_tokens)

    def on_logits(start: int, pae: Tensor, pde: Tensor) -> None:
        scorer.update(start, pae, pde, contact[start - first : start - first + len(pae)])

    module = model.confidence_module
    pairs = module.initial_pairs(trunk.s_inputs, trunk.z, features, out=trunk.z)
    module(trunk.s_inputs, trunk.s, pairs, coords, features, on_logits)


def on_fake_tensors(features: Features, size: int, chunk_bytes: int = 0) -> LiveBytes:
    """The first of `size` ranks."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        cp = ContextParallel(0, size, dist.group.WORLD)
        padded = features.pad(size)
        with FakeTensorMode(), torch.inference_mode():
            tensors = {f.name: getattr(padded, f.name) for f in fields(padded)}
            fake = {
                name: torch.empty(x.shape, dtype=x.dtype)
                for name, x in tensors.items()
                if isinstance(x, Tensor)
            }
            model = Boltz2(TINY, cp, budget=ChunkBudget(chunk_bytes))
            with LiveBytes() as counted:
                whole_prediction(model, replace(padded, **fake))
    finally:
        dist.destroy_process_group()
    return counted


def test_peak_memory_of_a_rank_falls_with_the_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Larger slices are fewer to fake.
    monkeypatch.setattr(triangle_attention, "MAX_SCORE_BYTES", 1 << 33)
    features = features_of(4000)
    whole_pair_array = 4000**2 * TINY.token_z * 4
    peak = {}
    for size in (1, 2):
        counted = on_fake_tensors(features, size, chunk_bytes=256 << 20)
        peak[size] = counted.peak
        assert counted.largest <= 1.01 * whole_pair_array / size
    assert peak[2] < 0.6 * peak[1]


def on_real_weights(cp: ContextParallel) -> Boltz2:
    model = Boltz2(TINY, cp)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def on_real_tensors(cp: ContextParallel, features: Features) -> int:
    model = on_real_weights(cp)
    with torch.inference_mode(), LiveBytes() as counted:
        whole_prediction(model, features.pad(cp.size))
    return counted.peak


def test_fake_tensors_take_the_memory_of_real_ones() -> None:
    features = features_of(210)
    for size in (1, 2):
        expected = on_fake_tensors(features, size).peak
        for got in run(on_real_tensors, size, features):
            assert 0.95 < got / expected < 1.05


def of_contacts_and_logits(cp: ContextParallel, features: Features) -> list[float]:
    """Peaks in terms of a rank's pair representation."""
    model = on_real_weights(cp)
    model.budget.fixed_bytes = 1 << 18
    padded = features.pad(cp.size)
    peaks = []
    with torch.inference_mode():
        z = model.trunk(padded, recycling=0).z
        for emit in (
            partial(model.contact_probability, z),
            partial(model.confidence_module._emit_logits, z, padded, lambda *_: None),
        ):
            with LiveBytes() as counted:
                emit()
            peaks.append(counted.peak / z.nbytes)
    return peaks


@pytest.mark.parametrize("size", [1, 2])
def test_contacts_and_logits_take_no_transposed_copy(size: int) -> None:
    for peaks in run(of_contacts_and_logits, size, features_of(210)):
        assert max(peaks) < 1.6


class CountingAttention(PairBiasAttention):
    """Counts, whenever it prepares a bias, how many of those that are to come are in memory."""

    def __init__(self, biases: list[Tensor]) -> None:
        self.storages = [StorageWeakRef(bias.untyped_storage()) for bias in biases]
        self.alive: list[int] = []

    def count(self) -> int:
        return sum(not storage.expired() for storage in self.storages)

    def prepare(self, bias: Tensor, mask: Tensor) -> AttentionUnderBias:
        self.alive.append(self.count())
        return super().prepare(bias, mask)


def test_biases_of_the_sampler_are_in_memory_once() -> None:
    """As computed until they are prepared, and one complex's until those of the group are."""
    model = on_real_weights(ContextParallel())
    features = features_of(30)
    score_model = model.structure_module.score_model
    caches = []
    with torch.inference_mode():
        trunk = model.trunk(features, recycling=0)
        for _ in range(2):
            conditioning = model.diffusion_conditioning(trunk.s, trunk.z, model.rel_pos, features)
            attention = CountingAttention(conditioning.token_bias)
            num_layers = len(conditioning.token_bias)
            score_model.pair_bias_attention = attention
            caches.append(score_model.prepare(trunk.s, trunk.s_inputs, conditioning, features))
            assert attention.alive == list(range(num_layers, 0, -1))
            assert attention.count() == 0
        both = packed(caches)
    assert len(both.token_attention) == num_layers
    assert [cache.token_attention for cache in caches] == [[], []]


def test_biases_that_are_computed_in_each_step_are_prepared_as_those_that_are_kept() -> None:
    """Or kernels would attend otherwise where there is no room for all biases."""
    q, k, v, gate = torch.randn(4, 2, 7, 4, 5)
    bias = torch.randn(4, 7, 7)
    mask = (torch.arange(7) < 5).float()
    counting = CountingAttention([bias])
    attend = TokenAttention(ContextParallel(), counting, [bias], 0, mask, torch.float32)
    with torch.inference_mode():
        got = attend(q, torch.stack([k, v], 2), gate)
    assert counting.alive == [1]
    assert torch.equal(got, PairBiasAttention().prepare(bias, mask)(q, k, v, gate))
