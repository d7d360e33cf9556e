"""A run's folder: its format, the run it belongs to, and the lock of its one writer."""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from foldcp.files import reading

FORMAT = 6  # of the folder; raised when this version can no longer read older ones
RUN_FILE = "run.json"
TEMPORARY = ".tmp"
LOCK = ".lock"
# Keys of run.json that readers rely on.
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
# Retried, as a reader that asks whether a run is in progress holds the lock for an instant.
LOCK_ATTEMPTS = 10
LOCK_PAUSE_SECONDS = 0.1
NO_LOCK_ERRORS = (
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.ENOLCK,
)  # of file systems without locks


@dataclass(frozen=True)
class RunInfo:
    """One invocation, as run.json records it.

    `identity` is what all results of the folder have in common, the weights and, if it is one, the
    shard: only a run of equal identity may resume in the folder. `database` is a digest of the
    names in the input, `merged_from` the folders that `foldcp merge` put together.
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
    shard: str | None = None
    database: str = ""
    merged_from: tuple[str, ...] | None = None


def read_run(out: Path | str) -> dict[str, Any]:
    """The content of run.json, which describes the last invocation.

    Raises:
        ValueError: `out` is not the folder of a run, has another format, or run.json is damaged.
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
        run = json.loads(content)
    except ValueError:  # also text that is not UTF-8
        raise ValueError(f"{path}: damaged: not JSON") from None
    if not isinstance(run, dict) or type(run.get("format")) is not int:
        raise ValueError(f"{path}: damaged: not what foldcp writes")
    if run["format"] != FORMAT:
        raise ValueError(
            f"{out}: a folder of format {run['format']}, but this version of foldcp reads format "
            f"{FORMAT}; give another --out, or use the version of foldcp that wrote it"
        )
    for name, kind in RUN_FIELDS.items():
        if not isinstance(run.get(name), kind):
            raise ValueError(f"{path}: damaged: {name} is {run.get(name)!r}")
    return run


def read_identity(root: Path) -> dict[str, Any] | None:
    """The identity of the run in a folder; None for one that does not exist or is empty.

    Raises ValueError for anything else.
    """
    with reading(str(root)):
        if not root.exists():
            return None
        if not root.is_dir():
            raise ValueError(f"{root}: not a folder")
        if not (root / RUN_FILE).exists():
            if {path.name for path in root.iterdir()} - {LOCK, TEMPORARY}:
                raise ValueError(
                    f"{root}: neither empty nor the folder of a run; give another --out"
                )
            return None
    return read_run(root)["identity"]


def check_folder(root: Path, identity: Mapping[str, Any]) -> None:
    """Raise ValueError if results of this identity may not be written to the folder.

    A folder that does not exist or is empty may be used, and one of a run of equal identity.
    """
    known = read_identity(root)
    if known is None:
        return
    stored = dict(_leaves(known))
    requested = dict(_leaves(json.loads(json.dumps(identity))))
    for name in sorted(stored.keys() | requested.keys()):
        if stored.get(name) != requested.get(name):
            there = repr(stored[name]) if name in stored else "not given"
            here = repr(requested[name]) if name in requested else "not given"
            raise ValueError(
                f"{root}: belongs to another run: {name} is {there} there and {here} here; give "
                "another --out"
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def take_lock(path: Path) -> IO[str]:
    """Lock a run's folder for this process; closing the file releases the lock.

    The system also releases it when the process is killed. Raises ValueError when another process
    holds it.
    """
    file = path.open("a")
    for attempt in range(LOCK_ATTEMPTS):
        if attempt:
            time.sleep(LOCK_PAUSE_SECONDS)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in NO_LOCK_ERRORS:
                file.close()
                raise
        return file
    file.close()
    raise ValueError(f"{path.parent}: another process is writing there")


@contextmanager
def kept_from_writers(root: Path) -> Iterator[None]:
    """Keep others from writing to a run's folder as long as the block lasts.

    Raises ValueError when a process is writing there. Where the file system has no locks, or none
    may be taken, nothing is done.
    """
    try:
        file = (root / LOCK).open()
    except OSError:  # a copy of a folder may lack it
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{root}: a process is writing there; wait until it ends") from None
        except OSError as error:
            if error.errno not in NO_LOCK_ERRORS:
                raise
        yield


def is_being_written(root: Path) -> bool:
    """Whether a process holds the lock of a run's folder; False where that cannot be known."""
    try:
        with (root / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
