"""Folding of one complex without Ray, in this process or on the ranks that torchrun starts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from tqdm import tqdm

from foldcp.checkpoint.architecture import checkpoint_architecture
from foldcp.checkpoint.identity import checkpoint_identity, is_untrained, weights_warning
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.execution.results import FoldResult
from foldcp.pipeline.execution.worker import Worker
from foldcp.pipeline.inputs.input_spec import InputSpec, only_complex
from foldcp.pipeline.inputs.tasks import Task, make_task
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.planning.detect_hardware import detect_cpu, first_gpu, gpu_hardware
from foldcp.pipeline.planning.run_plan import (
    require_checkpoint,
    settings_digest,
)
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.group_size import smallest_shape, too_large_reason
from foldcp.pipeline.scheduling.types import Failure, WorkerConfig
from foldcp.pipeline.storage.filesystem import Content, FileSystem
from foldcp.pipeline.storage.results.boltz_layout import file_stem
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import result_rows
from foldcp.printable import printable
from foldcp.progress import DoneSteps, StepDone

PROGRESS_INTERVAL = 0.2  # seconds between two looks at what the device has done


@dataclass(frozen=True, slots=True)
class TorchrunRank:
    """The rank of this process as torchrun tells it; a process of its own is rank 0 of 1."""

    rank: int
    size: int
    local_rank: int  # on this machine
    local_size: int

    @classmethod
    def from_environment(cls) -> TorchrunRank:
        """Read torchrun's environment variables."""
        return cls(
            rank=int(os.environ.get("RANK", 0)),
            size=int(os.environ.get("WORLD_SIZE", 1)),
            local_rank=int(os.environ.get("LOCAL_RANK", 0)),
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        )


