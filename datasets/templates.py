"""Templates of sequences, found in a folder of `foldcp templates`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from foldcp.complex import Complex, Template
from foldcp.files import read_file

SEARCH_FILE = "search.json"
_MAX_BYTES = 100_000_000  # of a file of hits


@dataclass(frozen=True, slots=True)
class TemplateHit:
    """A chain of a structure that is like a sequence; `path` is relative to the structures.

    `residues` are pairs (of the sequence, of the chain's entity), both from 1.
    """

    path: str
    chain: str
    evalue: float
    identity: float
    residues: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TemplateFolder:
    """A folder of hits by the SHA-256 of a sequence, and that of the structures."""

    path: Path
    structures: Path

    def find(self, sequence: str) -> tuple[TemplateHit, ...]:
        """The hits of a sequence, none for one that was not searched.

        Raises ValueError naming the file for one that is damaged.
        """
        path = self.path / hits_name(sequence)
        if not path.exists():
            return ()
        try:
            return tuple(_hit(item, len(sequence)) for item in json.loads(read_file(path).data))
        except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a file of templates, delete it ({error})") from error

    def with_templates(self, complex: Complex) -> Complex:
        """The complex with the templates of its proteins, unless it has templates of its own."""
        if complex.templates:
            return complex
        names: dict[str, list[str]] = {}
        for chain in complex.chains:
            if chain.kind == "protein":
                names.setdefault(chain.sequence, []).append(chain.name)
        templates = [
            Template(
                self.structures / hit.path,
                tuple(copies),
                (hit.chain,),
                residues=hit.residues,
            )
            for sequence, copies in names.items()
            for hit in self.find(sequence)
        ]
        return replace(complex, templates=tuple(templates))


def open_templates(path: Path) -> TemplateFolder:
    """The folder that `foldcp templates` has written. Raises ValueError for any other."""
    file = path / SEARCH_FILE
    if not file.exists():
        raise ValueError(f"{path}: not a folder of templates (it has no {SEARCH_FILE})")
    try:
        structures = Path(json.loads(read_file(file, _MAX_BYTES).data)["structures"])
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged ({error})") from error
    if not structures.is_dir():
        raise ValueError(f"{path}: the folder of its structures, {structures}, does not exist")
    return TemplateFolder(path, structures)


def hits_name(sequence: str) -> str:
    """Where a folder has the hits of a sequence."""
    digest = sha256(sequence.encode()).hexdigest()
    return f"{digest[:2]}/{digest}.json"


def hits_text(hits: Iterable[TemplateHit]) -> str:
    """The content of a file of hits."""
    items = [
        {
            "path": hit.path,
            "chain": hit.chain,
            "evalue": hit.evalue,
            "identity": hit.identity,
            "residues": hit.residues,
        }
        for hit in hits
    ]
    return json.dumps(items, separators=(",", ":")) + "\n"


def _hit(item: dict[str, Any], length: int) -> TemplateHit:
    path = PurePosixPath(item["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {item['path']!r} leads out of the structures")
    residues = tuple((int(query), int(template)) for query, template in item["residues"])
    if not all(1 <= query <= length and template >= 1 for query, template in residues):
        raise ValueError("it matches residues that do not exist")
    return TemplateHit(
        str(path), str(item["chain"]), float(item["evalue"]), float(item["identity"]), residues
    )
