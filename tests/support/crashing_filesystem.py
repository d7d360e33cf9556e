"""A disk that dies at a chosen step, with or without what was not synced; the folder is left as a
kill or a power cut leaves it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from foldcp.pipeline.storage.filesystem import Content, FileSystem


class Killed(BaseException):
    """Nothing that the code under test could catch by mistake."""


class Mortal(FileSystem):
    """Step number `fatal` does not happen any more. `loss` is the chance that a folder (or a file)
    loses what was done to it since its last sync: 0 for a kill, more for a power cut. `watch` is
    called before every step.
    """

    def __init__(
        self,
        fatal: int | None = None,
        loss: float = 0.0,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self.steps = 0
        self.fatal = fatal
        self.watch = watch
        self.loss = loss
        self.random = random.Random(fatal)
        self.undo: list[
            tuple[Path, Callable[[], None]]
        ] = []  # (folder, how to go back), oldest first
        self.unsynced: set[Path] = set()

    def step(self) -> None:
        if self.watch:
            self.watch()
        if self.steps == self.fatal:
            self.die()
            raise Killed
        self.steps += 1

    def die(self) -> None:
        folders = sorted({folder for folder, _ in self.undo})
        lost = {folder for folder in folders if self.random.random() < self.loss}
        torn = {path for path in sorted(self.unsynced) if self.random.random() < self.loss}
        for path in torn & {path for path in torn if path.exists()}:
            path.write_bytes(path.read_bytes()[:-1])
        for folder, back in reversed(self.undo):
            if folder in lost and folder.exists():
                back()

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
        self.undo = [(folder, back) for folder, back in self.undo if folder != path]

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
        """How to bring back what `path` is now."""
        before = path.read_bytes() if path.exists() else None

        def back() -> None:
            if before is not None:
                path.write_bytes(before)
            else:
                path.unlink(missing_ok=True)

        return back