def fold_one(input_spec: InputSpec, config: RunConfig, out: Path) -> str:
    """Fold the complex of an input on this machine's GPU or CPU, and write its files under `out`.

    Under torchrun every rank calls it; the first one writes. The files are those of Boltz
    (`boltz_layout.py`) and scores_<name>.json with the rows of the tables. Returns a summary, empty
    on the other ranks. Raises ValueError for what cannot be used or does not fit; then nothing is
    written.
    """
    ranks = TorchrunRank.from_environment()
    require_checkpoint(input_spec.checkpoint)
    check_folder_writable(out)
    identity = checkpoint_identity(input_spec.checkpoint)
    architecture = checkpoint_architecture(input_spec.checkpoint)
    files = tuple(dict.fromkeys((*config.write.files, "boltz")))
    # Boltz's files have the whole PAE.
    config = replace(
        config, write=replace(config.write, files=files, structures="none", pae="none")
    )
    task = make_task(only_complex(input_spec), config, identity)
    gpu = first_gpu()
    hardware = gpu_hardware(gpu) if gpu else detect_cpu(ranks.local_size)
    costs = CostModel(hardware, config, architecture)
    shape = smallest_shape(costs, task, ranks.size)
    if shape is None:
        reason = too_large_reason(costs, task, ranks.size)
        raise ValueError(f"{input_spec.input}: {reason}; `foldcp score` spreads it over GPUs")
    shape = replace(shape, num_ranks=ranks.size)
    worker_config = WorkerConfig(
        input_spec.checkpoint,
        identity,
        shape.precision,
        config,
        num_threads=max(1, (os.cpu_count() or 1) // ranks.local_size),
    )
    result = _fold(worker_config, task, costs, shape, ranks)
    if isinstance(result, Failure):
        raise ValueError(f"{input_spec.input}: {result.reason}")
    if result.prediction is None:
        return ""
    provenance = Provenance(
        identity,
        is_untrained(input_spec.checkpoint),
        seed=config.model.seed,
        num_ranks=ranks.size,
        precision=shape.precision,
        max_rows=shape.max_rows,
        parallel_samples=shape.parallel_samples,
        settings_hash=settings_digest(config),
    )
    return _write_result(task, result, provenance, config, out, input_spec.checkpoint)


def _fold(
    worker_config: WorkerConfig,
    task: Task,
    costs: CostModel,
    shape: FoldShape,
    ranks: TorchrunRank,
) -> FoldResult | Failure:
    """Fold with a progress bar. Raises ValueError when the checkpoint cannot be loaded."""
    worker = Worker(worker_config)
    device = f"cuda:{ranks.local_rank}" if costs.hardware.device == "cuda" else "cpu"
    ready = worker.join(ranks.rank, ranks.size, "env://", device)
    if isinstance(ready, Failure):
        raise ValueError(ready.reason)
    if ranks.rank == 0:
        print(f"kernels: {ready.kernels}", file=sys.stderr)
    steps = DoneSteps(torch.device(device))
    with FoldProgress(costs.stages(task, shape), steps, hidden=ranks.rank > 0):
        result = worker.fold(task.complex, shape, task.write, steps)
    if isinstance(result, FoldResult):
        worker.cp.destroy()
    return result


def _write_result(
    task: Task,
    result: FoldResult,
    provenance: Provenance,
    config: RunConfig,
    out: Path,
    checkpoint_name: str,
) -> str:
    """Write the files of a result; a summary."""
    assert result.prediction is not None
    prediction = result.prediction
    layout = prediction.layout
    task_as_folded = replace(task, msa_depth=result.stats.msa_depth)
    rows = result_rows(task_as_folded, layout, prediction, provenance, config.write)
    files = result_files(task, layout, prediction, provenance, config.write)
    stem = file_stem(task.name, task.key)
    folder = Path("predictions") / stem
    for row in rows["complexes"]:
        row["structure"] = f"{folder}/{stem}_model_{row['rank']}.cif"
    written = {
        path: content for path, content in files.items() if not path.startswith("structures/")
    }
    scores = json.dumps(_without_nan(rows), indent=1)
    written[f"{folder}/scores_{stem}.json"] = scores.encode()
    _write_files(out, written)
    seconds = sum(result.stats.seconds.values())
    path = printable(str(out / folder))
    number = len(prediction.scores)
    lines = [f"{path}: {number} {'structure' if number == 1 else 'structures'}, {seconds:.1f} s"]
    if warning := weights_warning(provenance.checkpoint):
        lines.append(f"{checkpoint_name}: {warning}")
    for row in rows["complexes"]:
        lines.append(
            f"sample {row['sample']}: confidence {row['confidence_score']:.3f}, ipTM "
            f"{row['iptm']:.3f}"
        )
    return "\n".join(lines)


class FoldProgress:
    """A progress bar of one fold; stages count by the seconds that they are predicted to take.

    A thread looks at what the device has done: the CPU is ahead of a GPU, by whole stages at times.
    """

    def __init__(self, seconds: dict[str, float], steps: DoneSteps, hidden: bool) -> None:
        """`seconds` are those of `CostModel.stages`."""
        trunk = seconds["templates"] + seconds["msa"] + seconds["trunk"]
        lengths = {
            "trunk": trunk,
            "sampling": seconds["diffusion"],
            "confidence": seconds["confidence"],
        }
        start = seconds["features"]
        self.spans: dict[str, tuple[float, float]] = {}  # start and length of each stage
        for stage, length in lengths.items():
            self.spans[stage] = (start, length)
            start += length
        self.bar = tqdm(
            total=start,
            disable=hidden,
            bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed} < {remaining}]",
        )
        self.steps = steps
        self.ended = Event()
        self.watcher = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> FoldProgress:
        self.watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.watcher.join()
        self.bar.close()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self.ended.wait(PROGRESS_INTERVAL)
            try:
                step = self.steps.last()
            except RuntimeError:  # of the GPU, which the fold itself raises
                return
            if step is not None:
                self._show(step)

    def _show(self, step: StepDone) -> None:
        start, length = self.spans[step.stage]
        self.bar.set_description_str(f"{step.stage} {step.done}/{step.total}", refresh=False)
        self.bar.update(start + length * step.done / step.total - self.bar.n)


def _without_nan(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if value != value else value


def _write_files(out: Path, files: dict[str, Content]) -> None:
    """Write all files or none of them: first under temporary names, then renamed."""
    file_system = FileSystem()
    try:
        file_system.make_folder(out)
        with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as folder:
            staged = {path: Path(folder) / str(number) for number, path in enumerate(files)}
            for path, content in files.items():
                file_system.write(staged[path], content)
            for path, temporary in staged.items():
                file_system.make_folder((out / path).parent)
                file_system.rename(temporary, out / path)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None
