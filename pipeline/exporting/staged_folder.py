"""Files of an export, which appear in their folder once all of them are written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

STAGING = ".export"  # in the folder, while files are written


class StagedFolder:
    """Writes files aside and moves them into `out` at the end of a `with` block; after an error
    they are deleted, and the folder is as it was.

    Raises ValueError when `out` cannot be written, or another export is writing there.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        self.out = out
        self.names: list[str] = []
        self._overwrite = overwrite
        self._staging = out / STAGING
        self._was_there = out.is_dir()

    def __enter__(self) -> Self:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._staging.mkdir()
        except FileExistsError as error:
            if error.filename != str(self._staging):
                raise ValueError(f"{self.out}: not a folder") from None
            raise ValueError(
                f"{self._staging}: another export is writing there, or was killed: then delete it"
            ) from None
        except OSError as error:
            raise ValueError(f"{self.out}: cannot be written: {error.strerror}") from None
        return self

    def file(self, name: str) -> Path:
        """Where to write a file now that will be called `name` in the folder.

        Raises ValueError when the folder has such a file, unless it may be replaced.
        """
        target = self.out / name
        if target.exists() and not self._overwrite:
            raise ValueError(f"{target}: exists already; --overwrite replaces it")
        self.names.append(name)
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._move()
        finally:
            shutil.rmtree(self._staging)
            if kind is not None and not self._was_there:
                self.out.rmdir()

    def _move(self) -> None:
        for name in self.names:
            target = self.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._staging / name, target)
