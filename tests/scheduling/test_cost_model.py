"""Costs: the model meets the measured block times, and its bytes and seconds move the way they
must.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from foldcp.complex import Chain, Complex
from foldcp.config import TINY
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import PRESETS, Costs, FoldShape, load_hardware

H200 = load_hardware("h200")
COSTS = Costs(H200, load())
ANY = Complex("any", (Chain("A", "protein", "MKT"),))


def task(num_tokens: int, msa_depth: int = 1000) -> Task:
    return Task(ANY, f"{num_tokens}/{msa_depth}", num_tokens, msa_depth)


def setup(
    num_ranks: int = 1,
    precision: str = "bf16",
    parallel_samples: int = 1,
    max_rows: int = 16384,
) -> FoldShape:
    return FoldShape(num_ranks, precision, parallel_samples, max_rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_tokens", "num_ranks", "precision", "milliseconds"),
    [(512, 1, "mixed", 2.33), (1024, 1, "mixed", 11.0), (2048, 1, "mixed", 63.2), (4096, 1, "mixed", 434),
     (512, 1, "bf16", 2.41), (1024, 1, "bf16", 9.96), (2048, 1, "bf16", 59.7), (4096, 1, "bf16", 421),
     (2048, 2, "mixed", 36.2), (2048, 2, "bf16", 33.6), (4096, 2, "mixed", 231), (4096, 2, "bf16", 218)],
)  # fmt: skip
def test_blocks_take_the_time_measured_on_h200(
    num_tokens: int, num_ranks: int, precision: str, milliseconds: float
) -> None:
    assert COSTS.block(num_tokens, setup(num_ranks, precision)) * 1e3 == pytest.approx(
        milliseconds, rel=0.1
    )


def test_large_blocks_follow_the_arithmetic() -> None:
    # At 20,000 tokens on one endless GPU the cubes rule: 8 N^3 exponentials and 512 N^3 operations.
    endless = Costs(replace(H200, memory_gb=1e9), load())
    cubes = 20_000**3 * (8 / H200.exp_per_s + 512 / H200.flop_per_s)
    squares = 20_000**2 * H200.pair_traffic / H200.copy_bytes_per_s
    assert endless.block(20_000, setup()) == pytest.approx(cubes + squares, rel=1e-3)


def test_ranks_share_memory_and_time() -> None:
    big = task(4_999)
    bytes_, seconds = (
        [function(big, setup(p)) for p in (1, 2, 3, 5, 8)]
        for function in (COSTS.bytes, COSTS.seconds)
    )
    assert bytes_ == sorted(bytes_, reverse=True)
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / seconds[4] > 4  # communication costs something, and not most of it
    assert seconds[0] / seconds[4] < 8
    assert COSTS.seconds(big, setup(9)) > seconds[4]  # over the network to another node


def test_what_costs_more_is_more() -> None:
    t = task(1500)
    assert (
        COSTS.bytes(t, setup(1, "bf16"))
        < COSTS.bytes(t, setup(1, "mixed"))
        < COSTS.bytes(t, setup(1, "fp32"))
    )
    assert COSTS.seconds(t, setup(1, "fp32")) > 2 * COSTS.seconds(t, setup(1, "bf16"))
    assert COSTS.bytes(t, setup(parallel_samples=5)) > COSTS.bytes(t, setup())
    assert (
        COSTS.bytes(t, setup(max_rows=100))
        < COSTS.bytes(t, setup())
        < COSTS.bytes(task(1500, 8000), setup())
    )
    assert COSTS.stages(t, setup(max_rows=100))["msa"] < COSTS.stages(t, setup())["msa"]
    base = COSTS.stages(t, setup())
    double = {"model.steps=400": ["diffusion"], "model.samples=2": ["diffusion", "confidence"],
              "model.recycling=7": ["trunk", "msa"]}  # fmt: skip
    for override, stages in double.items():
        other = Costs(H200, load(overrides=[override])).stages(t, setup(parallel_samples=1))
        assert {name for name in base if other[name] == pytest.approx(2 * base[name])} - {
            "templates"
        } == set(stages)


def test_samples_at_once_save_time_only() -> None:
    costs = Costs(H200, load(overrides=["model.samples=5"]))
    at_once = costs.stages(task(300), setup(parallel_samples=5))
    in_turn = costs.stages(task(300), setup())
    assert at_once["diffusion"] < in_turn["diffusion"]
    assert at_once["confidence"] == in_turn["confidence"]


def test_potentials_cost_particles() -> None:
    steered = Costs(H200, load(overrides=["model.potentials=true"]))
    assert steered.bytes(task(3000), setup()) > COSTS.bytes(task(3000), setup())
    with_ = steered.stages(task(3000), setup())
    without = COSTS.stages(task(3000), setup())
    assert with_["diffusion"] > 1.5 * without["diffusion"]
    assert with_["trunk"] == without["trunk"]


def test_small_networks_cost_little() -> None:
    tiny = Costs(H200, load(), TINY)
    assert tiny.seconds(task(3000), setup()) < COSTS.seconds(task(3000), setup()) / 20
    reserved = H200.reserved_gb * 1e9
    assert (
        tiny.bytes(task(3000), setup()) - reserved
        < (COSTS.bytes(task(3000), setup()) - reserved) / 5
    )


def test_smallest_group_is_the_smallest_in_the_most_exact_arithmetic() -> None:
    sizes = set()
    for num_tokens in range(1_000, 40_000, 1_500):
        t = task(num_tokens)
        chosen = COSTS.smallest(t, 8)
        fits = [
            setup(p, precision)
            for precision in ("mixed", "bf16")
            for p in range(1, 9)
            if COSTS.bytes(t, setup(p, precision)) <= 141e9
        ]
        assert chosen == (fits[0] if fits else None)
        sizes.add((chosen.num_ranks, chosen.precision) if chosen else None)
    # Every integer is a size, not only squares or powers of two; some need bf16; some do not fit at
    # all.
    assert {(3, "mixed"), (5, "mixed"), (8, "mixed"), (8, "bf16"), None} <= sizes


def test_the_node_holds_what_the_design_promises_with_care() -> None:
    assert COSTS.smallest(task(30_000, 1), 8) is not None
    assert COSTS.smallest(task(20_000, 1), 4) is not None
    reason = COSTS.why_not(task(60_000), 8)
    assert "60000 tokens" in reason
    assert "on each of 8 GPUs" in reason
    assert "141 GB" in reason


def test_asked_precision_is_the_only_one() -> None:
    exact = Costs(H200, load(overrides=["model.precision=fp32"]))
    assert exact.precisions() == ("fp32",)
    assert Costs(load_hardware("cpu"), load(), TINY).precisions() == ("fp32",)
    largest = max(n for n in range(1000, 40_000, 500) if exact.smallest(task(n), 8))
    assert COSTS.smallest(task(largest + 500), 8) is not None


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets(name: str) -> None:
    hardware = load_hardware(name)
    assert hardware.name == name
    assert hardware == load_hardware(PRESETS / f"{name}.yaml")
    assert (
        hardware.pair_bytes("bf16") <= hardware.pair_bytes("mixed") <= hardware.pair_bytes("fp32")
    )
    assert Costs(hardware, load(), TINY).smallest(task(600, 1), 1) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [({"memory": 3}, ["memory", "unknown", "did you mean memory_gb?"]), ({"memory_gb": None}, ["memory_gb", "None"]),
     ({"memory_gb": "many"}, ["memory_gb", "'many'"]), ({"gpus_per_node": 0}, ["gpus_per_node", "not positive"]),
     ({"device": "tpu"}, ["device", "'tpu'"])],
)  # fmt: skip
def test_mistakes_in_a_hardware_file(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    content = yaml.safe_load((PRESETS / "h200.yaml").read_text())
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content | change))
    with pytest.raises(ValueError, match=r"my\.yaml") as error:
        load_hardware(tmp_path / "my.yaml")
    assert all(word in str(error.value) for word in words)


def test_missing_keys_and_names(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match="device is missing"):
        load_hardware(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match=r"h20: no such file.*did you mean h200\?"):
        load_hardware("h20")
