"""The noise schedule and the random numbers of the sampler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foldcp.config import TINY, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.diffusion.noise import SeededNoise
from foldcp.model.diffusion.sampler import AtomDiffusion
from foldcp.model.diffusion.schedule import noise_levels


def test_schedule_falls_from_160_times_16_to_zero() -> None:
    sigmas = AtomDiffusion(TINY, DiffusionProcess(), ContextParallel()).schedule(20)
    assert sigmas[0] == pytest.approx(160 * 16, rel=1e-5)
    assert sigmas[19] == pytest.approx(1e-4 * 16, rel=1e-3)
    assert sigmas[20] == 0
    assert sigmas == sorted(sigmas, reverse=True)
    middle = (160 ** (1 / 7) + 10 / 19 * (1e-4 ** (1 / 7) - 160 ** (1 / 7))) ** 7 * 16
    assert sigmas[10] == pytest.approx(middle, rel=1e-5)


def test_noise_levels_add_noise_to_all_but_the_last_steps() -> None:
    process = DiffusionProcess(gamma_0=0.5, gamma_min=1.0, noise_scale=2.0, step_scale=1.5)
    noisy, quiet = noise_levels(process, 16.0, [8.0, 4.0, 0.0])
    assert noisy.sigma == 12.0
    assert noisy.variance == 4 * (12**2 - 8**2)
    assert noisy.step_scale == pytest.approx(1.5 * (12 - 4) / 12)
    assert (quiet.sigma, quiet.variance, quiet.step_scale) == (4.0, 0.0, 1.5)


def test_noise_level_keeps_the_structure_where_there_is_no_noise() -> None:
    (level,) = noise_levels(DiffusionProcess(), 16.0, [1e-6, 0.0])
    assert level.skip_weight == pytest.approx(1)
    assert level.output_weight == pytest.approx(0, abs=1e-5)
    assert level.input_scale == pytest.approx(16)


def test_seeded_noise_of_a_sample_does_not_depend_on_the_other_samples() -> None:
    def drawn(samples: range) -> list[Tensor]:
        noise = SeededNoise(4, samples, 10, torch.device("cpu"))
        return [noise.initial(), *noise.step(0), *noise.step(1)]

    for both, first, second in zip(
        drawn(range(2)), drawn(range(1)), drawn(range(1, 2)), strict=True
    ):
        assert torch.equal(both, torch.cat([first, second]))
        assert not torch.equal(first, second)
