"""Complexes of an input as files of another tool."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foldcp.complex import Complex, InvalidComplex
from foldcp.datasets.writers.alphafold3 import alphafold3_json
from foldcp.datasets.writers.boltz_yaml import boltz_yaml
from foldcp.datasets.writers.written import Written
from foldcp.files import read_file
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.storage.results.boltz_layout import file_stem

Tool = Literal["boltz", "alphafold3"]


@dataclass(frozen=True, slots=True)
class Exported:
    """How many files were written, what they leave out (in how many), and what was not written."""

    num_written: int
    notes: Counter[str]
    invalid: list[tuple[str, str]]  # (name, reason)


def export(spec: InputSpec, tool: Tool, out: Path, overwrite: bool) -> Exported:
    """Write each complex of an input as a file in the folder `out`, with the files beside it.

    Raises ValueError for a file that exists already, unless `overwrite`, and for one that cannot be
    written.
    """
    check_folder_writable(out)
    num_written = 0
    notes: Counter[str] = Counter()
    invalid: list[tuple[str, str]] = []
    for record in records(spec):
        if isinstance(record, InvalidComplex):
            invalid.append((record.name, record.reason))
            continue
        stem = file_stem(record.name, hashlib.sha256(record.name.encode()).hexdigest())
        try:
            written = _write_as(tool, record, stem)
        except ValueError as error:
            invalid.append((record.name, str(error)))
            continue
        _store(written, out / (stem + (".yaml" if tool == "boltz" else ".json")), overwrite)
        num_written += 1
        notes.update(written.notes)
    return Exported(num_written, notes, invalid)


def _write_as(tool: Tool, complex: Complex, stem: str) -> Written:
    return boltz_yaml(complex, stem) if tool == "boltz" else alphafold3_json(complex)


def _store(written: Written, path: Path, overwrite: bool) -> None:
    """Write a text, and before it the files that it names."""
    contents = {path.with_name(name): read_file(file).data for name, file in written.files.items()}
    contents[path] = written.text.encode()
    for target in contents:
        if target.exists() and not overwrite:
            raise ValueError(f"{target}: exists already; --overwrite replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content in contents.items():
            target.write_bytes(content)
    except OSError as error:
        raise ValueError(
            f"{error.filename or path}: cannot be written: {error.strerror}"
        ) from error
