"""The hardware file of this machine's GPU."""

from __future__ import annotations

import pytest
import torch

from foldcp.pipeline.planning.detect_hardware import Gpu, first_gpu, gpu_hardware


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_first_gpu_is_that_of_torch() -> None:
    memory = torch.cuda.get_device_properties(0).total_memory
    assert first_gpu() == Gpu(torch.cuda.get_device_name(0), memory)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_first_gpu_is_none_without_one() -> None:
    assert first_gpu() is None


@pytest.mark.parametrize(
    ("name", "memory", "hardware"),
    [
        ("NVIDIA H200", 150_000_000_000, "h200"),
        ("NVIDIA H100 80GB HBM3", 85_000_000_000, "h100-80"),
        ("NVIDIA A100-SXM4-80GB", 85_000_000_000, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", 42_000_000_000, "a100-40"),
    ],
)
def test_gpu_hardware_of_known_gpus(name: str, memory: int, hardware: str) -> None:
    assert gpu_hardware(Gpu(name, memory)).name == hardware


def test_gpu_hardware_has_the_memory_of_the_gpu() -> None:
    assert gpu_hardware(Gpu("NVIDIA H200", 120_000_000_000)).memory_gb == pytest.approx(116.4)
    unknown = gpu_hardware(Gpu("NVIDIA X1", 20_000_000_000))
    assert unknown.name == "NVIDIA X1"
    assert unknown.memory_gb == pytest.approx(19.4)
