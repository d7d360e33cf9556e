"""`foldcp bench` on CPU ranks. No test asks how fast this machine is."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foldcp.config import TINY
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.layers.chunking import ChunkBudget
from foldcp.pipeline.bench import launch
from foldcp.pipeline.bench import run as bench
from foldcp.pipeline.bench.context import QUICK_SCALES, BenchContext
from foldcp.pipeline.bench.measure import (
    GROUP_SIZE,
    BenchPlan,
    attempt,
    measure,
    padding_mask,
    random_pair_block,
)
from foldcp.pipeline.bench.measurements import (
    BlockTime,
    Measurement,
    NotMeasured,
    RooflineLimits,
    Throughput,
    synthetic_complex,
)
from foldcp.pipeline.bench.run import BenchOptions
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from foldcp.pipeline.cli import main
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.hardware import load_hardware
from tests.support.bench import H200, SMALL
from tests.support.distributed import run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One repeat of everything, and no GPU."""
    monkeypatch.setattr(bench, "find_devices", lambda: bench.Devices("cpu", "CPU", 1))
    once = replace(
        QUICK_SCALES["cpu"],
        max_repeats=1,
        copy_bytes=1 << 16,
        matrix_size=32,
        attention_tokens=19,
        launches=3,
    )
    monkeypatch.setitem(QUICK_SCALES, "cpu", once)
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
    (limits,) = content["limits"]
    assert all(value > 0 for value in limits.values() if value is not None)
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
    costs = CostModel(hardware, load(), TINY)
    task = Task(synthetic_complex(300), "", 300, 10)
    shape = FoldShape(1, "fp32", 1, 10)
    assert all(math.isfinite(value) and value >= 0 for value in costs.stages(task, shape).values())
    assert costs.least_bytes(task, shape) > 0
    # A second time it refuses before it measures, without --overwrite.
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "cpu.yaml: exists; --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BenchOptions(sizes="12,many"), "--sizes 12,many: 'many'"),
        (BenchOptions(sizes="0"), "'0' is not a positive"),
        (BenchOptions(folds="512,x"), "--folds 512,x: 'x'"),
        (BenchOptions(precision="bf61"), "did you mean bf16"),
        (BenchOptions(throughput="256,x"), "--throughput 256,x: 'x'"),
        (BenchOptions(beside="bolts"), "'bolts'; did you mean boltz"),
        (BenchOptions(beside="boltz"), "measured on one GPU"),
        (BenchOptions(ranks="-1"), "--ranks -1"),
        (BenchOptions(write=Path("here.txt")), "ends in .yaml"),
        (BenchOptions(write=Path("no/where.yaml")), "no such folder: no"),
    ],
)
def test_bench_names_the_wrong_option(
    options: BenchOptions,
    words: str,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "measure", lambda *_: pytest.fail("nothing may be measured"))
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        bench.bench(options)


def test_bench_on_ranks_of_torchrun(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "measure", lambda *_: iter([H200]))
    monkeypatch.setattr(sys, "argv", ["bench.py", "bench", "--quick"])
    options = BenchOptions(quick=True, write=tmp_path / "one.yaml")
    found = bench.bench(options)
    assert found is not None
    assert found[0].command == "torchrun --nproc_per_node 1 -m foldcp bench --quick"
    monkeypatch.setenv("RANK", "1")
    assert bench.bench(replace(options, overwrite=True)) is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 ranks, 1 of them here"):
        bench.bench(replace(options, overwrite=True))


def test_measure_on_several_ranks(quick: None, tmp_path: Path) -> None:
    """Of which the last one has no samples."""
    plan = BenchPlan("cpu", (13,), (13,), (13,), ("fp32",), SMALL, quick=True)
    one, *others = run(_measured, 3, plan)
    assert others == [one, one]  # one rank's, everywhere
    limits, block, fold = one
    assert (limits.num_ranks, block.num_ranks, fold.num_ranks) == (3, 3, 3)
    assert limits.link_bytes_per_s > 0
    assert list(fold.peak_bytes) == ["trunk", "sampling", "confidence"]


@pytest.mark.parametrize(("asked", "measured"), [("", (24, 40)), ("9,11", (9, 11)), ("0", ())])
def test_folds_are_measured_at_their_own_sizes(
    asked: str,
    measured: tuple[int, ...],
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plans: list[BenchPlan] = []
    monkeypatch.setattr(
        launch, "measure", lambda cp, device, plan: plans.append(plan) or iter([H200])
    )
    bench.bench(BenchOptions(quick=True, folds=asked, ranks="1", write=tmp_path / "x.yaml"))
    assert [(plan.sizes, plan.fold_sizes) for plan in plans] == [((24, 40), measured)]


def _measured(cp: ContextParallel, plan: BenchPlan) -> list[Measurement]:
    return list(measure(cp, torch.device("cpu"), plan))


def test_measure_on_ranks_keeps_what_was_measured_before_a_failure(quick: None) -> None:
    plan = BenchPlan(
        "cpu",
        (7,),
        (7,),
        (),
        ("fp32",),
        replace(SMALL, network="untrained:large"),
        quick=True,
    )
    *found, missing = launch.measure_on_ranks(2, plan)
    assert [type(f) for f in found] == [RooflineLimits, BlockTime]
    assert isinstance(missing, NotMeasured)
    assert "untrained:large" in missing.reason


def test_measured_data_are_random_and_masked() -> None:
    context = BenchContext(ContextParallel(), torch.device("cpu"), QUICK_SCALES["cpu"])
    assert context.randn(9, 9).unique().numel() == 81
    features = synthetic_features(33, 5)
    assert features.msa.shape == (5, 33)
    assert features.asym_id.unique().numel() == 2
    assert (features.msa[0] == features.res_type).all()
    assert features.msa[1:].unique().numel() > 10
    block = random_pair_block(context, "mixed", ChunkBudget())
    assert all(parameter.float().std() > 0 for parameter in block.parameters())
    assert block.tri_mul_in.p_in.weight.dtype == torch.bfloat16
    assert padding_mask(200, context.device).sum() == 196


def test_attempt_returns_not_measured_when_one_rank_is_out_of_memory() -> None:
    def exhausted() -> Measurement:
        raise torch.OutOfMemoryError("no")

    context = BenchContext(ContextParallel(), torch.device("cpu"), QUICK_SCALES["cpu"])
    assert attempt(context, "block", exhausted) == NotMeasured("block", "out of memory")


def test_complexes_an_hour_alone_and_together(quick: None) -> None:
    plan = BenchPlan("cpu", (), (), (12,), ("fp32",), SMALL, quick=True)
    limits, throughput = measure(ContextParallel(), torch.device("cpu"), plan)
    assert isinstance(limits, RooflineLimits) and isinstance(throughput, Throughput)
    assert (throughput.num_tokens, throughput.group_size) == (12, GROUP_SIZE)
    assert throughput.alone_seconds > 0 and throughput.group_seconds > 0
