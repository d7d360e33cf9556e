"""File system operations by which a run's folder changes.

Each is one step, so that a test can crash between any two of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Content = bytes | Callable[[Path], None]  # a file's bytes, or what writes them to a path
MAX_SYNCS = 16  # at the same time
DISK_FAILURES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def is_disk_failure(error: OSError) -> bool:
    """Whether the disk is full, read-only or broken, so that nothing else can be written either.

    Any other error of the system is about one file.
    """
    return error.errno in DISK_FAILURES


class FileSystem:
    """The local file system.

    A rename, a removal or a new folder is durable once `sync` was called for the folder that holds
    the name.
    """

    def write(self, path: Path, content: Content) -> None:
        """Write a new file, whose bytes are on the disk when this returns."""
        self.fill(path, content)
        self.sync(path)

    def fill(self, path: Path, content: Content) -> None:
        """Write a new file, whose bytes are on the disk once it was synced."""
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)

    def sync(self, path: Path) -> None:
        """Wait until a file's bytes, or a folder's names, are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, paths: Iterable[Path]) -> None:
        """`sync` several, at the same time: a disk takes little longer for many than for one."""
        distinct = sorted(set(paths))
        if len(distinct) == 1:
            self.sync(distinct[0])
        elif distinct:
            # Not kept for the next call: threads do not outlive a fork, and the pool would wait.
            with ThreadPoolExecutor(min(MAX_SYNCS, len(distinct))) as pool:
                list(pool.map(self.sync, distinct))

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file, in place of the file that had the name."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def mkdir(self, path: Path) -> None:
        """Make a folder whose parent exists."""
        path.mkdir()

    def make_folder(self, path: Path) -> list[Path]:
        """Make a folder and its parents, unless they exist; returns the folders to be synced."""
        if path.is_dir():
            return []
        changed = self.make_folder(path.parent)
        self.mkdir(path)
        return [*changed, path.parent]
