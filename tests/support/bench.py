"""Measurements of a machine on which the cost model is true."""

from __future__ import annotations

from dataclasses import replace

from foldcp.config import BOLTZ2, Precision
from foldcp.pipeline.bench.fit import model_block
from foldcp.pipeline.bench.measurements import (
    BlockTime,
    FoldPlan,
    Machine,
    Measurement,
    RooflineLimits,
)
from foldcp.pipeline.scheduling.hardware import Hardware, load_hardware

H200 = RooflineLimits(1, 4.2e12, 750e12, 50e12, 2.0e12, 4.2e12, 5e-6, None)

FOUR = replace(H200, num_ranks=4, link_bytes_per_s=300e9)

WHOLE = FoldPlan("untrained:boltz2", recycling=3, steps=200, samples=5, msa_rows=4096)

SMALL = FoldPlan("untrained:tiny", recycling=0, steps=2, samples=2, msa_rows=3)

MACHINE = Machine("NVIDIA H200", 4, {"torch": "2.0"}, load_hardware("h200"))


def measurements(hardware: Hardware, precision: Precision = "bf16") -> list[Measurement]:
    """The measurements of a machine on which the cost model is true."""
    found: list[Measurement] = [H200]
    for tokens in (512, 1024, 2048):
        block = BlockTime(tokens, 1, precision, 1.0, 900.0)
        found.append(replace(block, seconds=model_block(hardware, BOLTZ2, block)))
    return found


def fitted_base() -> Hardware:
    return replace(
        MACHINE.hardware,
        copy_bytes_per_s=4.2e12,
        flop_per_s=750e12,
        fp32_slowdown=15.0,
        exp_per_s=2.0e12,
        launch_seconds=5e-6,
        pair_traffic=43_210.0,
    )
