"""Keeper of the trunk's state on one rank of a worker group."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.files import describe_error
from foldcp.model.trunk.passes import PassState
from foldcp.pipeline.execution.trunk_state.files import (
    RankFiles,
    StateIdentity,
    complete_sets,
    read_rows,
    remove_others,
    write_rank_files,
)
from foldcp.printable import printable

CHUNK_BYTES = 1 << 26  # in host memory at a time


@dataclass(slots=True)
class StateKeeper:
    """Keeps the state of one fold in a folder, and brings it back.

    All ranks go on with the same pass, or begin at the first one. When one of them cannot write,
    none keeps anything from then on, and `on_failure` is called.
    """

    folder: Path
    identity: StateIdentity
    cp: ContextParallel
    device: torch.device
    on_failure: Callable[[], None]
    is_on: bool = True
    first_pass: int = 0  # that the fold makes
    _num_padded: int = 0

    def restore(self, num_tokens: int, N: int, dtype: torch.dtype) -> PassState | None:
        """As `PassKeeper.restore`."""
        assert num_tokens == self.identity.num_tokens and str(dtype) == self.identity.dtype
        self._num_padded = N
        sets = complete_sets(self.folder, self.identity) if self.is_on else {}
        last = max(sets, default=0)
        lowest = self.cp.all_reduce_min(last, self.device)
        highest = -self.cp.all_reduce_min(-last, self.device)
        if not highest or lowest != highest:
            return None
        state = None
        try:
            s = self._read(sets[last], "s", (), torch.float32)
            z = self._read(sets[last], "z", (N,), dtype)
            state = PassState(last, s, z)
        except (OSError, ValueError) as error:
            self._warn(error)
        if not self._all(state is not None):
            return None
        self.first_pass = last
        return state

    def keep(self, state: PassState) -> None:
        """As `PassKeeper.keep`."""
        if not self.is_on:
            return
        I = len(state.z)
        files = RankFiles(
            self.identity,
            state.num_passes,
            self.cp.rank,
            self.cp.size,
            self.cp.rank * I,
            I,
            self._num_padded,
        )
        is_written = False
        try:
            # A folder that this node does not share with the others is not made anew.
            if not self.folder.parent.parent.is_dir():
                raise FileNotFoundError(2, "not on this node", str(self.folder.parent.parent))
            write_rank_files(self.folder, files, _chunks(state.s), _chunks(state.z))
            is_written = True
        except OSError as error:
            self._warn(error)
        if not self._all(is_written):
            self.is_on = False
            self.on_failure()
            for path in self.folder.glob(f"{files.stem}.*"):
                path.unlink(missing_ok=True)
        elif self.cp.rank == 0:
            remove_others(self.folder, state.num_passes, self.cp.size)

    def _read(
        self, ranks: list[RankFiles], name: str, columns: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """This rank's rows of s or z; what is padding now and was none then is zero."""
        num_rows = self._num_padded // self.cp.size
        first = self.cp.rank * num_rows
        out: Tensor | None = None
        for files in ranks:
            begin, rows = read_rows(self.folder, files, name, first, first + num_rows)
            if out is None:
                width = rows.shape[-1]
                out = torch.zeros((num_rows, *columns, width), dtype=dtype, device=self.device)
            for chunk in _slices(len(rows), rows[:1].nbytes):
                values = torch.from_numpy(np.array(rows[chunk])).view(dtype)
                start = begin - first + chunk.start
                target = out[start : start + len(values)]
                if columns:
                    num_columns = min(columns[0], values.shape[1])
                    target[:, :num_columns] = values[:, :num_columns].to(self.device)
                else:
                    target[:] = values.to(self.device)
        assert out is not None
        return out

    def _all(self, is_true: bool) -> bool:
        """Whether something holds on all ranks."""
        return bool(self.cp.all_reduce_min(int(is_true), self.device))

    def _warn(self, error: OSError | ValueError) -> None:
        text = describe_error(error) if isinstance(error, OSError) else str(error)
        message = f"{self.folder}: {text}; the state of the trunk is not kept there"
        print(printable(message), file=sys.stderr)


def _chunks(x: Tensor) -> Iterator[np.ndarray]:
    """The rows of a tensor in host memory, some at a time; bf16 as 16-bit integers."""
    for rows in _slices(len(x), x[:1].nbytes):
        chunk = x[rows].contiguous().cpu()
        if chunk.dtype == torch.bfloat16:
            chunk = chunk.view(torch.int16)
        yield chunk.numpy()


def _slices(length: int, bytes_per_row: int) -> list[slice]:
    step = max(1, CHUNK_BYTES // max(1, bytes_per_row))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
