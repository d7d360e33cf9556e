"""Checkpoint files of a training run: written whole or not at all, beside the training."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import torch

from foldcp.files import describe_error

NAME = re.compile(r"step-(\d{8,})\.ckpt")


def checkpoint_name(num_steps: int) -> str:
    """The name of the checkpoint after so many steps."""
    return f"step-{num_steps:08d}.ckpt"


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with most steps; temporary files of writes that were cut off have other
    names.
    """
    found = list_checkpoints(folder)
    return found[-1] if found else None


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, the newest last."""
    paths = folder.iterdir() if folder.is_dir() else ()
    named = [(int(match[1]), path) for path in paths if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named)]


def newest_step(folder: Path) -> int:
    """The steps that the newest checkpoint has done; -1 without a checkpoint."""
    newest = newest_checkpoint(folder)
    match = NAME.fullmatch(newest.name) if newest else None
    return int(match[1]) if match else -1


class CheckpointWriter:
    """Writes checkpoints in a thread, one at a time, and deletes old ones.

    A file has its name only when its bytes are on the disk.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._error: OSError | RuntimeError | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):  # of a run that was killed
            path.unlink()

    def write(self, num_steps: int, content: dict[str, Any]) -> None:
        """Start to write what no one changes any more; waits for the write before.

        Raises ValueError naming the folder when that failed.
        """
        self.wait()
        arguments = (self.folder / checkpoint_name(num_steps), content)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk; raises ValueError when it is not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error = self._error
            self._error = None
            reason = describe_error(error)
            raise ValueError(f"{self.folder}: the checkpoint cannot be written: {reason}")

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(self.folder)
            for old in list_checkpoints(self.folder)[: -self.keep]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # RuntimeError: torch.save on a full disk
            self._error = error
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
