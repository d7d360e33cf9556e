"""From noise to coordinates: the sampler, and the random numbers it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from foldcp.config import Architecture, DiffusionProcess
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.diffusion.score_model import DenoiserCache, ScoreModel
from foldcp.model.layers.cuda_graph import CUDAGraphWrapper, can_capture, new_pool

# Above this, launching the kernels of a step takes no time worth saving, and a recording's memory
# is.
MOST_TOKENS = 8192


@runtime_checkable
class NoiseSource(Protocol):
    """The random numbers of M samples, all of unit scale; whole, hence the same on every rank."""

    def initial(self) -> Float[Tensor, "M A 3"]: ...

    def step(
        self, index: int
    ) -> tuple[Float[Tensor, "M 3 3"], Float[Tensor, "M 1 3"], Float[Tensor, "M A 3"]]:
        """Rotation, translation and noise of a step; steps are asked for in order."""
        ...


class SeededNoise:
    """Each sample has its own generator, on the CPU: its numbers depend on (seed, sample, atoms)
    and on nothing else, neither on the device nor on the number of ranks or of samples drawn
    together. So has each of its particles, of which the first draws what the sample would draw
    alone, and the choice among them.
    """

    def __init__(
        self,
        seed: int,
        samples: range,
        num_atoms: int,
        device: torch.device,
        num_particles: int = 1,
    ) -> None:
        def generator(sample: int, use: int) -> torch.Generator:
            # torch's generator on the CPU reads 32 bits; the golden ratio of 2^32 keeps the uses
            # apart.
            return torch.Generator().manual_seed(seed * 1_000_003 + sample + use * 0x9E3779B9)

        self.num_atoms = num_atoms
        self.device = device
        self.generators = [
            generator(sample, particle) for sample in samples for particle in range(num_particles)
        ]
        self.choices = [generator(sample, num_particles) for sample in samples]

    def _normal(self, *shape: int) -> Tensor:
        return torch.stack(
            [torch.randn(shape, generator=generator) for generator in self.generators]
        )

    def _sent(self, drawn: Tensor) -> Tensor:
        drawn = (
            drawn.pin_memory() if self.device.type == "cuda" else drawn
        )  # else the GPU would be waited for
        return drawn.to(self.device, non_blocking=True)

    def initial(self) -> Float[Tensor, "M A 3"]:
        return self._sent(self._normal(self.num_atoms, 3))

    def step(
        self, index: int
    ) -> tuple[Float[Tensor, "M 3 3"], Float[Tensor, "M 1 3"], Float[Tensor, "M A 3"]]:
        rotation = rotation_of(self._normal(4))
        translation = self._normal(1, 3)
        noise = self._normal(self.num_atoms, 3)
        return self._sent(rotation), self._sent(translation), self._sent(noise)

    def choose(self, index: int, weights: Float[Tensor, "B K"], count: int) -> Int[Tensor, "B n"]:
        """`count` particles of each of B samples, with replacement, as likely as their weights;
        asked for in order.
        """
        edges = weights.double().cpu().cumsum(1)
        drawn = torch.stack(
            [torch.rand(count, generator=choice, dtype=torch.float64) for choice in self.choices]
        )
        return (
            torch.searchsorted(edges, drawn * edges[:, -1:], right=True)
            .clamp(max=weights.shape[1] - 1)
            .to(self.device)
        )


def rotation_of(quaternion: Float[Tensor, "*M 4"]) -> Float[Tensor, "*M 3 3"]:
    """The rotation of a quaternion (real part first) of any length; uniform over rotations if it
    is normal.
    """
    r, i, j, k = F.normalize(quaternion, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (j * j + k * k), 2 * (i * j - k * r), 2 * (i * k + j * r),
        2 * (i * j + k * r), 1 - 2 * (i * i + k * k), 2 * (j * k - i * r),
        2 * (i * k - j * r), 2 * (j * k + i * r), 1 - 2 * (i * i + j * j),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def align(
    moving: Float[Tensor, "M A 3"],
    target: Float[Tensor, "M A 3"],
    weights: Float[Tensor, " A"],
) -> Float[Tensor, "M A 3"]:
    """`moving`, rotated and shifted onto `target` with the least weighted squares: AlphaFold 3,
    algorithm 28.
    """
    share = (weights / weights.sum())[:, None]
    from_centre = (moving * share).sum(1, keepdim=True)
    to_centre = (target * share).sum(1, keepdim=True)
    centred = moving - from_centre
    covariance = torch.einsum("mai,maj->mij", centred * weights[:, None], target - to_centre)
    rotation = rotation_of(_nearest_rotation(covariance.double())).to(moving)
    return torch.einsum("maj,mij->mai", centred, rotation) + to_centre


def _nearest_rotation(covariance: Float[Tensor, "M 3 3"]) -> Float[Tensor, "M 4"]:
    """The quaternion of the rotation R with the largest sum of R_ij covariance_ji (Horn 1987,
    equation 36).

    It is the eigenvector of the largest eigenvalue of a 4 x 4 matrix. Powers of the matrix, made
    positive, tend to its
    projector: only products, so that a GPU never waits for the CPU, as it would for a
    decomposition.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in covariance.unbind(-2))
    entries = [
        xx + yy + zz, yz - zy, zx - xz, xy - yx,
        yz - zy, xx - yy - zz, xy + yx, zx + xz,
        zx - xz, xy + yx, yy - xx - zz, yz + zy,
        xy - yx, zx + xz, yz + zy, zz - xx - yy,
    ]  # fmt: skip
    power = torch.stack(entries, -1).unflatten(-1, (4, 4))
    size = torch.linalg.matrix_norm(power)[:, None, None].clamp(min=torch.finfo(power.dtype).tiny)
    power = power / size + torch.eye(4, dtype=power.dtype, device=power.device)
    for _ in range(3):  # the power 2^24
        power = power / torch.linalg.matrix_norm(power)[:, None, None]
        for _ in range(8):  # none smaller than 2^-256
            power = power @ power
    largest = power.diagonal(dim1=1, dim2=2).argmax(1)
    return power[torch.arange(len(power), device=power.device), largest]


