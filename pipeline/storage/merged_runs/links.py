"""Files of merged runs: hard links, symbolic ones to another file system, or copies."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path

# Of a hard link to another file system, or on one without them, or to too popular a file.
NO_HARD_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.ENOSYS)


class FileLinks:
    """Maker of the files of a new folder, `staging`, which will be called `out`, its neighbour.

    `counts` has the number of hard links, symbolic links and copies. Hard links are safe, as a
    writer replaces files of a run and never changes one.
    """

    def __init__(self, staging: Path, out: Path, copy: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._staging = staging
        self._out = out
        self._copy = copy
        self._folders: set[Path] = set()

    def add(self, root: Path, path: str) -> None:
        """Make the file at `path` that the folder `root` has there.

        Raises ValueError when no link can be made, OSError when the disk fails.
        """
        source = (root / path).resolve(strict=True)
        target = self._staging / path
        if target.parent not in self._folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent)
        if self._copy:
            shutil.copyfile(source, target)
            self.counts["copies"] += 1
        elif self._link(source, target):
            self.counts["hard links"] += 1
        else:
            self._symlink(source, path)
            self.counts["symbolic links"] += 1

    def _link(self, source: Path, target: Path) -> bool:
        """Make a hard link; whether that was possible."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in NO_HARD_LINK:
                raise
            return False
        return True

    def _symlink(self, source: Path, path: str) -> None:
        # Relative, so that both may be moved together; the folder's new name is as deep as this.
        place = self._out.parent.resolve() / self._out.name / path
        try:
            os.symlink(os.path.relpath(source, place.parent), self._staging / path)
        except OSError as error:
            raise ValueError(
                f"{self._out}: no link to {source} can be made there: {error.strerror}; --copy "
                "copies the files"
            ) from None
