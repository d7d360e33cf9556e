"""Files of a run's folder, written under temporary names and then renamed.

A file has its own name only once all of its bytes are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from foldcp.pipeline.storage.commits.record import File, describe
from foldcp.pipeline.storage.filesystem import Content, FileSystem
from foldcp.pipeline.storage.run_folder import TEMPORARY

StagedFiles = Sequence[tuple[File, str]]  # with the temporary path of each


class StagingArea:
    """The writer of the files of one folder. Paths are relative to the folder.

    Temporary names begin with that of their `owner`, as several processes may stage files, which
    the writer of the folder publishes.
    """

    def __init__(self, root: Path, filesystem: FileSystem, owner: str = "") -> None:
        self.root = root
        self._owner = owner
        self._filesystem = filesystem
        self._numbers = count()

    def stage(self, contents: Mapping[str, Content]) -> StagedFiles:
        """Write files to the disk, under temporary names: all, or none where one cannot be."""
        names = {path: f"{TEMPORARY}/{self._owner}-{next(self._numbers)}" for path in contents}
        with ExitStack() as undo:
            undo.callback(self.remove, names.values())
            for path, content in contents.items():
                self._filesystem.fill(self.root / names[path], content)
            self._filesystem.sync_all(self.root / name for name in names.values())
            staged = [(describe(path, self.root / name), name) for path, name in names.items()]
            undo.pop_all()
        return staged

    def clear(self, owner: str = "") -> None:
        """Delete the temporary files that a killed owner left, or all; they may fill the disk."""
        pattern = f"{owner}-*" if owner else "*"
        paths = (self.root / TEMPORARY).glob(pattern)
        self.remove(f"{TEMPORARY}/{path.name}" for path in paths)

    def publish(self, staged: StagedFiles) -> list[File]:
        """Rename staged files to their final names, durably."""
        self.sync(self.rename(staged))
        return [file for file, _ in staged]

    def rename(self, staged: StagedFiles) -> list[Path]:
        """Rename staged files to their final names; returns the folders to be synced."""
        changed = []
        for file, temporary in staged:
            target = self.root / file.path
            changed += [*self._filesystem.make_folder(target.parent), target.parent]
            self._filesystem.rename(self.root / temporary, target)
        return changed

    def sync(self, folders: Iterable[Path]) -> None:
        """Wait until the names in these folders are on the disk."""
        self._filesystem.sync_all(folders)

    def install(self, contents: Mapping[str, Content]) -> list[File]:
        """Write files and give them their names."""
        return self.publish(self.stage(contents))

    def remove(self, paths: Iterable[str]) -> None:
        """Delete those of the files that exist."""
        targets = [self.root / path for path in paths if (self.root / path).exists()]
        for target in targets:
            self._filesystem.remove(target)
        self.sync(target.parent for target in targets)