@dataclass(frozen=True)
class NoiseLevel:
    """What a step of the sampler does at its noise level, and the weights of input and output
    around the network.
    """

    sigma: float  # Å, after its noise was added
    variance: float  # Å², of that noise
    pull: float  # how far the step goes from the noisy to the denoised structure: 1 all the way
    data: float  # Å, spread of structures

    @property
    def numbers(self) -> list[float]:
        """Spread of the noise, pull; then the scale of the input, the time, the weights of input
        and output.
        """
        scale = math.sqrt(self.sigma**2 + self.data**2)
        time = 0.25 * math.log(max(self.sigma / self.data, 1e-20))
        weights = (self.data / scale) ** 2, self.sigma * self.data / scale
        return [math.sqrt(self.variance), self.pull, scale, time, *weights]


@dataclass(frozen=True)
class Step:
    """One step of the sampler of M structures, as those who steer it see it."""

    index: int
    rotation: Float[
        Tensor, "M 3 3"
    ]  # by which all coordinates were turned at its start: x -> x @ rotation
    noise: Float[Tensor, "M A 3"]  # Å, added then
    variance: float  # Å², of the noise
    pull: float  # how far the step goes from the noisy to the denoised structure: 1 all the way


# (step, noisy structures, denoised ones) -> the same, moved or chosen among; Å
Steer = Callable[
    [Step, Float[Tensor, "M A 3"], Float[Tensor, "M A 3"]],
    tuple[Float[Tensor, "n A 3"], Float[Tensor, "n A 3"]],
]


