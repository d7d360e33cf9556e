"""Paired alignments of whole complexes, from a server into a folder of alignments."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from foldcp.datasets.msas import paired_name
from foldcp.files import reading
from foldcp.pipeline.msa_search.search import SearchFailure
from foldcp.pipeline.msa_search.server.colabfold_server import ColabFoldServer
from foldcp.pipeline.msa_search.server.connection import ServerError


def store_pairs(
    server: ColabFoldServer, folder: Path, complexes: Iterable[Sequence[str]]
) -> Iterator[Path | SearchFailure]:
    """Search the paired alignments that `folder` lacks, given each complex's protein sequences.

    Yields, for each that was searched, its file or why there is none (under the sequences joined
    by `:`). Complexes of one distinct sequence need none, those with the same sequences share one.
    Raises ValueError as `ColabFoldServer.search` does, and for a folder that cannot be written.
    """
    tried: set[str] = set()
    for sequences in complexes:
        name = paired_name(sequences)
        path = folder / name
        if len(set(sequences)) < 2 or name in tried or path.exists():
            continue
        tried.add(name)
        try:
            text = server.search_pairs(sequences)
        except ServerError as error:
            yield SearchFailure(":".join(sorted(set(sequences))), str(error))
            continue
        _write(path, text)
        yield path


def _write(path: Path, text: str) -> None:
    with reading(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            file.write(gzip.compress(text.encode(), mtime=0))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
