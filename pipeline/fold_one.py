"""One complex without Ray, in this process or on the ranks that torchrun starts: Boltz's files
and the scores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from foldcp.checkpoint.identity import checkpoint_identity, is_untrained
from foldcp.files import reading
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.worker import Worker
from foldcp.pipeline.inputs.input_spec import InputSpec, only_complex
from foldcp.pipeline.inputs.tasks import make_task
from foldcp.pipeline.planning.run_plan import (
    gpu_hardware,
    local_hardware,
    need_checkpoint,
    read_architecture,
    settings_digest,
)
from foldcp.pipeline.scheduling.cost_model import Costs
from foldcp.pipeline.scheduling.types import WorkerConfig
from foldcp.pipeline.storage.boltz_layout import file_stem
from foldcp.pipeline.storage.filesystem import Content, FileSystem
from foldcp.pipeline.storage.result_rows import Provenance, result_files, result_rows
from foldcp.printable import printable


def fold_one(sources: InputSpec, config: RunConfig, out: Path) -> str:
    """Fold the complex of an input on this machine's GPU or CPU and write its files under `out`; a
    summary.

    Under torchrun every rank calls it; the first one writes, the others return nothing. The files
    are those of Boltz (`boltz_files.py`) and scores_<name>.json with the rows of our tables. Raises
    ValueError for what cannot be used or does not fit; then nothing is written.
    """
    index, size, local, on_host = (
        int(os.environ.get(name, default))
        for name, default in (
            ("RANK", 0),
            ("WORLD_SIZE", 1),
            ("LOCAL_RANK", 0),
            ("LOCAL_WORLD_SIZE", 1),
        )
    )
    need_checkpoint(sources.checkpoint)
    check_writable(out)
    identity = checkpoint_identity(sources.checkpoint)
    architecture = read_architecture(sources.checkpoint)
    config = replace(config, write=tuple(dict.fromkeys((*config.write, "boltz"))))
    task = make_task(only_complex(sources), config, identity)
    cuda = torch.cuda.is_available()
    costs = Costs(gpu_hardware() if cuda else local_hardware(on_host), config, architecture)
    setup = costs.smallest(task, size)
    if setup is None:
        raise ValueError(
            f"{sources.input}: {costs.why_not(task, size)}; `foldcp score` spreads it over GPUs"
        )
    setup = replace(setup, num_ranks=size)
    rank = Worker(
        WorkerConfig(
            sources.checkpoint,
            identity,
            setup.precision,
            config,
            max(1, (os.cpu_count() or 1) // on_host),
        )
    )
    joined = rank.join(index, size, "env://", f"cuda:{local}" if cuda else "cpu")
    if joined["outcome"] != "ready":
        raise ValueError(joined["reason"])
    if index == 0:
        print(f"kernels: {joined['kernels']}", file=sys.stderr)
    with Bar(costs.stages(task, setup), hidden=index > 0) as bar:
        answer = rank.fold(task.complex, setup, bar.show)
    if answer["outcome"] != "done":
        raise ValueError(f"{sources.input}: {answer['reason']}")
    rank.cp.destroy()
    if index > 0:
        return ""
    made = Provenance(
        identity,
        is_untrained(sources.checkpoint),
        config.model.seed,
        size,
        setup.precision,
        setup.max_rows,
        settings_digest(config),
    )
    prediction = answer["prediction"]
    layout = answer["layout"]
    rows = result_rows(replace(task, msa_depth=answer["msa_depth"]), layout, prediction, made)
    files = result_files(task, layout, prediction, made, config.write)
    ours = {path: content for path, content in files.items() if not path.startswith("structures/")}
    stem = file_stem(task.name, task.key)
    folder = out / "predictions" / stem
    ours[f"predictions/{stem}/scores_{stem}.json"] = json.dumps(_plain(rows), indent=1).encode()
    _write(out, ours)
    seconds = sum(answer["seconds"].values())
    lines = [f"{printable(str(folder))}: {len(prediction.scores)} structures, {seconds:.1f} s"]
    if made.untrained:
        lines.append(f"{sources.checkpoint}: random weights, the scores mean nothing")
    for row in rows["complexes"]:
        lines.append(
            f"sample {row['sample']}: confidence {row['confidence_score']:.3f}, ipTM "
            f"{row['iptm']:.3f}"
        )
    return "\n".join(lines)


class Bar:
    """Progress of a fold on the screen; stages count by the seconds that they are expected to
    take.
    """

    def __init__(self, seconds: dict[str, float], hidden: bool) -> None:
        before = seconds["features"]
        trunk = seconds["templates"] + seconds["msa"] + seconds["trunk"]
        lengths = {
            "trunk": trunk,
            "sampling": seconds["diffusion"],
            "confidence": seconds["confidence"],
        }
        self.spans: dict[str, tuple[float, float]] = {}
        for stage, length in lengths.items():
            self.spans[stage] = (before, length)
            before += length
        self.bar = tqdm(
            total=before,
            disable=hidden,
            bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed} < {remaining}]",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Stand where `done` of a stage's `total` steps are made."""
        start, length = self.spans[stage]
        self.bar.set_description_str(f"{stage} {done}/{total}", refresh=False)
        self.bar.update(start + length * done / total - self.bar.n)


def check_writable(out: Path) -> None:
    """ValueError for a folder that cannot be made or written to, before anything is folded for
    it.
    """
    with reading(str(out)):
        there = next(
            folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists()
        )
        if not there.is_dir():
            raise ValueError(f"{out}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{out}: cannot be written: {there} is read-only")


def _plain(value: Any) -> Any:
    """NaN, which JSON does not know, as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if value != value else value


def _write(out: Path, files: dict[str, Content]) -> None:
    """All files or none of them: written aside first, then named."""
    disk = FileSystem()
    try:
        disk.folder(out)
        with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as aside:
            staged = {path: Path(aside) / str(number) for number, path in enumerate(files)}
            for path, content in files.items():
                disk.write(staged[path], content)
            for path, temporary in staged.items():
                disk.folder((out / path).parent)
                disk.rename(temporary, out / path)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None