def unsteered(step: Step, x: Tensor, denoised: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing is moved."""
    return x, denoised


class LaunchThrottle:
    """Lets the CPU run one step ahead of a GPU: it never waits for work, and progress is told
    when it is made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before: torch.cuda.Event | None = None

    def __call__(self) -> None:
        """A step has been asked for."""
        if self.device.type != "cuda":
            return
        if self.before is not None:
            self.before.synchronize()
        self.before = torch.cuda.Event()
        self.before.record()


class AtomDiffusion(nn.Module):
    """Boltz-2's sampler: AlphaFold 3, algorithm 18, with alignment of the noisy onto the
    denoised structure.
    """

    def __init__(
        self, architecture: Architecture, process: DiffusionProcess, cp: ContextParallel
    ) -> None:
        super().__init__()
        self.process = process
        self.sigma_data = float(architecture.sigma_data)
        self.score_model = ScoreModel(architecture, cp)

    def schedule(self, num_steps: int) -> list[float]:
        """Noise levels in Å, `num_steps` + 1 of them, the last 0 (Karras et al. 2022, equation
        5).
        """
        p = self.process
        ramp = torch.arange(num_steps, dtype=torch.float32) / max(1, num_steps - 1)
        low = p.sigma_min ** (1 / p.rho)
        high = p.sigma_max ** (1 / p.rho)
        return [
            *((high + ramp * (low - high)) ** p.rho * self.sigma_data).tolist(),
            0.0,
        ]

    def levels(self, sigmas: list[float]) -> list[NoiseLevel]:
        """Of every step of a schedule."""
        p = self.process
        levels = []
        for before, after in pairwise(sigmas):
            t = before * (1 + (p.gamma_0 if after > p.gamma_min else 0.0))
            variance = p.noise_scale**2 * (t**2 - before**2)
            pull = p.step_scale * (t - after) / t
            levels.append(NoiseLevel(t, variance, pull, self.sigma_data))
        return levels

    def denoise(
        self,
        x: Float[Tensor, "M A 3"],
        numbers: Float[Tensor, " L"],
        prepared: DenoiserCache,
    ) -> Float[Tensor, "M A 3"]:
        """The structure (Å) that the network sees behind `x` at the noise level of these
        `Level.numbers`.
        """
        _, _, scale, time, keep, move = numbers.split(1)
        return keep * x + move * self.score_model(x / scale, time, prepared)

    def sample(
        self,
        prepared: DenoiserCache,
        num_steps: int,
        draws: NoiseSource,
        progress: Callable[[], None] = lambda: None,
        steer: Steer = unsteered,
        together: int = 1 << 30,
    ) -> Float[Tensor, "M A 3"]:
        """Coordinates (Å) of M samples, `together` of which pass through the network at once.

        `steer` may move the structures of a step, and choose among them.
        """
        mask = prepared.features.atom_mask
        sigmas = self.schedule(num_steps)
        levels = self.levels(sigmas)
        ahead = partial(self._ahead, prepared, together)
        back = partial(_back, mask)
        if can_capture(mask.device) and prepared.features.num_tokens <= MOST_TOKENS:
            pool = new_pool()
            ahead = CUDAGraphWrapper(ahead, pool)
            back = CUDAGraphWrapper(back, pool)
        x = sigmas[0] * draws.initial()
        numbers = x.new_tensor([level.numbers for level in levels])
        pace = LaunchThrottle(mask.device)
        drawn = draws.step(0)
        for index, level in enumerate(levels):
            noise, x, denoised = ahead(x, *drawn, numbers[index])
            step = Step(index, drawn[0], noise, level.variance, level.pull)
            if index + 1 < num_steps:
                drawn = draws.step(index + 1)  # the CPU draws while a GPU denoises
            x = back(*steer(step, x, denoised), numbers[index])
            pace()
            progress()
        return x.clone()  # a recording's memory ends here

    def _ahead(
        self,
        prepared: DenoiserCache,
        together: int,
        x: Float[Tensor, "M A 3"],
        rotation: Float[Tensor, "M 3 3"],
        translation: Float[Tensor, "M 1 3"],
        noise: Float[Tensor, "M A 3"],
        numbers: Float[Tensor, " L"],
    ) -> tuple[Float[Tensor, "M A 3"], Float[Tensor, "M A 3"], Float[Tensor, "M A 3"]]:
        """The noise (Å), and the structures with it, turned at random, and denoised."""
        x = (x - x.mean(1, keepdim=True)) @ rotation + translation
        noise = numbers[0] * noise
        x = x + noise
        return (
            noise,
            x,
            torch.cat([self.denoise(some, numbers, prepared) for some in x.split(together)]),
        )


def _back(
    mask: Float[Tensor, " A"],
    x: Float[Tensor, "M A 3"],
    denoised: Float[Tensor, "M A 3"],
    numbers: Float[Tensor, " L"],
) -> Float[Tensor, "M A 3"]:
    """From the noisy structures, aligned, towards the denoised ones."""
    x = align(x, denoised, mask)
    return x + numbers[1] * (denoised - x)
