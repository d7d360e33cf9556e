"""Hardware files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from foldcp.complex import Chain, Complex
from foldcp.config import TINY
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.group_size import smallest_shape
from foldcp.pipeline.scheduling.hardware import PRESETS, load_hardware

ANY = Complex("any", (Chain("A", "protein", "MKT"),))


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_load_hardware_reads_every_preset(name: str) -> None:
    hardware = load_hardware(name)
    assert hardware.name == name
    assert hardware == load_hardware(PRESETS / f"{name}.yaml")
    assert (
        hardware.pair_bytes("bf16") <= hardware.pair_bytes("mixed") <= hardware.pair_bytes("fp32")
    )
    assert 0.75 < hardware.pair_bytes("bf16-int8") / hardware.pair_bytes("bf16") < 0.76
    assert (
        smallest_shape(CostModel(hardware, load(), TINY), Task(ANY, "key", 600, 1), 1) is not None
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory": 3}, ["memory", "unknown", "did you mean memory_gb?"]),
        ({"memory_gb": None}, ["memory_gb", "None"]),
        ({"memory_gb": "many"}, ["memory_gb", "'many'"]),
        ({"gpus_per_node": 0}, ["gpus_per_node", "not positive"]),
        ({"device": "tpu"}, ["device", "'tpu'"]),
        ({"guessed": ["exp_per"]}, ["guessed", "exp_per", "did you mean exp_per_s?"]),
    ],
)
def test_load_hardware_names_the_wrong_key(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    content = yaml.safe_load((PRESETS / "h200.yaml").read_text())
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content | change))
    with pytest.raises(ValueError, match=r"my\.yaml") as error:
        load_hardware(tmp_path / "my.yaml")
    assert all(word in str(error.value) for word in words)


def test_load_hardware_names_a_missing_key_and_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match="device is missing"):
        load_hardware(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match=r"h20: no such file.*did you mean h200\?"):
        load_hardware("h20")
