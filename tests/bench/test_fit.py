"""The fit of the cost model: constants that give the measured times back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.config import BOLTZ2, TINY
from foldcp.pipeline.bench.fit import FittedHardware, fit_hardware, least_bytes
from foldcp.pipeline.bench.measurements import BlockTime, FoldTime, Machine, NotMeasured
from foldcp.pipeline.scheduling.costs.memory import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from foldcp.pipeline.scheduling.hardware import load_hardware
from tests.support.bench import FOUR, H200, MACHINE, SMALL, WHOLE, fitted_base, measurements


def test_fit_hardware_gives_the_measured_blocks_back() -> None:
    truth = fitted_base()
    fitted = fit_hardware(MACHINE, BOLTZ2, BOLTZ2, WHOLE, measurements(truth))
    hardware = fitted.hardware
    assert hardware == replace(truth, pair_traffic=hardware.pair_traffic)
    assert hardware.pair_traffic == pytest.approx(43_210)
    assert set(fitted.measured) == {
        "copy_bytes_per_s",
        "flop_per_s",
        "fp32_slowdown",
        "exp_per_s",
        "launch_seconds",
        "pair_traffic",
    }
    # Times of several ranks say something of the link, not of the traffic.
    more = [*measurements(truth), FOUR, BlockTime(4096, 4, "bf16", 9.0, 900.0)]
    with_link = fit_hardware(MACHINE, BOLTZ2, BOLTZ2, WHOLE, more)
    assert with_link.hardware == replace(hardware, link_bytes_per_s=300e9)
    # A block faster than the model thinks possible leaves the least traffic, not none.
    fast = [H200, BlockTime(2048, 1, "bf16", 1e-6, 900.0)]
    fitted = fit_hardware(MACHINE, BOLTZ2, BOLTZ2, WHOLE, fast)
    assert fitted.hardware.pair_traffic == pytest.approx(10_784)


def test_fit_pair_bytes_takes_predictions_that_fill_a_gpu() -> None:
    truth = replace(fitted_base(), pair_bytes_bf16=777.0)
    fold = FoldTime(10_000, 1, "bf16", {"trunk": 1.0}, {})
    chunk = MAX_CHUNK_BYTES - MIN_CHUNK_BYTES
    full_bytes = int(least_bytes(truth, BOLTZ2, WHOLE, fold) + chunk)
    full = replace(fold, peak_bytes={"trunk": full_bytes, "sampling": 1})
    small = FoldTime(512, 1, "mixed", {"trunk": 1.0}, {"trunk": 20_000_000_000})
    own_samples = FoldTime(2048, 2, "mixed", {"trunk": 1.0}, {"sampling": 100_000_000_000})
    found = [*measurements(truth), full, small, own_samples]
    fitted = fit_hardware(MACHINE, BOLTZ2, BOLTZ2, WHOLE, found)
    assert fitted.hardware.pair_bytes_bf16 == pytest.approx(777)
    assert "pair_bytes_bf16" in fitted.measured
    assert fitted.hardware.pair_bytes_mixed == MACHINE.hardware.pair_bytes_mixed
    assert "pair_bytes_mixed" not in fitted.measured


def test_fit_hardware_of_a_cpu_takes_the_rate_of_fp32() -> None:
    machine = Machine("CPU", 1, {}, load_hardware("cpu"))
    limits = replace(H200, flop_per_s=1e9, flop_per_s_fp32=3e10)
    hardware = fit_hardware(machine, BOLTZ2, TINY, SMALL, [limits]).hardware
    assert (hardware.flop_per_s, hardware.fp32_slowdown) == (3e10, 1.0)
    nothing = fit_hardware(machine, BOLTZ2, TINY, SMALL, [NotMeasured("limits", "out of memory")])
    assert nothing == FittedHardware(machine.hardware, ())
