"""A training run: its settings, processes, data, reports and validation."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import torch
import yaml

from foldcp.distributed.mesh import Mesh
from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.execution.signals import TRY_AGAIN
from foldcp.pipeline.fetch import find_weights
from foldcp.pipeline.fold_one import TorchrunRank
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.training.reports import Reports
from foldcp.pipeline.training.settings_file import TrainFile, read_train_settings
from foldcp.training.data.dataset import TrainingDataset
from foldcp.training.data.prefetch import prefetch
from foldcp.training.loop.network import Network, make_network
from foldcp.training.loop.trainer import Ending, Hooks, Trainer

if TYPE_CHECKING:
    from foldcp.pipeline.training.validation import ValidationSet

Validate = Callable[[Boltz2, int], None]
MINUTE = 60.0  # seconds


def train(
    file: Path | None,
    overrides: Sequence[str],
    out: Path,
    max_steps: int | None = None,
    minutes: float = 0.0,
) -> int:
    """Train on the ranks that torchrun started, or in this process; the exit code. Collective.

    The run goes on from the newest checkpoint in `out`, if there is one. It ends after `max_steps`
    steps in all, after so many minutes (0: no limit), or at SIGTERM or SIGINT, with a checkpoint.
    Raises ValueError for settings, data and files that cannot be used.
    """
    settings = read_run_settings(file, overrides, max_steps)
    check_folder_writable(out)
    with StopRequest() as request:
        return train_on_rank(settings, out, minutes * MINUTE or float("inf"), request.asked)


def read_run_settings(
    file: Path | None, overrides: Sequence[str], max_steps: int | None
) -> TrainFile:
    """The settings of a command; raises ValueError for those that cannot be used."""
    settings = read_train_settings(file, overrides)
    if not settings.data.folder:
        raise ValueError("data.folder: expected the folder of the training data")
    model = dataclasses.replace(settings.model, init=find_weights(settings.model.init))
    settings = dataclasses.replace(settings, model=model)
    return settings if max_steps is None else dataclasses.replace(settings, max_steps=max_steps)


def train_on_rank(
    settings: TrainFile, out: Path, max_seconds: float, stop_requested: Callable[[], bool]
) -> int:
    """Train on the rank that torchrun's variables name; the exit code. Collective.

    The run stops after the step in which a rank is asked to. Raises ValueError for data and files
    that cannot be used.
    """
    ranks = TorchrunRank.from_environment()
    mesh = _join(ranks, settings)
    try:
        ending = _train(settings, out, mesh, stop_requested, max_seconds)
    finally:
        mesh.destroy()
    if ranks.rank == 0:
        words = {"steps": "finished", "time": "out of time", "signal": "stopped"}
        print(f"{words[ending.reason]} after {ending.num_steps:,} steps in all", flush=True)
    return TRY_AGAIN if ending.reason == "signal" else 0


def _join(ranks: TorchrunRank, settings: TrainFile) -> Mesh:
    """The mesh of the ranks, each on its GPU or its share of the CPU."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", ranks.local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        tf32 = settings.precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.local_size))
    return Mesh.init(ranks.rank, ranks.size, settings.context_parallel, "env://", device)


def _train(
    settings: TrainFile,
    out: Path,
    mesh: Mesh,
    stop_requested: Callable[[], bool],
    max_seconds: float,
) -> Ending:
    folder = Path(settings.data.folder)
    dataset = TrainingDataset(folder, settings.data.examples)
    sets = _validation_sets(settings, dataset)
    network = make_network(settings, out, mesh)
    reports = None
    if mesh.rank == 0:
        _write_settings(out, settings)
        _print_start(settings, network, mesh, len(dataset.names))
        reports = Reports(out, settings.log, network.num_steps)
    hooks = Hooks(
        on_step=reports.step if reports else _nothing,
        validate=_validation(sets, settings, mesh, reports),
        on_checkpoint=(lambda step: reports.checkpoint()) if reports else _nothing,
        signalled=stop_requested,
    )
    trainer = Trainer(network, settings, out, mesh, hooks)
    draw_all = partial(prefetch, dataset, workers=settings.data.workers)
    ending = trainer.run(draw_all, max_seconds)
    if reports is not None:
        reports.close()
    return ending


def _validation_sets(settings: TrainFile, dataset: TrainingDataset) -> Sequence[ValidationSet]:
    """What is validated with; nothing if the settings say never."""
    if not settings.validation.every:
        return ()
    # Evaluation has libraries that training has no other use for.
    from foldcp.pipeline.training.validation import chosen_sets

    return chosen_sets(settings, dataset)


def _validation(
    sets: Sequence[ValidationSet], settings: TrainFile, mesh: Mesh, reports: Reports | None
) -> Validate:
    """What validates, after so many steps as the settings say."""
    if not sets:
        return _nothing
    from foldcp.pipeline.training.validation import Validation

    return Validation(sets, settings, mesh, reports.validated if reports else _nothing)


def _nothing(*_: object) -> None:
    """The report of a rank that reports nothing."""


def _write_settings(out: Path, settings: TrainFile) -> None:
    """Write all settings to the folder of the run, for the record."""
    out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(_plain(dataclasses.asdict(settings)), sort_keys=False)
    (out / "settings.yaml").write_text(text)


def _plain(x: Any) -> Any:
    """Tuples as lists, as YAML has them."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    return [_plain(item) for item in x] if isinstance(x, tuple | list) else x


def _print_start(settings: TrainFile, network: Network, mesh: Mesh, num_structures: int) -> None:
    total = sum(p.numel() for p in network.model.parameters())
    trained = sum(p.numel() for p in network.flat.parameters.values())
    where = f"{mesh.data_size} x {mesh.cp.size} ranks on {mesh.device.type}"
    print(
        f"{num_structures:,} structures, {total:,} parameters, of which {trained:,} are trained, "
        f"{where}, {settings.precision}; kernels: {network.model.backend.describe()}; "
        f"{network.num_steps:,} steps are done",
        flush=True,
    )


class StopRequest:
    """A context in which SIGTERM and SIGINT ask the run to end after its step. The second SIGINT
    ends it at once.
    """

    def __enter__(self) -> Self:
        self._asked = False
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        name = signal.Signals(number).name
        print(f"foldcp: {name}: stopping after this step", file=sys.stderr)
        signal.signal(number, self._old[number])
