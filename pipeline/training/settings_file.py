"""Settings of a training run from a YAML file and `--set` options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldcp.pipeline.config import load_tree
from foldcp.training.data.settings import DataSettings
from foldcp.training.loop.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class DataSection:
    """Where the examples are."""

    folder: str = field(
        default="",
        metadata={"help": "folder of the training data", "minimum": None},
    )
    workers: int = field(
        default=2, metadata={"help": "processes of a rank that make examples", "minimum": 0}
    )
    examples: DataSettings = field(default_factory=DataSettings)


@dataclass(frozen=True, slots=True)
class TrainFile(TrainSettings):
    """Every setting of a training run."""

    data: DataSection = field(default_factory=DataSection)


def read_train_settings(file: Path | None, overrides: Sequence[str]) -> TrainFile:
    """The defaults, changed by the keys of a YAML file and then by `a.b=VALUE` options.

    Raises ValueError naming the file (or `--set`), the key and the value.
    """
    settings = load_tree(TrainFile(), file, overrides)
    try:
        settings.check()
    except ValueError as error:
        raise ValueError(f"{file or '--set'}: {error}") from None
    return settings
