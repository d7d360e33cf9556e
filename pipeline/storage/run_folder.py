"""Whose is a run's folder, and may this run write to it?"""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from foldcp.files import reading

FORMAT = 2  # of the folder: raised when an older run can no longer be read
RUN_FILE = "run.json"
TEMPORARY = ".tmp"
LOCK = ".lock"
# What every reader of run.json relies on.
RUN_FIELDS = {
    "run_id": str,
    "identity": dict,
    "command": str,
    "input": str,
    "checkpoint": str,
    "untrained": bool,
    "settings": dict,
    "versions": dict,
}
# a reader that asks who holds the lock has it for an instant
LOCK_TRIES = 10
LOCK_PAUSE = 0.1
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # of a file system that has none


@dataclass(frozen=True)
class RunInfo:
    """One invocation. `identity` is what all results of the folder have in common: the weights;
    another run may only go on in the folder when its identity is equal. The rest is recorded.
    """

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
    """What run.json says of the last invocation; ValueError when `out` is not the folder of a run,
    or of a run that this version can read.
    """
    path = Path(out) / RUN_FILE
    try:
        with reading(str(path)):
            content = path.read_bytes()
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise ValueError(f"{out}: not the folder of a run, as there is no {RUN_FILE}") from None
        raise
    try:
        about = json.loads(content)
    except ValueError:  # also what is not UTF-8
        raise ValueError(f"{path}: damaged: not JSON") from None
    if not isinstance(about, dict) or type(about.get("format")) is not int:
        raise ValueError(f"{path}: damaged: not what foldcp writes")
    if about["format"] != FORMAT:
        raise ValueError(
            f"{out}: written by another version of foldcp (format {about['format']}; this one "
            "reads and writes "
            f"format {FORMAT}); choose another --out"
        )
    for name, kind in RUN_FIELDS.items():
        if not isinstance(about.get(name), kind):
            raise ValueError(f"{path}: damaged: {name} is {about.get(name)!r}")
    return about


def check_folder(root: Path, identity: Mapping[str, Any]) -> None:
    """ValueError if results of this identity may not be written to the folder."""
    with reading(str(root)):
        if not root.exists():
            return
        if not root.is_dir():
            raise ValueError(f"{root}: not a folder")
        if not (root / RUN_FILE).exists():
            if {path.name for path in root.iterdir()} - {LOCK, TEMPORARY}:
                raise ValueError(
                    f"{root}: neither empty nor the folder of a run; choose another --out"
                )
            return
    there = dict(_leaves(read_run(root)["identity"]))
    here = dict(_leaves(json.loads(json.dumps(identity))))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{root}: belongs to another run: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here; "
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
    for attempt in range(LOCK_TRIES):
        if attempt:
            time.sleep(LOCK_PAUSE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        return file
    file.close()
    raise ValueError(f"{path.parent}: another process is writing there")


def is_being_written(root: Path) -> bool:
    """Whether a process holds the lock of a run's folder; False where nobody can tell."""
    try:
        with (root / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
