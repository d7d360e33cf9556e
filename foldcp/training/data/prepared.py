"""A folder of prepared training data: `index.jsonl`, and a safetensors file for each structure.

Without torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from foldcp.checkpoint.array_file import read_arrays, write_arrays
from foldcp.files import reading, write_file
from foldcp.training.data.structure import ExperimentalChain, ExperimentalStructure

FORMAT = 1  # of the folder
INDEX = "index.jsonl"
TRAIN = "train"
HELD_OUT = "held-out"


@dataclass(frozen=True)
class IndexChain:
    """A chain of the index. `msa` is the file of its alignment, relative to the folder."""

    name: str
    kind: str
    residues: int
    resolved: int  # residues
    key: str  # equal for equal sequences
    cluster: str
    msa: str = ""


@dataclass(frozen=True)
class IndexRow:
    """A line of the index: a structure that can be trained on, or why it cannot.

    `dropped_by` is the filter that dropped it, `unreadable` for a bad file, empty for one that is
    used; `reason` says it in words. `dropped_chains` has the names of chains by the filter that
    dropped them. `interfaces` are pairs of numbers of chains.
    """

    name: str
    source: str
    split: str
    dropped_by: str = ""
    reason: str = ""
    resolution: float | None = None  # Å
    date: str = ""
    method: str = ""
    assembly: str = ""
    residues: int = 0  # of polymers
    atoms: int = 0  # observed
    chains: tuple[IndexChain, ...] = ()
    interfaces: tuple[tuple[int, int], ...] = ()
    dropped_chains: Mapping[str, Sequence[str]] = field(default_factory=dict)


def structure_path(folder: Path, name: str) -> Path:
    """The file of a structure."""
    digest = sha256(name.encode()).hexdigest()
    return folder / "structures" / digest[:2] / f"{name}.safetensors"


def write_structure(
    path: Path, structure: ExperimentalStructure | None, about: Mapping[str, Any]
) -> None:
    """Write the file of a structure, or of what is known of one that could not be read."""
    if structure is None:
        write_arrays(path, {**about, "structure": None}, {})
        return
    chains = structure.chains
    described = {
        "name": structure.name,
        "bonds": structure.bonds,
        "resolution": structure.resolution,
        "date": structure.date,
        "method": structure.method,
        "assembly": structure.assembly,
        "chains": [
            {
                "name": chain.name,
                "kind": chain.kind,
                "codes": " ".join(chain.codes),
                "letters": chain.letters,
            }
            for chain in chains
        ],
    }
    names = np.array([name.encode() for chain in chains for name in chain.atom_names], dtype="S")
    width = max(names.dtype.itemsize, 1)
    arrays = {
        "first_atom": np.cumsum([0, *(len(chain.atom_names) for chain in chains)], dtype=np.int64),
        "atom_residue": _joined([chain.atom_residue for chain in chains], np.int32),
        "atom_name": names.view(np.uint8).reshape(len(names), width),
        "coords": _joined([chain.coords for chain in chains], np.float32).reshape(-1, 3),
        "bfactors": _joined([chain.bfactors for chain in chains], np.float32),
    }
    write_arrays(path, {**about, "structure": described}, arrays)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(part.ravel() for part in parts)]).astype(dtype)


def read_structure(path: Path) -> ExperimentalStructure:
    """A structure that `write_structure` wrote. Raises ValueError naming the file."""
    about, arrays = read_arrays(path)
    described = about.get("structure")
    if not isinstance(described, dict):
        raise ValueError(f"{path}: has no structure")
    with reading(str(path)):
        width = arrays["atom_name"].shape[1]
        names = np.ascontiguousarray(arrays["atom_name"]).view(f"S{width}").ravel()
        first = arrays["first_atom"].tolist()
        spans = [slice(a, b) for a, b in pairwise(first)]
        chains = [
            ExperimentalChain(
                name=each["name"],
                kind=each["kind"],
                codes=tuple(each["codes"].split(" ")),
                letters=each["letters"],
                atom_residue=arrays["atom_residue"][span],
                atom_names=tuple(name.decode() for name in names[span].tolist()),
                coords=arrays["coords"][span],
                bfactors=arrays["bfactors"][span],
            )
            for each, span in zip(described["chains"], spans, strict=True)
        ]
        return ExperimentalStructure(
            name=described["name"],
            chains=tuple(chains),
            bonds=tuple((tuple(a), tuple(b)) for a, b in described["bonds"]),
            resolution=described["resolution"],
            date=described["date"],
            method=described["method"],
            assembly=described["assembly"],
        )


def write_index(folder: Path, rows: Iterable[IndexRow]) -> None:
    """Write the index of a folder, as a whole or not at all."""
    lines = [json.dumps({"format": FORMAT, **asdict(row)}, sort_keys=True) for row in rows]
    write_file(folder / INDEX, "".join(line + "\n" for line in lines).encode())


def read_index(folder: Path) -> list[IndexRow]:
    """The rows of a folder's index. Raises ValueError naming the file and the line."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"{folder}: not a folder of `foldcp train-data`, as there is no {INDEX}")
    with reading(str(path)):
        lines = path.read_text().splitlines()
    return [_row(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def _row(line: str, where: str) -> IndexRow:
    try:
        values = json.loads(line)
        number = values.pop("format")
        chains = tuple(IndexChain(**chain) for chain in values.pop("chains"))
        interfaces = tuple((int(a), int(b)) for a, b in values.pop("interfaces"))
        row = IndexRow(**values, chains=chains, interfaces=interfaces)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{where}: damaged ({error})") from error
    if number != FORMAT:
        raise ValueError(f"{where}: format {number!r}; this version reads {FORMAT}")
    return row
