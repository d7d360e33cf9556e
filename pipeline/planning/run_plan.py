"""From what the user names to what is to be done: input, settings and weights, checked before
anything is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from foldcp.checkpoint.identity import checkpoint_identity, is_untrained, untrained_architecture
from foldcp.checkpoint.load import read_checkpoint
from foldcp.config import Architecture
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.tasks import TaskList, make_work, result_settings, smallest
from foldcp.pipeline.scheduling.cost_model import Hardware, load_hardware
from foldcp.pipeline.storage.result_rows import Provenance, invalid_rows
from foldcp.pipeline.storage.run_folder import RunInfo, check_folder
from foldcp.pipeline.storage.staleness import Present

LIBRARIES = ("foldcp", "torch", "numpy", "ray", "pyarrow", "gemmi", "biotite")
# Part of a GPU's name -> hardware file, for a memory of at least so many GB; the first that fits.
KNOWN_GPUS = (("H200", 100, "h200"), ("H100", 60, "h100-80"), ("A100", 60, "a100-80"), ("A100", 0, "a100-40"),
              ("4090", 0, "rtx4090-24"))  # fmt: skip
SETTINGS_DIGITS = 12  # hexadecimal digits of SHA-256
MEMORY_SHARE = 0.97  # of a GPU; what the driver keeps
HOST_SHARE = 0.8  # of the machine's memory, for all CPU ranks


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is to be done, with which weights, and what names it."""

    sources: InputSpec
    config: RunConfig
    architecture: Architecture
    work: TaskList
    made: Provenance
    present: Present
    identity: dict[str, Any]

    def info(self, hardware: str) -> RunInfo:
        """What run.json says."""
        versions = {name: metadata.version(name) for name in LIBRARIES}
        name = self.made.checkpoint
        return RunInfo(
            identity=self.identity,
            command=" ".join(sys.argv),
            input=str(self.sources.input),
            checkpoint=self.sources.checkpoint,
            untrained=self.made.untrained,
            settings=asdict(self.config),
            versions={**versions, "python": platform.python_version()},
            checkpoint_sha256=name.removeprefix("sha256:") if name.startswith("sha256:") else None,
            hardware=hardware,
        )


def prepare(sources: InputSpec, config: RunConfig, out: Path) -> RunPlan:
    """Read everything that the user names, and refuse an `out` that holds something else than
    results of the weights.

    Raises ValueError naming the file and the value for anything that cannot be used; nothing is
    written.
    """
    need_checkpoint(sources.checkpoint)
    identity = checkpoint_identity(sources.checkpoint)
    architecture = read_architecture(sources.checkpoint)
    check_folder(out, {"checkpoint": identity})
    left_out: set[str] = set()
    work = make_work(records(sources, left_out), config, identity)
    if not work.tasks:
        first = work.invalid[0]
        raise ValueError(f"{sources.input}: no complex can be built; {first.name}: {first.reason}")
    made = Provenance(
        identity,
        is_untrained(sources.checkpoint),
        settings=settings_digest(config),
        repeated=repeated_names(work),
    )
    present = find_present(work, left_out, made)
    # What --limit leaves out still counts: a later run may go on with more of the same input.
    work = smallest(work, sources.limit)
    return RunPlan(sources, config, architecture, work, made, present, {"checkpoint": identity})


def need_checkpoint(name: str) -> None:
    """ValueError when no weights are named: random ones are never a default."""
    if not name:
        raise ValueError(
            "--checkpoint is missing: the path of boltz2_conf.ckpt, or untrained:tiny to "
            "try things out"
        )


def read_architecture(name: str) -> Architecture:
    """The sizes of a checkpoint's network; ValueError when it is none."""
    if is_untrained(name):
        return untrained_architecture(name)
    return read_checkpoint(Path(name))[0]


def settings_digest(config: RunConfig) -> str:
    """A short name for the settings that results hang on."""
    text = json.dumps(result_settings(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SETTINGS_DIGITS]


def repeated_names(work: TaskList) -> frozenset[str]:
    """Names that several complexes of an input share."""
    counts = Counter(task.name for task in work.tasks)
    return frozenset(name for name, count in counts.items() if count > 1)


def find_present(work: TaskList, left_out: Collection[str], made: Provenance) -> Present:
    """What an input asks for. `left_out` are names of records that were not looked at; a name that
    was looked at, too, is not among them.
    """
    names = {record.name for record in (*work.tasks, *work.invalid)}
    keys = {task.key for task in work.tasks} | invalid_rows(work.invalid, made).keys()
    return Present(frozenset(keys), frozenset(left_out) - names, made.settings)


def cpu_ranks(config: RunConfig) -> int:
    """Ranks of a machine without GPUs."""
    return config.run.cpu_ranks or min(4, os.cpu_count() or 1)


def local_hardware(num_ranks: int) -> Hardware:
    """The CPU's hardware file with this machine's memory shared by so many ranks."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return replace(
        load_hardware("cpu"),
        gpus_per_node=num_ranks,
        memory_gb=HOST_SHARE * memory / num_ranks / 1e9,
    )


def gpu_hardware() -> Hardware:
    """The hardware file of this machine's GPU, with its memory; an unknown GPU is taken for an
    A100 of its memory.
    """
    name = torch.cuda.get_device_name(0)
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    file = next(
        (file for part, least, file in KNOWN_GPUS if part in name and memory >= least),
        None,
    )
    hardware = load_hardware(file or "a100-40")
    most = MEMORY_SHARE * memory
    if file is None:
        return replace(hardware, name=name, memory_gb=most)
    return replace(hardware, memory_gb=min(hardware.memory_gb, most))
