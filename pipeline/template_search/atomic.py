"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from foldcp.files import reading


def write_text(path: Path, text: str) -> None:
    """Write a file and its folder. Raises ValueError naming it where that cannot be done."""
    with reading(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
