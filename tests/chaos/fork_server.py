"""A process that forks the workers of a raylet, as their imports take longer than their work.

The first worker that a raylet starts becomes this server (see `path/sitecustomize.py`). The others
hand over their commands, environments and files 0 to 2, and end. The server ends with its raylet
and starts nothing but workers, so that these are descendants of the raylet as ever, and what ends
with its parent does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pickle
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # of prctl(2)
MAX_BYTES = 1 << 20  # of a command with its environment
MODULES = (
    "ray._private.workers.default_worker",
    "foldcp.pipeline.execution.monitoring.heartbeat",
    "foldcp.pipeline.execution.monitoring.progress_actor",
    "foldcp.pipeline.execution.prefetch",
    "foldcp.pipeline.execution.worker",
    "foldcp.pipeline.execution.worker_actor",
    "foldcp.pipeline.execution.worker_group",
)
# Columns of the Chemical Component Dictionary (CCD), which takes seconds to decode.
COLUMNS = {
    "chem_comp": ("type", "name", "one_letter_code", "formula", "formula_weight"),
    "chem_comp_atom": (
        *("atom_id", "type_symbol", "charge", "pdbx_leaving_atom_flag"),
        *(f"pdbx_model_Cartn_{axis}_ideal" for axis in "xyz"),
    ),
    "chem_comp_bond": ("atom_id_1", "atom_id_2", "value_order", "pdbx_aromatic_flag"),
}
COLUMNS_FILE = "ccd.pickle"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def write_columns(path: Path) -> None:
    """Write the columns of amino acids, decoded."""
    from foldcp.chemistry import vocabulary

    columns = {
        (category, code, column): vocabulary.ccd_column(category, code, column)
        for code in vocabulary.PROTEIN_LETTERS.values()
        for category, names in COLUMNS.items()
        for column in names
    }
    path.write_bytes(pickle.dumps(columns))


def read_columns(path: Path) -> None:
    """Let this process take columns from a file that `write_columns` has written."""
    from foldcp.chemistry import vocabulary  # here, as it imports NumPy, which starts threads

    columns = pickle.loads(path.read_bytes())
    decode = vocabulary.get_from_ccd

    def get(category: str, code: str, column: str) -> object:
        key = (category, code, column)
        return columns[key] if key in columns else decode(category, code, column)

    vocabulary.get_from_ccd = get


def main() -> None:
    """Serve at the socket of a descriptor; the first worker's command follows it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    descriptor, *command = sys.argv[1:]
    environment = dict(os.environ)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    for name in MODULES:
        importlib.import_module(name)
    read_columns(Path(environment["FOLDCP_CHAOS"]).parent / COLUMNS_FILE)
    gc.freeze()  # so that no child copies the memory to collect what is in it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(fileno=int(descriptor)) as server:
        start(command, environment, os.getcwd(), ())
        while True:
            request, files, _, _ = socket.recv_fds(server, MAX_BYTES, 3)
            start(*json.loads(request), files)


def start(
    command: Sequence[str], environment: Mapping[str, str], folder: str, files: Sequence[int]
) -> None:
    """Fork a worker; returns in the server."""
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    if not os.fork():
        become_worker(command, environment, folder, files)
    for file in files:
        os.close(file)


def become_worker(
    command: Sequence[str], environment: Mapping[str, str], folder: str, files: Sequence[int]
) -> None:
    """Run a worker's command in this process, as Python would."""
    os.setpgid(0, 0)  # as the raylet does
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.argv = list(command)
    sys.orig_argv = [sys.executable, *command]
    sys.path[0] = os.path.dirname(command[0])
    runpy.run_path(command[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()
