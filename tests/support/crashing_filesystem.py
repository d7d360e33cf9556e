"""A file system that crashes at a chosen step, with or without what was not synced.

The folder is left as a kill or a power cut leaves it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from foldcp.pipeline.storage.filesystem import Content, FileSystem


class Killed(BaseException):
    """The crash; no exception that the code under test could catch by mistake."""


class CrashingFileSystem(FileSystem):
    """The local file system, until step number `crash_step`, which does not happen.

    `loss_probability` is that of a folder or a file to lose what was done to it since its last
    sync: 0 for a kill, more for a power cut. `watch` is called before every step.
    """

    def __init__(
        self,
        crash_step: int | None = None,
        loss_probability: float = 0.0,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self.steps = 0
        self.crash_step = crash_step
        self.watch = watch
        self.loss_probability = loss_probability
        self.random = random.Random(crash_step)
        # (folder, function that undoes the change), oldest first
        self.undo: list[tuple[Path, Callable[[], None]]] = []
        self.unsynced: set[Path] = set()

    def step(self) -> None:
        if self.watch:
            self.watch()
        if self.steps == self.crash_step:
            self.crash()
            raise Killed
        self.steps += 1

    def crash(self) -> None:
        folders = sorted({folder for folder, _ in self.undo})
        lost = {folder for folder in folders if self.random.random() < self.loss_probability}
        torn = {
            path for path in sorted(self.unsynced) if self.random.random() < self.loss_probability
        }
        for path in torn & {path for path in torn if path.exists()}:
            path.write_bytes(path.read_bytes()[:-1])
        for folder, restore in reversed(self.undo):
            if folder in lost and folder.exists():
                restore()
        self.undo.clear()  # what is tried after the crash does not happen either
        self.unsynced.clear()

    def fill(self, path: Path, content: Content) -> None:
        self.step()
        super().fill(path, content)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.step()
        path.write_bytes(whole)
        self.unsynced.add(path)

    def sync(self, path: Path) -> None:
        self.step()
        self.unsynced.discard(path)
        self.undo = [(folder, restore) for folder, restore in self.undo if folder != path]

    def sync_all(self, paths: Iterable[Path]) -> None:
        for path in sorted(set(paths)):
            self.sync(path)

    def rename(self, source: Path, target: Path) -> None:
        self.step()
        self.undo.append((target.parent, self.restore(target)))
        super().rename(source, target)
        if source in self.unsynced:
            self.unsynced = self.unsynced - {source} | {target}

    def remove(self, path: Path) -> None:
        self.step()
        self.undo.append((path.parent, self.restore(path)))
        super().remove(path)

    def mkdir(self, path: Path) -> None:
        self.step()
        self.undo.append((path.parent, lambda: shutil.rmtree(path)))
        super().mkdir(path)

    def restore(self, path: Path) -> Callable[[], None]:
        """A function that restores what `path` is now."""
        before = path.read_bytes() if path.exists() else None

        def write_back() -> None:
            if before is not None:
                path.write_bytes(before)
            else:
                path.unlink(missing_ok=True)

        return write_back
