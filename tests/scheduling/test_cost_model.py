"""The cost model against measured block times, and how its bytes and seconds move with sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.complex import Chain, Complex
from foldcp.config import TINY
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.hardware import load_hardware

H200 = load_hardware("h200")
COSTS = CostModel(H200, load())
ANY = Complex("any", (Chain("A", "protein", "MKT"),))


def task(num_tokens: int, msa_depth: int = 1000) -> Task:
    return Task(ANY, f"{num_tokens}/{msa_depth}", num_tokens, msa_depth)


def shape(
    num_ranks: int = 1,
    precision: str = "bf16",
    parallel_samples: int = 1,
    max_rows: int = 16384,
) -> FoldShape:
    return FoldShape(num_ranks, precision, parallel_samples, max_rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_tokens", "num_ranks", "precision", "milliseconds"),
    [
        (2048, 1, "mixed", 49.5),
        (1024, 1, "bf16", 7.75),
        (2048, 1, "bf16", 45.6),
        (4096, 1, "bf16", 310),
    ],
)
def test_block_takes_the_time_measured_on_h200(
    num_tokens: int, num_ranks: int, precision: str, milliseconds: float
) -> None:
    assert COSTS.block(num_tokens, shape(num_ranks, precision)) * 1e3 == pytest.approx(
        milliseconds, rel=0.1
    )


def test_block_of_many_tokens_follows_the_count_of_operations() -> None:
    # At 20,000 tokens on one endless GPU the cubes rule: 8 N^3 exponentials and 512 N^3 operations.
    endless = CostModel(replace(H200, memory_gb=1e9), load())
    cubes = 20_000**3 * (8 / H200.exp_per_s + 512 / H200.flop_per_s)
    squares = 20_000**2 * H200.pair_traffic / H200.copy_bytes_per_s
    assert endless.block(20_000, shape()) == pytest.approx(cubes + squares, rel=1e-3)


def test_bytes_and_seconds_fall_with_the_number_of_ranks() -> None:
    big = task(4_999)
    bytes_, seconds = (
        [function(big, shape(p)) for p in (1, 2, 3, 5, 8)]
        for function in (COSTS.least_bytes, COSTS.seconds)
    )
    assert bytes_ == sorted(bytes_, reverse=True)
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / seconds[4] > 4  # communication costs something, and not most of it
    assert seconds[0] / seconds[4] < 8
    assert COSTS.seconds(big, shape(9)) > seconds[4]  # over the network to another node


def test_bytes_and_seconds_grow_with_precision_samples_and_rows() -> None:
    t = task(1500)
    assert (
        COSTS.least_bytes(t, shape(1, "bf16-int8"))
        < COSTS.least_bytes(t, shape(1, "bf16"))
        < COSTS.least_bytes(t, shape(1, "mixed"))
        < COSTS.least_bytes(t, shape(1, "fp32"))
    )
    assert COSTS.seconds(t, shape(1, "fp32")) > 2 * COSTS.seconds(t, shape(1, "bf16"))
    assert COSTS.least_bytes(t, shape(parallel_samples=5)) > COSTS.least_bytes(t, shape())
    assert (
        COSTS.least_bytes(t, shape(max_rows=100))
        < COSTS.least_bytes(t, shape())
        < COSTS.least_bytes(task(1500, 8000), shape())
    )
    assert COSTS.stages(t, shape(max_rows=100))["msa"] < COSTS.stages(t, shape())["msa"]
    base = COSTS.stages(t, shape())
    double = {
        "model.steps=400": ["diffusion"],
        "model.samples=2": ["diffusion", "confidence"],
        "model.recycling=7": ["trunk", "msa"],
    }
    for override, stages in double.items():
        other = CostModel(H200, load(overrides=[override])).stages(t, shape(parallel_samples=1))
        assert {name for name in base if other[name] == pytest.approx(2 * base[name])} - {
            "templates"
        } == set(stages)


def test_products_in_8_bits_are_for_who_asks_for_them() -> None:
    assert "bf16-int8" not in COSTS.precisions()
    asked = CostModel(H200, load(overrides=["model.precision=bf16-int8"]))
    assert asked.precisions() == ("bf16-int8",)
    t = task(17_000)
    assert asked.fits(t, shape(1, "bf16-int8"))
    assert not asked.fits(t, shape(1, "bf16"))
    t = task(9_000)
    assert asked.peak_bytes(t, shape(1, "bf16-int8")) < asked.peak_bytes(t, shape(1, "bf16"))
    t = task(3_000)
    assert asked.seconds(t, shape(1, "bf16-int8")) > asked.seconds(t, shape(1, "bf16"))


def test_pairs_of_large_complexes_are_in_memory_once_however_many_samples() -> None:
    samples = CostModel(H200, load(overrides=["model.samples=5"]))
    one = shape(precision="bf16")
    assert samples.least_bytes(task(3_000), one) > COSTS.least_bytes(task(3_000), one)
    assert samples.least_bytes(task(5_000), one) == COSTS.least_bytes(task(5_000), one)
    assert samples.peak_bytes(task(5_000), one) == COSTS.peak_bytes(task(5_000), one)


def test_parallel_samples_save_diffusion_time_only() -> None:
    costs = CostModel(H200, load(overrides=["model.samples=5"]))
    together = costs.stages(task(300), shape(parallel_samples=5))
    in_turn = costs.stages(task(300), shape())
    assert together["diffusion"] < in_turn["diffusion"]
    assert together["confidence"] == in_turn["confidence"]


def test_potentials_cost_particles_in_the_diffusion_only() -> None:
    steered = CostModel(H200, load(overrides=["model.potentials=true"]))
    assert steered.least_bytes(task(3000), shape()) > COSTS.least_bytes(task(3000), shape())
    with_ = steered.stages(task(3000), shape())
    without = COSTS.stages(task(3000), shape())
    assert with_["diffusion"] > 1.5 * without["diffusion"]
    assert with_["trunk"] == without["trunk"]


@pytest.mark.parametrize("num_tokens", [512, 2048])
def test_samples_of_a_small_complex_cost_what_those_of_one_rank_do(num_tokens: int) -> None:
    five, three = (CostModel(H200, load(overrides=[f"model.samples={n}"])) for n in (5, 3))
    t = task(num_tokens)
    on_two = five.stages(t, shape(2, parallel_samples=5))
    alone = three.stages(t, shape(1, parallel_samples=5))
    shared = five.stages(t, shape(2, parallel_samples=1))
    for stage in ("diffusion", "confidence"):
        assert on_two[stage] == alone[stage]
    for stage in ("msa", "trunk"):
        assert alone[stage] > on_two[stage] == shared[stage]
    assert shared["confidence"] < five.stages(t, shape(parallel_samples=5))["confidence"]


def test_pairs_of_a_small_complex_are_in_the_memory_of_each_rank() -> None:
    costs = CostModel(H200, load(overrides=["model.samples=8"]))
    small, large = task(2048, 4096), task(2049, 4096)
    own = [shape(p, "mixed", 8) for p in (1, 2, 4, 8)]
    for function in (costs.least_bytes, costs.peak_bytes):
        of_ranks = [function(small, each) for each in own]
        assert of_ranks[1:] == sorted(of_ranks[1:], reverse=True)
        assert of_ranks[3] > function(large, own[3]) + 2e9
        in_turn = [replace(each, parallel_samples=1) for each in own]
        assert function(small, in_turn[3]) < function(large, in_turn[3]) < of_ranks[3]
    assert costs.least_bytes(small, own[1]) < costs.least_bytes(small, own[0])
    z = 2048**2 * 4 * 128
    scored = costs.least_bytes(small, own[2]) - costs.least_bytes(small, own[3])
    assert scored == pytest.approx(z), "with one sample its scores overwrite the trunk's z"


def test_small_networks_cost_little() -> None:
    tiny = CostModel(H200, load(), TINY)
    assert tiny.seconds(task(3000), shape()) < COSTS.seconds(task(3000), shape()) / 20
    reserved = H200.reserved_gb * 1e9
    assert (
        tiny.least_bytes(task(3000), shape()) - reserved
        < (COSTS.least_bytes(task(3000), shape()) - reserved) / 5
    )
