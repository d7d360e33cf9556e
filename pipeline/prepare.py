"""From what the user names to what is to be done: input, settings and weights, checked before anything is written."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from foldcp import checkpoint
from foldcp.config import UNTRAINED, Architecture
from foldcp.pipeline.claim import RUN_FILE, RunInfo, read_run
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.costs import Hardware, load_hardware
from foldcp.pipeline.records import Made
from foldcp.pipeline.sources import Sources, records
from foldcp.pipeline.store import read_table
from foldcp.pipeline.tasks import Work, make_work, result_settings, smallest

LIBRARIES = ("foldcp", "torch", "numpy", "ray", "pyarrow", "gemmi", "biotite")
# Part of a GPU's name -> hardware file, for a memory of at least so many GB; the first that fits.
KNOWN_GPUS = (("H200", 100, "h200"), ("H100", 60, "h100-80"), ("A100", 60, "a100-80"), ("A100", 0, "a100-40"),
              ("4090", 0, "rtx4090-24"))  # fmt: skip
MEMORY_SHARE = 0.97  # of a GPU; what the driver keeps
HOST_SHARE = 0.8  # of the machine's memory, for all CPU ranks


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be done, with which weights, and what names it."""

    sources: Sources
    config: RunConfig
    architecture: Architecture
    work: Work
    made: Made
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


def prepare(sources: Sources, config: RunConfig, out: Path) -> Prepared:
    """Read everything that the user names, and refuse an `out` that belongs to something else.

    Raises ValueError naming the file and the value for anything that cannot be used; nothing is written.
    """
    need_checkpoint(sources.checkpoint)
    identity = checkpoint.identity(sources.checkpoint)
    architecture = read_architecture(sources.checkpoint)
    content = {
        "input": digest(sources.input),
        "sequences": digest(sources.sequences) if sources.sequences else "",
        "settings": result_settings(config),
        "checkpoint": identity,
    }
    refuse_other_input(out, sources.input, content["input"])
    work = make_work(records(sources), config, identity)
    if not work.tasks:
        first = work.unbuildable[0]
        raise ValueError(f"{sources.input}: no complex can be built; {first.name}: {first.reason}")
    refuse_changed_files(out, content, work)
    # Not --limit nor --organism: a later run may go on with more of the same input.
    work = smallest(work, sources.limit)
    made = Made(identity, checkpoint.is_untrained(sources.checkpoint))
    return Prepared(sources, config, architecture, work, made, content)


def need_checkpoint(name: str) -> None:
    """ValueError when no weights are named: random ones are never a default."""
    if not name:
        raise ValueError("--checkpoint is missing: the path of boltz2_conf.ckpt, or untrained:tiny to try things out")


def read_architecture(name: str) -> Architecture:
    """The sizes of a checkpoint's network; ValueError when it is none."""
    if checkpoint.is_untrained(name):
        return UNTRAINED[name.removeprefix(checkpoint.UNTRAINED_PREFIX)]
    return checkpoint.read(Path(name))[0]


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files. ValueError when there is none."""
    total = hashlib.sha256()
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                name = file.name if path.is_dir() else ""
                total.update(os.fsencode(name) + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return total.hexdigest()


def refuse_other_input(out: Path, input: Path, content: str) -> None:
    """ValueError when `out` is the folder of a run on another input."""
    if (out / RUN_FILE).exists():
        about = read_run(out)
        if about.get("identity", {}).get("input") != content:
            raise ValueError(
                f"{out}: belongs to another input, {about.get('input')}, not {input}; choose another --out"
            )


def refuse_changed_files(out: Path, identity: dict[str, Any], work: Work) -> None:
    """ValueError when `out` has results of this very input, but from alignments or templates that have changed since:
    the old rows would stand beside the new ones."""
    if not (out / RUN_FILE).exists() or read_run(out).get("identity") != identity:
        return
    keys = {task.name: task.key for task in work.tasks}
    for row in read_table(out, "complexes").select(["name", "key"]).to_pylist():
        if keys.get(row["name"], row["key"]) != row["key"]:
            raise ValueError(
                f"{out}: an alignment or template of {row['name']} has changed since; choose another --out"
            )


def cpu_ranks(config: RunConfig) -> int:
    """Ranks of a machine without GPUs."""
    return config.run.cpu_ranks or min(4, os.cpu_count() or 1)


def local_hardware(num_ranks: int) -> Hardware:
    """The CPU's hardware file with this machine's memory shared by so many ranks."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return replace(load_hardware("cpu"), gpus_per_node=num_ranks, memory_gb=HOST_SHARE * memory / num_ranks / 1e9)


def gpu_hardware() -> Hardware:
    """The hardware file of this machine's GPU, with its memory; an unknown GPU is taken for an A100 of its memory."""
    name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory / 1e9
    file = next((file for part, least, file in KNOWN_GPUS if part in name and memory >= least), None)
    hardware = load_hardware(file or "a100-40")
    most = MEMORY_SHARE * memory
    if file is None:
        return replace(hardware, name=name, memory_gb=most)
    return replace(hardware, memory_gb=min(hardware.memory_gb, most))
