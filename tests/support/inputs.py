"""Inputs read with options, some of which are files and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foldcp.complex import Record
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.msas import open_msas
from foldcp.datasets.reader import read


def read_input(
    path: Path, sequences: Path | None = None, msas: Path | None = None, **options: Any
) -> Iterator[Record]:
    """The records of an input with one file of sequences and one folder of alignments."""
    return read(
        path,
        ReadOptions(
            sequences=(sequences,) if sequences else (),
            msas=open_msas([msas]) if msas else None,
            **options,
        ),
    )
