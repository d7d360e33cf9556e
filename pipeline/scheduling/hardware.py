"""Hardware files: what one GPU (or CPU rank) does in a second, holds, and is wired to.

They lie in `configs/hardware/`. `foldcp bench` writes one for the machine it runs on, and
`foldcp.pipeline.planning.detect_hardware` says which GPU gets which file.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from foldcp.config import Precision
from foldcp.pipeline.config import checked, nearest, read_yaml

PRESETS = Path(__file__).parents[2] / "configs" / "hardware"

# Bytes of a number in 8 bits: 1, and 2 of the scale of every 64.
INT8_ITEMSIZE = 1 + 2 / 64
# Of the memory of a pair in bf16: numbers of 2 bytes, and as many products of triangle
# multiplication, which are in 8 bits.
INT8_SHARE = (2 + INT8_ITEMSIZE) / (2 + 2)


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of GPU (or CPU rank) and the links of its nodes.

    Rates are measured ones, not those of a data sheet, but for those that `guessed` names.
    """

    name: str
    device: Literal["cuda", "cpu"]
    memory_gb: float  # 1e9 B of one GPU
    reserved_gb: float  # of that: driver, weights, workspace
    gpus_per_node: int
    exp_per_s: float  # exponentials within fused attention
    flop_per_s: float  # matrix products in bf16 (in fp32 on a CPU)
    fp32_slowdown: float  # of matrix products in fp32
    copy_bytes_per_s: float  # memory to memory, read + write
    link_bytes_per_s: float  # one GPU to the others of its node, each way
    network_bytes_per_s: float  # one GPU's share of the way to other nodes
    launch_seconds: float  # from one small kernel to the next
    start_seconds: float  # a worker group's processes, weights and communicators
    # B moved per token pair and block beside the N^3 part, in bf16, 128 channels
    pair_traffic: float
    pair_bytes_fp32: float  # least memory per token pair and rank, whole prediction, 128 channels
    pair_bytes_mixed: float
    pair_bytes_bf16: float
    guessed: tuple[str, ...] = ()  # names of values that were not measured on such a machine

    @property
    def memory(self) -> float:
        """Memory of one GPU in bytes."""
        return self.memory_gb * 1e9

    def pair_bytes(self, precision: Precision) -> float:
        """Least memory of a token pair in bytes."""
        by_precision: dict[Precision, float] = {
            "fp32": self.pair_bytes_fp32,
            "mixed": self.pair_bytes_mixed,
            "bf16": self.pair_bytes_bf16,
            "bf16-int8": INT8_SHARE * self.pair_bytes_bf16,
        }
        return by_precision[precision]


def load_hardware(name: str | Path) -> Hardware:
    """Read a hardware file: a YAML file, or the name of one in `configs/hardware/` such as `h200`.

    Raises ValueError for an unknown name and for keys that are unknown, missing, of the wrong type
    or not positive.
    """
    is_file_name = Path(name).suffix in {".yaml", ".yml"}
    file = Path(name) if is_file_name else PRESETS / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
        raise ValueError(
            f"{name}: no such file, and no hardware of that name{nearest(str(name), known)}"
        )
    content = read_yaml(file)
    hints = get_type_hints(Hardware)
    for key in content:
        if key not in hints:
            raise ValueError(f"{file}: {key}: unknown setting{nearest(key, list(hints))}")
    required = [field.name for field in fields(Hardware) if field.default is MISSING]
    if missing := [name for name in required if name not in content]:
        raise ValueError(f"{file}: {missing[0]} is missing")
    values: dict[str, Any] = {
        key: checked(value, hints[key], f"{file}: {key}") for key, value in content.items()
    }
    for key, value in values.items():
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(f"{file}: {key}: {value!r} is not positive")
    for key in values.get("guessed", ()):
        if key not in required:
            raise ValueError(f"{file}: guessed: {key}: unknown setting{nearest(key, required)}")
    return Hardware(**values)
