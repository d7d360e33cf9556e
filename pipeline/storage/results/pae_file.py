"""PAE of a sample in an HDF5 file: whole, or that of some pairs of chains.

    pae           int8 [T, T]: the error of token j (column) in the frame of token i (row), in steps
                  of 0.25 Å; -1 where it was not kept. In chunks of 256 x 256, compressed, so that
                  any block is read without the rest, and what was not kept takes no space
    kept          bool [C, C]: pairs of chains [frames, scored tokens] whose PAE was kept
    chain_names   text [C]
    chain_starts  int64 [C + 1]: first token of each chain, then T

Attributes of `pae`: `step`, 0.25 Å, and `max_error`, 0.125 Å, by which a value may be off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from jaxtyping import Bool, Float

from foldcp.files import reading
from foldcp.metrics.interface.pae_blocks import PAE_STEP, PaeBlock

CHUNK = 256  # rows and columns
COMPRESSION_LEVEL = 4
NOT_KEPT = -1


def write_pae(
    path: Path,
    chain_names: Sequence[str],
    chain_starts: Sequence[int],
    kept: Bool[np.ndarray, "C C"],
    blocks: Iterable[PaeBlock],
) -> None:
    """Write the blocks of one sample, which hold what is `kept`; one at a time is in memory.

    Raises OSError when the disk fails.
    """
    with path.open("w+b", buffering=0) as raw:
        target = _Hdf5Target(raw)
        _write_datasets(target, chain_names, chain_starts, kept, blocks)
        target.check()


def _write_datasets(
    target: _Hdf5Target,
    chain_names: Sequence[str],
    chain_starts: Sequence[int],
    kept: Bool[np.ndarray, "C C"],
    blocks: Iterable[PaeBlock],
) -> None:
    """Write all that the file holds."""
    num_tokens = chain_starts[-1]
    num_written = 0
    with h5py.File(target, "w") as file:
        pae = file.create_dataset(
            "pae",
            shape=(num_tokens, num_tokens),
            dtype=np.int8,
            chunks=(min(CHUNK, num_tokens),) * 2,
            compression="gzip",
            compression_opts=COMPRESSION_LEVEL,
            fillvalue=NOT_KEPT,
        )
        pae.attrs["step"] = PAE_STEP
        pae.attrs["max_error"] = PAE_STEP / 2
        file["kept"] = kept
        file["chain_names"] = list(chain_names)
        file["chain_starts"] = np.array(chain_starts, np.int64)
        for block in blocks:
            num_rows, num_columns = block.steps.shape
            rows = slice(block.first_row, block.first_row + num_rows)
            columns = slice(block.first_column, block.first_column + num_columns)
            pae[rows, columns] = block.steps
            num_written += block.steps.size
            target.check()
    lengths = np.diff(chain_starts)
    num_kept = int(lengths @ kept @ lengths)
    assert num_written == num_kept, f"{num_written} of {num_kept} pairs of tokens were written"


class _Hdf5Target:
    """A new file as HDF5 writes it; `check` raises what the disk refused.

    HDF5 itself is not told of it, as the process crashes when HDF5 cannot close its file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error that a write had."""
        if self._error is not None:
            raise self._error

    def write(self, content: bytes) -> int:
        """Write all of the content."""
        left = memoryview(content)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return len(content)

    def truncate(self, size: int) -> None:
        """Set the size in bytes."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class PaeFile:
    """The PAE of one sample that a run has kept; opened until it is closed, or in `with`.

    >>> import foldcp
    >>> run = foldcp.read_run("demo-run")
    >>> kept = run.complexes.dropna(subset=["pae"])
    >>> for path in kept["pae"].head(1):
    ...     with foldcp.PaeFile(f"demo-run/{path}") as pae:
    ...         block = pae.between("A", "B")  # error of the tokens of B in the frames of A, in Å

    Raises ValueError, naming the file, when it is not one that a run has written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        with reading(self.path), open(path, "rb"):
            pass  # h5py's own errors do not tell a missing file from a damaged one
        try:
            self._file: Any = h5py.File(path, "r")  # its items have no static types
            self._pae = self._file["pae"]
            self._step = float(self._pae.attrs["step"])
            self.kept: Bool[np.ndarray, "C C"] = self._file["kept"][()]
            self.chain_names: tuple[str, ...] = tuple(self._file["chain_names"].asstr()[()])
            self.chain_starts: tuple[int, ...] = tuple(self._file["chain_starts"][()].tolist())
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path}: damaged: not the PAE of a run") from error

    def __enter__(self) -> PaeFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.chain_starts[-1]

    def read(self, rows: slice, columns: slice) -> Float[np.ndarray, "R L"]:
        """PAE in Å of ranges of tokens; NaN where it was not kept.

        Raises ValueError, naming the file, when it is damaged.
        """
        try:
            steps = self._pae[rows, columns]
        except OSError as error:
            raise ValueError(f"{self.path}: damaged: {error}") from error
        return np.where(steps == NOT_KEPT, np.nan, steps * self._step).astype(np.float32)

    def between(self, chain_a: str, chain_b: str) -> Float[np.ndarray, "R L"]:
        """PAE in Å of the tokens of chain b (columns) in the frames of chain a (rows).

        Raises ValueError when there is no such chain, or the PAE of this pair was not kept.
        """
        a = self._chain(chain_a)
        b = self._chain(chain_b)
        if not self.kept[a, b]:
            raise ValueError(f"{self.path}: the PAE of chains {chain_a} and {chain_b} was not kept")
        return self.read(self._tokens(a), self._tokens(b))

    def _chain(self, name: str) -> int:
        if name not in self.chain_names:
            raise ValueError(
                f"{self.path}: no chain {name!r}; there are {', '.join(self.chain_names)}"
            )
        return self.chain_names.index(name)

    def _tokens(self, chain: int) -> slice:
        return slice(self.chain_starts[chain], self.chain_starts[chain + 1])
