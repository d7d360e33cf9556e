"""`foldcp bench`: complete tables, limits by the arithmetic, constants that give the measured times
back. No test asks how fast this machine is.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from foldcp.config import BOLTZ2, TINY
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.pipeline.bench import measure as bench_measure
from foldcp.pipeline.bench import run as bench
from foldcp.pipeline.bench.measure import (
    QUICK,
    Place,
    Plan,
    attempt,
    made_up_features,
    pair_block,
)
from foldcp.pipeline.bench.report import Report, to_dict, to_text, to_yaml
from foldcp.pipeline.bench.roofline import (
    BlockTime,
    FoldPlan,
    FoldTime,
    Machine,
    Measurement,
    NotMeasured,
    RooflineLimits,
    block_limit,
    fit,
    fold_limit,
    model_block,
    model_bytes,
    model_fold,
    synthetic,
)
from foldcp.pipeline.bench.run import Options
from foldcp.pipeline.cli import main
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import (
    Arithmetic,
    Costs,
    FoldShape,
    Hardware,
    load_hardware,
)
from tests.support.distributed import run

H200 = RooflineLimits(1, 4.2e12, 750e12, 50e12, 2.0e12, 4.2e12, 5e-6, None)
FOUR = replace(H200, num_ranks=4, link_bytes_per_s=300e9)
WHOLE = FoldPlan("untrained:boltz2", recycling=3, steps=200, samples=5, msa_rows=4096)
SMALL = FoldPlan("untrained:tiny", recycling=0, steps=2, samples=2, msa_rows=3)
MACHINE = Machine("NVIDIA H200", 4, {"torch": "2.0"}, load_hardware("h200"))


def test_limit_of_a_block_is_that_of_the_design() -> None:
    # At 100,000 tokens the cubes rule: 8 exponentials at 4.2e12/s and 512 operations at 750e12/s.
    cubes = 1e15 * (8 / 4.2e12 + 512 / 750e12)
    assert block_limit(BOLTZ2, 100_000, 1, "bf16", H200) == pytest.approx(cubes, rel=0.02)
    for tokens, milliseconds in ((1024, 5), (2048, 32), (4096, 225)):
        limit = block_limit(BOLTZ2, tokens, 1, "bf16", H200)
        assert limit == pytest.approx(milliseconds / 1e3, rel=0.15)
    assert block_limit(BOLTZ2, 600, 1, "mixed", H200) > block_limit(BOLTZ2, 600, 1, "bf16", H200)
    # In fp32 the matrix products of attention take longer than its exponentials.
    exact = 1e15 * (8 * 128 + 512) / 50e12
    assert block_limit(BOLTZ2, 100_000, 1, "fp32", H200) == pytest.approx(exact, rel=0.02)


def test_limit_of_a_prediction() -> None:
    fold = FoldTime(512, 1, "mixed", {}, {})
    limit = fold_limit(BOLTZ2, WHOLE, fold, H200)
    block = block_limit(BOLTZ2, 512, 1, "mixed", H200)
    assert limit["trunk"] == pytest.approx(4 * 68 * block)
    assert limit["confidence"] == pytest.approx(5 * 8 * block)
    # 1,000 evaluations of 24 layers, width 768: about 0.4 s.
    assert 0.3 < limit["sampling"] < 0.5
    halves = fold_limit(BOLTZ2, WHOLE, replace(fold, num_ranks=2), H200)
    assert halves["trunk"] == pytest.approx(limit["trunk"] / 2)


def findings(hardware: Hardware, precision: Arithmetic = "bf16") -> list[Measurement]:
    """What a machine of which the model is true would show."""
    found: list[Measurement] = [H200]
    for tokens in (512, 1024, 2048):
        block = BlockTime(tokens, 1, precision, 1.0, 900.0)
        found.append(replace(block, seconds=model_block(hardware, BOLTZ2, block)))
    return found


def fitted_base() -> Hardware:
    return replace(MACHINE.hardware, copy_bytes_per_s=4.2e12, flop_per_s=750e12, fp32_slowdown=15.0, exp_per_s=2.0e12,
                   launch_seconds=5e-6, pair_traffic=43_210.0)  # fmt: skip


def test_the_fit_gives_the_blocks_back() -> None:
    truth = fitted_base()
    hardware, measured = fit(MACHINE, BOLTZ2, BOLTZ2, WHOLE, findings(truth))
    assert hardware == replace(truth, pair_traffic=hardware.pair_traffic)
    assert hardware.pair_traffic == pytest.approx(43_210)
    assert set(measured) == {
        "copy_bytes_per_s", "flop_per_s", "fp32_slowdown", "exp_per_s", "launch_seconds", "pair_traffic",
    }  # fmt: skip
    # Times of several ranks say something of the link, not of the traffic.
    more = [*findings(truth), FOUR, BlockTime(4096, 4, "bf16", 9.0, 900.0)]
    assert fit(MACHINE, BOLTZ2, BOLTZ2, WHOLE, more)[0] == replace(hardware, link_bytes_per_s=300e9)
    # A block faster than the model thinks possible leaves the least traffic, not none.
    fast = [H200, BlockTime(2048, 1, "bf16", 1e-6, 900.0)]
    assert fit(MACHINE, BOLTZ2, BOLTZ2, WHOLE, fast)[0].pair_traffic == pytest.approx(10_784)


def test_bytes_per_pair_come_from_predictions_that_fill_a_gpu() -> None:
    truth = replace(fitted_base(), pair_bytes_bf16=777.0)
    fold = FoldTime(10_000, 1, "bf16", {"trunk": 1.0}, {})
    full = replace(
        fold,
        peak_bytes={
            "trunk": int(model_bytes(truth, BOLTZ2, WHOLE, fold)),
            "sampling": 1,
        },
    )
    small = FoldTime(512, 1, "mixed", {"trunk": 1.0}, {"trunk": 20_000_000_000})
    hardware, measured = fit(MACHINE, BOLTZ2, BOLTZ2, WHOLE, [*findings(truth), full, small])
    assert hardware.pair_bytes_bf16 == pytest.approx(777)
    assert "pair_bytes_bf16" in measured
    assert hardware.pair_bytes_mixed == MACHINE.hardware.pair_bytes_mixed
    assert "pair_bytes_mixed" not in measured


def test_a_cpu_computes_in_fp32() -> None:
    machine = Machine("CPU", 1, {}, load_hardware("cpu"))
    hardware, _ = fit(
        machine,
        BOLTZ2,
        TINY,
        SMALL,
        [replace(H200, flop_per_s=1e9, flop_per_s_fp32=3e10)],
    )
    assert (hardware.flop_per_s, hardware.fp32_slowdown) == (3e10, 1.0)
    assert fit(machine, BOLTZ2, TINY, SMALL, [NotMeasured("ceilings", "out of memory")]) == (
        machine.hardware,
        (),
    )


def made_up_report() -> Report:
    fold = FoldTime(
        1024,
        4,
        "mixed",
        {"trunk": 3.0, "sampling": 2.0, "confidence": 0.5},
        {"trunk": 9_000_000_000, "sampling": 8_000_000_000, "confidence": 7_000_000_000},
    )
    found = [
        *findings(fitted_base()),
        FOUR,
        fold,
        NotMeasured("prediction, 99999 tokens, bf16", "out of memory"),
    ]
    return Report(MACHINE, WHOLE, found, "2026-01-31", "foldcp bench")


def test_the_tables_say_everything() -> None:
    report = made_up_report()
    text = to_text(report)
    for words in ("NVIDIA H200", "torch 2.0", "2026-01-31", "4.2 TB/s", "750 Tflop/s", "5 us", "300 GB/s", "2,048",
                  "99999 tokens, bf16: out of memory", "sampling", "4,096 rows"):  # fmt: skip
        assert words in text
    content = json.loads(json.dumps(to_dict(report)))
    for row in content["blocks"]:
        assert row["fraction_of_limit"] == pytest.approx(row["limit_seconds"] / row["seconds"])
        assert row["model_seconds"] == pytest.approx(row["seconds"])
    (row,) = content["predictions"]
    assert row["total_seconds"] == pytest.approx(5.5)
    assert row["fraction_of_limit"]["trunk"] == pytest.approx(row["limit_seconds"]["trunk"] / 3.0)
    fold = next(f for f in report.findings if isinstance(f, FoldTime))
    assert row["model_seconds"] == pytest.approx(model_fold(report.fitted[0], BOLTZ2, WHOLE, fold))
    assert len(content["ceilings"]) == 2


def test_the_file_is_a_hardware_file(tmp_path: Path) -> None:
    report = made_up_report()
    file = tmp_path / "new.yaml"
    file.write_text(to_yaml(report))
    read = load_hardware(file)
    (fitted, measured) = report.fitted
    for field in fields(Hardware):
        value = getattr(fitted, field.name)
        assert getattr(read, field.name) == (
            pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        )
    marked = {
        line.partition(":")[0]
        for line in file.read_text().splitlines()
        if line.endswith("# measured")
    }
    assert marked == set(measured)
    assert (
        yaml.safe_load(file.read_text())["exp_per_s"] == 2.0e12
    )  # a number for every reader of YAML
    assert all(isinstance(value, int | float | str) for value in asdict(read).values())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One repeat of everything, and no GPU."""
    monkeypatch.setattr(bench, "devices", lambda: ("cpu", "CPU", 1))
    once = replace(
        QUICK["cpu"],
        most_repeats=1,
        copy_bytes=1 << 16,
        gemm=32,
        attention_tokens=19,
        launches=3,
    )
    monkeypatch.setitem(QUICK, "cpu", once)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_bench_on_a_cpu(
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "foldcp",
        "bench",
        "--quick",
        "--sizes",
        "13,21",
        "--precision",
        "fp32,bf16",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    (ceilings,) = content["ceilings"]
    assert all(value > 0 for value in ceilings.values() if value is not None)
    expected = [(n, 1, p) for p in ("fp32", "bf16") for n in (13, 21)]
    for table in ("blocks", "predictions"):
        assert [
            (r["num_tokens"], r["num_ranks"], r["precision"]) for r in content[table]
        ] == expected
    for row in content["predictions"]:
        assert (
            list(row["seconds"]) == list(row["peak_bytes"]) == ["trunk", "sampling", "confidence"]
        )
        assert all(value > 0 for value in (*row["seconds"].values(), *row["peak_bytes"].values()))
    assert err.count("prediction,") == 4
    hardware = load_hardware(tmp_path / "cpu.yaml")
    costs = Costs(hardware, load(), TINY)
    task = Task(synthetic(300), "", 300, 10)
    setup = FoldShape(1, "fp32", 1, 10)
    assert all(math.isfinite(value) and value >= 0 for value in costs.stages(task, setup).values())
    assert costs.bytes(task, setup) > 0
    # A second time it refuses before it measures, unless told.
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "cpu.yaml: exists; --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [(Options(sizes="12,many"), "--sizes 12,many: 'many'"), (Options(sizes="0"), "'0' is no positive"),
     (Options(folds="512,x"), "--folds 512,x: 'x'"),
     (Options(precision="bf61"), "did you mean bf16"), (Options(ranks="-1"), "--ranks -1"),
     (Options(write=Path("here.txt")), "ends in .yaml"), (Options(write=Path("no/where.yaml")), "no folder no")],
)  # fmt: skip
def test_mistakes(
    options: Options,
    words: str,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("nothing may be measured"))
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        bench.bench(options)


