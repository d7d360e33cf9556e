"""The report of `foldcp bench`: complete tables and a hardware file."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import yaml

from foldcp.config import BOLTZ2
from foldcp.pipeline.bench.fit import model_fold
from foldcp.pipeline.bench.measurements import FoldTime, NotMeasured, PeerTime, Throughput
from foldcp.pipeline.bench.report import BenchReport, to_dict, to_text, to_yaml
from foldcp.pipeline.scheduling.hardware import Hardware, load_hardware
from tests.support.bench import FOUR, MACHINE, WHOLE, fitted_base, measurements


def synthetic_report() -> BenchReport:
    fold = FoldTime(
        1024,
        4,
        "mixed",
        {"trunk": 3.0, "sampling": 2.0, "confidence": 0.5},
        {"trunk": 9_000_000_000, "sampling": 8_000_000_000, "confidence": 7_000_000_000},
    )
    found = [
        *measurements(fitted_base()),
        FOUR,
        fold,
        replace(fold, num_ranks=1, seconds={"trunk": 4.0, "sampling": 2.0, "confidence": 0.5}),
        Throughput(256, 8, "bf16", 0.8, 0.4, 8_200_000_000),
        PeerTime("boltz", 1024, 52.0, 30_000_000_000),
        PeerTime("bioir", 2048, 24.2, 26_000_000_000),
        NotMeasured("prediction, 99999 tokens, bf16", "out of memory"),
    ]
    return BenchReport(MACHINE, WHOLE, found, "2026-01-31", "foldcp bench")


def test_to_text_and_to_dict_have_every_measurement() -> None:
    report = synthetic_report()
    text = to_text(report)
    for words in (
        "NVIDIA H200",
        "torch 2.0",
        "2026-01-31",
        "4.2 TB/s",
        "750 Tflop/s",
        "5 us",
        "300 GB/s",
        "2,048",
        "99999 tokens, bf16: out of memory",
        "sampling",
        "4,096 rows",
        "4,500     9,000",
        "mixed 6.5 s, 8.00",
        "bioir           24.2      26  not measured",
    ):
        assert words in text
    content = json.loads(json.dumps(to_dict(report)))
    for row in content["blocks"]:
        assert row["fraction_of_limit"] == pytest.approx(row["limit_seconds"] / row["seconds"])
        assert row["model_seconds"] == pytest.approx(row["seconds"])
    row, _ = content["predictions"]
    assert row["total_seconds"] == pytest.approx(5.5)
    assert row["fraction_of_limit"]["trunk"] == pytest.approx(row["limit_seconds"]["trunk"] / 3.0)
    fold = next(f for f in report.measurements if isinstance(f, FoldTime))
    assert row["model_seconds"] == pytest.approx(
        model_fold(report.fitted.hardware, BOLTZ2, WHOLE, fold)
    )
    assert len(content["limits"]) == 2
    (throughput,) = content["throughput"]
    assert (throughput["alone_per_hour"], throughput["group_per_hour"]) == (4500, 9000)
    boltz, bioir = content["beside"]
    assert (boltz["ratio"], bioir["ratio"]) == ({"mixed": pytest.approx(8.0)}, {})


def test_to_yaml_writes_a_hardware_file(tmp_path: Path) -> None:
    report = synthetic_report()
    file = tmp_path / "new.yaml"
    file.write_text(to_yaml(report))
    read = load_hardware(file)
    fitted = report.fitted.hardware
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
    assert marked == set(report.fitted.measured)
    assert (
        yaml.safe_load(file.read_text())["exp_per_s"] == 2.0e12
    )  # a number for every reader of YAML
    values = asdict(read)
    assert values.pop("guessed") == fitted.guessed
    assert all(isinstance(value, int | float | str) for value in values.values())
