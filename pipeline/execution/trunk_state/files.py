"""Files of the trunk's state between passes: RUN/trunk/KEY, as long as a complex has no outcome.

A set is the state after one pass. Each rank of the group writes its rows of s and z as two .npy
files and then, under `pass2.rank0of3.json`, what they are. A set counts if all its ranks have done
so and are of one fold; it is read by ranges of rows, so by any number of ranks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "trunk"  # in the folder of a run
MAX_JSON_BYTES = 10_000
MAX_FILES = 100_000  # looked at in a folder


@dataclass(frozen=True, slots=True)
class StateIdentity:
    """What two folds must agree in, for one to go on with the state of the other."""

    key: str  # of the complex, its alignments, the settings and the weights
    precision: str
    seed: int
    num_msa_rows: int
    msa_subsample: int
    num_tokens: int
    dtype: str  # of the numbers of z
    format: int = 1


@dataclass(frozen=True, slots=True)
class RankFiles:
    """The files of one rank: rows from `first_row` of s and z, padded to `num_rows_padded`."""

    identity: StateIdentity
    num_passes: int
    rank: int
    num_ranks: int
    first_row: int
    num_rows: int
    num_rows_padded: int  # of all ranks together

    @property
    def stem(self) -> str:
        """The beginning of the names of its files."""
        return f"pass{self.num_passes}.rank{self.rank}of{self.num_ranks}"


def write_rank_files(
    folder: Path, files: RankFiles, s: Iterator[np.ndarray], z: Iterator[np.ndarray]
) -> None:
    """Write the rows of a rank, given in chunks; they count from when this returns.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, chunks in (("s", s), ("z", z)):
        _write_array(folder / f"{files.stem}.{name}.npy", chunks, files.num_rows)
    text = json.dumps(asdict(files))
    part = folder / f"{files.stem}.json.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / f"{files.stem}.json")


def _write_array(path: Path, chunks: Iterator[np.ndarray], num_rows: int) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            if not file.tell():
                header = np.lib.format.header_data_from_array_1_0(chunk)
                header["shape"] = (num_rows, *chunk.shape[1:])
                np.lib.format.write_array_header_1_0(file, header)
            file.write(chunk.data)
        file.flush()
        os.fsync(file.fileno())


def complete_sets(folder: Path, identity: StateIdentity) -> dict[int, list[RankFiles]]:
    """The sets of a fold that are complete: by number of passes, the files of all ranks.

    Of two sets after one pass that of more ranks counts.
    """
    found: dict[tuple[int, int], dict[int, RankFiles]] = {}
    for path in sorted(folder.glob("pass*.json"))[:MAX_FILES]:
        files = _read_description(path)
        if files is not None and files.identity == identity:
            found.setdefault((files.num_passes, files.num_ranks), {})[files.rank] = files
    sets: dict[int, list[RankFiles]] = {}
    for (num_passes, num_ranks), of_rank in sorted(found.items()):
        if len(of_rank) == num_ranks:
            sets[num_passes] = [of_rank[rank] for rank in sorted(of_rank)]
    return sets


def _read_description(path: Path) -> RankFiles | None:
    """What a rank wrote of its files; None where that is damaged or gone."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        values: dict[str, Any] = json.loads(path.read_bytes())
        identity = StateIdentity(**values.pop("identity"))
        return RankFiles(identity, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_rows(
    folder: Path, files: RankFiles, name: str, first: int, last: int
) -> tuple[int, np.ndarray]:
    """Rows `first` to `last` of all, as far as a rank has them: the first of them, and the rows.

    Raises OSError and ValueError when the file is gone or damaged.
    """
    array = np.load(folder / f"{files.stem}.{name}.npy", mmap_mode="r", allow_pickle=False)
    if len(array) != files.num_rows:
        raise ValueError(f"{folder / files.stem}.{name}.npy: {len(array)} rows")
    begin = max(first, files.first_row)
    end = max(begin, min(last, files.first_row + files.num_rows))
    return begin, array[begin - files.first_row : end - files.first_row]


def remove_others(folder: Path, num_passes: int, num_ranks: int) -> None:
    """Remove all sets but one. Raises OSError."""
    kept = (f"pass{num_passes}.", f"of{num_ranks}.")
    for path in folder.glob("pass*"):
        if not (path.name.startswith(kept[0]) and kept[1] in path.name):
            path.unlink(missing_ok=True)


class KeptStates:
    """The states that a run's folder keeps, as its driver sees them."""

    def __init__(self, root: Path) -> None:
        self._root = root / FOLDER

    def folder(self, key: str) -> Path:
        """Where the state of a complex is kept."""
        return self._root / key

    def num_passes(self) -> dict[str, int]:
        """The passes of each complex after which some rank kept its state."""
        found: dict[str, int] = {}
        for path in self._root.glob("*/pass*.rank0of*.json"):
            files = _read_description(path)
            if files is not None and files.identity.key == path.parent.name:
                key = path.parent.name
                found[key] = max(files.num_passes, found.get(key, 0))
        return found

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove the states of all complexes but these."""
        if self._root.is_dir():
            for folder in list(self._root.iterdir()):
                if folder.name not in keys:
                    self.remove(folder.name)

    def remove(self, key: str) -> None:
        """Remove the states of a complex; what the disk does not let go stays."""
        shutil.rmtree(self.folder(key), ignore_errors=True)
        with suppress(OSError):  # others are in it, or it was never made
            self._root.rmdir()
