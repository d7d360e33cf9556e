"""What `foldcp msa` does: its method from its options, and the stage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.msa_search.importing import ImportedAlignments
from foldcp.pipeline.msa_search.jackhmmer import JackhmmerSearch
from foldcp.pipeline.msa_search.mmseqs import MmseqsSearch
from foldcp.pipeline.msa_search.programs import Programs, running_programs
from foldcp.pipeline.msa_search.search import Search
from foldcp.pipeline.msa_search.server.colabfold_server import ColabFoldServer
from foldcp.pipeline.msa_search.stage import (
    Counts,
    MsaSummary,
    search_alignments,
    search_pairs,
    wanted_alignments,
)
from foldcp.pipeline.msa_search.store import TEMPORARY, TICKETS, MsaStore
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.printable import printable

_NUM_UNREADABLE = 10  # files that are named


@dataclass(frozen=True, slots=True)
class MsaMethod:
    """How alignments are made: the options of the command, of `folders`, `mmseqs`, `jackhmmer` and
    `server` one."""

    folders: tuple[Path, ...] = ()
    mmseqs: Path | None = None
    environmental: Path | None = None
    jackhmmer: Path | None = None
    server: str = ""
    threads: int = 0
    gpu_server: bool = False
    unpaired: bool = False

    def __post_init__(self) -> None:
        given = [
            bool(self.folders),
            self.mmseqs is not None,
            self.jackhmmer is not None,
            bool(self.server),
        ]
        if sum(given) != 1:
            raise ValueError(
                "give one of --from, --mmseqs, --jackhmmer and --server; another method's "
                "alignments go to another folder, and --msas may be repeated"
            )
        if self.mmseqs is None and (self.environmental or self.gpu_server):
            raise ValueError("--environmental and --gpu-server need --mmseqs")
        if self.unpaired and not self.server:
            raise ValueError("--unpaired needs --server: no other method makes paired alignments")


def make_alignments(
    spec: InputSpec, out: Path, method: MsaMethod, only_missing: bool
) -> MsaSummary:
    """The alignments of an input's proteins, stored in `out`.

    Raises ValueError for what the user has to mend, StoppedError when a signal ends it.
    """
    check_folder_writable(out)
    with running_programs() as programs:
        search = _search(method, out / TEMPORARY, programs)
        wanted = wanted_alignments(records(spec), only_missing)
        pairs = Counts()
        with MsaStore(out, search.identity) as store:
            if isinstance(search, ColabFoldServer):
                search.forget_stored(store)
            sequences = search_alignments(wanted.sequences, search, store)
            if isinstance(search, ColabFoldServer) and not method.unpaired:
                pairs = search_pairs(wanted.pairs, search, store)
    if isinstance(search, ImportedAlignments):
        _print_unreadable(search.unreadable)
    return MsaSummary(sequences, pairs, wanted.invalid)


def _search(method: MsaMethod, temporary: Path, programs: Programs) -> Search:
    if method.mmseqs:
        return MmseqsSearch(
            method.mmseqs,
            method.environmental,
            method.threads,
            method.gpu_server,
            temporary,
            programs=programs,
        )
    if method.jackhmmer:
        return JackhmmerSearch(method.jackhmmer, method.threads, temporary, programs)
    if method.server:
        return ColabFoldServer(method.server, state_folder=temporary.parent / TICKETS)
    return ImportedAlignments(method.folders)


def _print_unreadable(reasons: Sequence[str]) -> None:
    for reason in reasons[:_NUM_UNREADABLE]:
        print(printable(f"left out: {reason}"), file=sys.stderr)
    if (num_more := len(reasons) - _NUM_UNREADABLE) > 0:
        print(f".. and {num_more:,} more files left out", file=sys.stderr)
