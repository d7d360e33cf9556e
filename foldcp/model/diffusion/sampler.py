"""Diffusion sampler: from noise to coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from foldcp.config import Architecture, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.geometry import Coords
from foldcp.kernels import sampler_step
from foldcp.kernels.dispatch import Backend
from foldcp.model.diffusion.launch_throttle import LaunchThrottle
from foldcp.model.diffusion.noise import NoiseSource, to_device
from foldcp.model.diffusion.schedule import StepScalars, noise_levels, noise_schedule
from foldcp.model.diffusion.score_model import DenoiserCache, ScoreModel
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, can_capture, new_pool
from foldcp.model.layers.layers import KernelModule
from foldcp.progress import OnSteps, no_steps

# Above this, launching the kernels of a step takes no time worth saving, but the memory of a CUDA
# graph counts.
MAX_GRAPH_TOKENS = 8192
MAX_CONDITIONED_ROWS = 4096  # tokens times noise levels


@dataclass(frozen=True)
class Step:
    """One step of the sampler of M structures, as steering sees it."""

    index: int
    rotation: Float[Tensor, "S 3 3"]  # applied to all coordinates at its start: x -> x @ rotation
    noise: Coords  # Å, added then
    variance: float  # Å², of the noise
    step_scale: float  # how far to go from the noisy to the denoised structure: 1 is all the way


# (step, noisy structures, denoised structures) -> both, moved or resampled; Å
Steer = Callable[
    [Step, Coords, Coords],
    tuple[Float[Tensor, "n A 3"], Float[Tensor, "n A 3"]],
]


def no_steering(step: Step, x: Tensor, denoised: Tensor) -> tuple[Tensor, Tensor]:
    """The structures as they are."""
    return x, denoised


class AtomDiffusion(KernelModule):
    """Boltz-2's sampler.

    Source: AlphaFold 3, algorithm 18, with the noisy structure superposed onto the denoised one.
    """

    def __init__(
        self, architecture: Architecture, process: DiffusionProcess, cp: ContextParallel
    ) -> None:
        super().__init__()
        self.process = process
        self.sigma_data = float(architecture.sigma_data)
        self.score_model = ScoreModel(architecture, cp)
        self.use_kernels(Backend())

    def use_kernels(self, backend: Backend) -> None:
        self.sampler_step = sampler_step.choose(backend)

    def schedule(self, num_steps: int) -> list[float]:
        """The noise levels (Å) between `num_steps` steps."""
        return noise_schedule(self.process, self.sigma_data, num_steps)

    def denoise(
        self, x: Coords, scalars: StepScalars, s: Float[Tensor, "I C"], cache: DenoiserCache
    ) -> Coords:
        """The structures (Å) that the network sees behind the noisy structures `x`; `s` is the
        single representation, conditioned by their noise level.
        """
        update = self.score_model(x / scalars.input_scale, s, cache)
        return scalars.skip_weight * x + scalars.output_weight * update

    def sample(
        self,
        cache: DenoiserCache,
        num_steps: int,
        noise_source: NoiseSource,
        on_steps: OnSteps = no_steps,
        steer: Steer = no_steering,
        max_parallel: int = 1 << 30,
    ) -> Coords:
        """Coordinates (Å) of M samples, of each complex in `cache`.

        At most `max_parallel` structures pass through the network at once. `steer` may move the
        structures of a step, and resample them. `on_steps` is called after every step.
        """
        mask = cache.atoms.atom_mask
        sigmas = self.schedule(num_steps)
        levels = noise_levels(self.process, self.sigma_data, sigmas)
        denoise = partial(self._denoise, cache, max_parallel)
        euler_step = partial(self._euler_step, mask.view_as(cache.present))
        if can_capture(mask.device) and cache.num_tokens <= MAX_GRAPH_TOKENS:
            pool = new_pool()
            denoise = CUDAGraphWrapper(denoise, pool)
            euler_step = CUDAGraphWrapper(euler_step, pool)
        x = sigmas[0] * noise_source.initial()
        scalars = torch.tensor([level.scalars() for level in levels], dtype=x.dtype)
        scalars = to_device(scalars, x.device)
        throttle = LaunchThrottle(mask.device)
        drawn = noise_source.step(0)
        conditioned = self._conditioned(StepScalars(*scalars.T).time, cache)
        for index, (level, s) in enumerate(zip(levels, conditioned, strict=True)):
            noise, x, denoised = denoise(x, *drawn, scalars[index], s)
            step = Step(index, drawn.rotation, noise, level.variance, level.step_scale)
            if index + 1 < num_steps:
                drawn = noise_source.step(index + 1)  # the CPU draws while the GPU denoises
            x, denoised = steer(step, x, denoised)
            x = euler_step(x, denoised, scalars[index])
            throttle.step_launched()
            on_steps(1)
        return x.clone()  # the memory of a CUDA graph ends here

    def _conditioned(
        self, times: Float[Tensor, " L"], cache: DenoiserCache
    ) -> Iterator[Float[Tensor, "I C"]]:
        """The single representation at each noise level; of few tokens it is computed for several
        at once, as their products leave most of a GPU idle.
        """
        levels_at_once = max(1, MAX_CONDITIONED_ROWS // len(cache.single))
        for some in times.split(levels_at_once):
            yield from self.score_model.conditioned(some, cache)

    def _denoise(
        self,
        cache: DenoiserCache,
        max_parallel: int,
        x: Coords,
        rotation: Float[Tensor, "S 3 3"],
        translation: Float[Tensor, "S 1 3"],
        noise: Coords,
        scalars: Float[Tensor, " L"],
        s: Float[Tensor, "I C"],
    ) -> tuple[Coords, Coords, Coords]:
        """The noise (Å), and the structures randomly rotated, with the noise, and denoised."""
        step_scalars = StepScalars.unpack(scalars)
        noise = step_scalars.noise_std * noise
        x = self.sampler_step.augment(x, cache.present, rotation, translation, noise)
        chunks = x.split(max(1, max_parallel // len(cache.present)))
        denoised = [self.denoise(chunk, step_scalars, s, cache) for chunk in chunks]
        return noise, x, torch.cat(denoised)

    def _euler_step(
        self,
        mask: Float[Tensor, "B a"],
        x: Coords,
        denoised: Coords,
        scalars: Float[Tensor, " L"],
    ) -> Coords:
        """The structures (Å) of the next noise level."""
        step_scale = StepScalars.unpack(scalars).step_scale
        return self.sampler_step.euler_step(x, denoised, mask, step_scale)
