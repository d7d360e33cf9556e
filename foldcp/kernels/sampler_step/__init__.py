"""What a step of the diffusion sampler does beside the network."""

from __future__ import annotations

from foldcp.kernels.dispatch import Backend
from foldcp.kernels.sampler_step.reference import SamplerStep

__all__ = ["SamplerStep", "choose"]


def choose(backend: Backend) -> SamplerStep:
    """The implementation on this device."""
    if not backend.triton:
        return SamplerStep()
    from foldcp.kernels.sampler_step.triton import SamplerStepTriton

    return SamplerStepTriton()