def test_ranks_of_torchrun(quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bench, "measure", lambda *_: iter([H200]))
    monkeypatch.setattr(sys, "argv", ["bench.py", "bench", "--quick"])
    options = Options(quick=True, write=tmp_path / "one.yaml")
    found = bench.bench(options)
    assert found is not None
    assert found[0].command == "torchrun --nproc_per_node 1 -m foldcp bench --quick"
    monkeypatch.setenv("RANK", "1")
    assert bench.bench(replace(options, overwrite=True)) is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 ranks, 1 of them here"):
        bench.bench(replace(options, overwrite=True))


def test_several_ranks(quick: None, tmp_path: Path) -> None:
    plan = Plan("cpu", (13,), (13,), ("fp32",), SMALL, quick=True)
    one, *others = run(_measured, 3, plan)
    assert others == [one, one]  # the slowest rank's, everywhere
    ceilings, block, fold = one
    assert (ceilings.num_ranks, block.num_ranks, fold.num_ranks) == (3, 3, 3)
    assert ceilings.link_bytes_per_s > 0
    assert list(fold.peak_bytes) == ["trunk", "sampling", "confidence"]


@pytest.mark.parametrize(("asked", "measured"), [("", (24, 40)), ("9,11", (9, 11)), ("0", ())])
def test_predictions_have_sizes_of_their_own(
    asked: str,
    measured: tuple[int, ...],
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(
        bench, "measure", lambda cp, device, plan: plans.append(plan) or iter([H200])
    )
    bench.bench(Options(quick=True, folds=asked, ranks="1", write=tmp_path / "x.yaml"))
    assert [(plan.sizes, plan.fold_sizes) for plan in plans] == [((24, 40), measured)]


def _measured(cp: ContextParallel, plan: Plan) -> list[Measurement]:
    return list(bench_measure.measure(cp, torch.device("cpu"), plan))


def test_processes_that_fail_leave_what_they_found(quick: None) -> None:
    plan = Plan(
        "cpu",
        (7,),
        (7,),
        ("fp32",),
        replace(SMALL, network="untrained:large"),
        quick=True,
    )
    *found, missing = bench._on_ranks(2, plan)
    assert [type(f) for f in found] == [RooflineLimits, BlockTime]
    assert isinstance(missing, NotMeasured)
    assert "untrained:large" in missing.reason


def test_data_are_random_and_masked() -> None:
    place = Place(ContextParallel(), torch.device("cpu"), QUICK["cpu"])
    assert place.randn(9, 9).unique().numel() == 81
    features = made_up_features(33, 5)
    assert features.msa.shape == (5, 33)
    assert features.asym_id.unique().numel() == 2
    assert (features.msa[0] == features.res_type).all()
    assert features.msa[1:].unique().numel() > 10
    block = pair_block(place, "mixed")
    assert all(parameter.float().std() > 0 for parameter in block.parameters())
    assert block.tri_mul_in.p_in.weight.dtype == torch.bfloat16
    assert bench_measure.last_masked(200, place.device).sum() == 196


def test_out_of_memory_is_a_finding_for_one_rank() -> None:
    def exhausted() -> Measurement:
        raise torch.OutOfMemoryError("no")

    place = Place(ContextParallel(), torch.device("cpu"), QUICK["cpu"])
    assert attempt(place, "block", exhausted) == NotMeasured("block", "out of memory")
