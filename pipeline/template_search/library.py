"""The protein chains of a folder of structures, listed once for searches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gemmi

from foldcp.features.msa.parse import decode_plain
from foldcp.features.templates.structure import (
    TemplateChain,
    read_template,
    resolve_chain_names,
)
from foldcp.files import INPUT_ERRORS, describe_error, read_file, reading, write_file

LIBRARY = "library.json"
_SUFFIXES = (".cif", ".cif.gz", ".mmcif", ".mmcif.gz")
_MAX_LIBRARY = 4_000_000_000  # bytes
_MIN_RESIDUES = 10
# Of the first release; files from before their release, and those of other programs, lack it.
_RELEASED = "_pdbx_audit_revision_history.revision_date"
_DEPOSITED = "_pdbx_database_status.recvd_initial_deposition_date"


@dataclass(frozen=True, slots=True)
class LibraryChain:
    """A chain: the path of its file in the folder, its name there, the file's date ("" for none)
    and the sequence of its entity.
    """

    path: str
    chain: str
    date: str
    sequence: str


def list_structures(folder: Path) -> list[Path]:
    """The mmCIF files in a folder and those below it. Raises ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder of structures")
    with reading(str(folder)):
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".")
        )
    if not paths:
        raise ValueError(f"{folder}: has no file that ends in .cif or .cif.gz")
    return paths


def listing_digest(folder: Path, paths: Sequence[Path]) -> str:
    """SHA-256 of the names and sizes of files: another one says that the folder has changed."""
    digest = hashlib.sha256()
    for path in paths:
        with reading(str(path)):
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\t{path.stat().st_size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def open_library(
    out: Path, folder: Path, paths: Sequence[Path], warn: Callable[[str], None]
) -> list[LibraryChain]:
    """The chains of the structures, from the list in `out` or else from the files themselves.

    Files that cannot be read are left out; `warn` is told.
    """
    stored = out / LIBRARY
    if stored.exists():
        try:
            items = json.loads(read_file(stored, _MAX_LIBRARY).data)
            return [LibraryChain(**item) for item in items]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{stored}: damaged, delete it ({error})") from error
    chains: list[LibraryChain] = []
    for path in paths:
        try:
            chains += _chains(folder, path)
        except ValueError as error:
            warn(f"left out: {error}")
    content = json.dumps([asdict(chain) for chain in chains], separators=(",", ":"))
    write_file(stored, content.encode())
    return chains


def _chains(folder: Path, path: Path) -> Iterator[LibraryChain]:
    """One chain of each of a file's distinct sequences, that with most resolved residues."""
    name = path.relative_to(folder).as_posix()
    found = read_template(path)
    date = structure_date(path)
    best: dict[str, tuple[int, str]] = {}
    for label, chain in found.items():
        known_as = _unique_name(found, label)
        resolved = int(chain.frame_mask.sum())
        if known_as and resolved >= max(_MIN_RESIDUES, best.get(chain.sequence, (0, ""))[0] + 1):
            best[chain.sequence] = (resolved, known_as)
    for sequence, (_, known_as) in best.items():
        yield LibraryChain(name, known_as, date, sequence)


def _unique_name(chains: dict[str, TemplateChain], label: str) -> str:
    """The label or the author's name, whichever can mean this chain only; "" if neither does."""
    for name in (label, chains[label].author):
        try:
            if resolve_chain_names(chains, [name]) == [label]:
                return name
        except ValueError:  # an ambiguous name
            continue
    return ""


def structure_date(path: Path) -> str:
    """The date of the first release, else of the deposition, as YYYY-MM-DD; "" for none."""
    try:
        block = gemmi.cif.read_string(decode_plain(read_file(path).data))[0]
    except INPUT_ERRORS as error:
        raise ValueError(f"template {path}: {describe_error(error)}") from error
    for tag in (_RELEASED, _DEPOSITED):
        dates = [gemmi.cif.as_string(value) for value in block.find_values(tag)]
        if known := [date for date in dates if len(date) == 10 and date[0].isdigit()]:
            return min(known)
    return ""
