"""Whether a folder or file that a command will write can be written, asked before any work."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from foldcp.files import reading


def check_folder_writable(folder: Path) -> None:
    """Raise ValueError, which names it, for a folder that cannot be made or written to."""
    path = folder.absolute()
    existing = next(part for part in (path, *path.parents) if os.path.lexists(part))
    with reading(str(folder)):
        if not existing.is_dir():
            raise ValueError(f"{folder}: {existing} is not a folder")
        for name in path.relative_to(existing).parts:
            with suppress(FileNotFoundError):  # another error is told: a name may be too long
                (existing / name).stat()
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: cannot be written: {existing} is read-only")


def check_file_writable(file: Path) -> None:
    """Raise ValueError, which names it, for a file that cannot be made or overwritten in a folder
    that is there.
    """
    with reading(str(file)):
        with suppress(FileNotFoundError):
            file.stat()
        if file.is_dir():
            raise ValueError(f"{file}: is a folder, not a file")
        if not file.parent.is_dir():
            raise ValueError(f"{file}: no such folder: {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"{file}: cannot be written: it is read-only")
