"""Whose is a run's folder, and may this run write to it?"""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FORMAT = 1  # of the folder: raised when an older run can no longer be read
RUN_FILE, TEMPORARY, LOCK = "run.json", ".tmp", ".lock"


@dataclass(frozen=True)
class RunInfo:
    """One invocation. `identity` is what the results of the folder hang on: input, settings, weights; another run may
    only go on in the folder when its identity is equal. The rest is recorded."""

    identity: dict[str, Any]
    command: str
    input: str
    checkpoint: str
    untrained: bool
    settings: dict[str, Any]
    versions: dict[str, str]
    checkpoint_sha256: str | None = None
    hardware: str | None = None


def read_run(out: Path | str) -> dict[str, Any]:
    """What run.json says of the last invocation; ValueError when `out` is not the folder of a run."""
    path = Path(out) / RUN_FILE
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{out}: not the folder of a run, as there is no {RUN_FILE}") from None


def check_folder(root: Path, info: RunInfo) -> None:
    """ValueError if the run may not be written to the folder."""
    if not root.exists():
        return
    if not root.is_dir():
        raise ValueError(f"{root}: not a folder")
    if not (root / RUN_FILE).exists():
        if {path.name for path in root.iterdir()} - {LOCK, TEMPORARY}:
            raise ValueError(f"{root}: neither empty nor the folder of a run; choose another --out")
        return
    about = read_run(root)
    if about["format"] != FORMAT:
        raise ValueError(f"{root}: written by another version of foldcp (format {about['format']}, not {FORMAT})")
    there = dict(_leaves(about["identity"]))
    here = dict(_leaves(json.loads(json.dumps(info.identity))))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{root}: belongs to another run: {name} is {there.get(name)!r} there and {here.get(name)!r} here; "
                "choose another --out"
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def take_lock(path: Path) -> IO[str]:
    """Keep other writers out; the system lets go of it even when we are killed."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"{path.parent}: another process is writing there") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):  # a file system without locks
            raise
    return file
