"""What is to be done: one task per different complex, named by its content."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from foldcp.complex import Chain, Complex, Record, Unbuildable
from foldcp.pipeline.config import RunConfig

KEY_FORMAT = 2  # to be raised when the same content would give another result
KEY_LENGTH = 32  # hexadecimal digits of SHA-256


@dataclass(frozen=True, slots=True)
class Task:
    """A complex to fold. `key` names its result; `msa_depth` is the number of alignment rows the
    network gets at most."""

    complex: Complex
    key: str
    num_tokens: int
    msa_depth: int

    @property
    def name(self) -> str:
        """The complex's name."""
        return self.complex.name


@dataclass(frozen=True, slots=True)
class Done:
    """A task whose result was produced by attempt number `attempt`, from 1."""

    task: Task
    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that has no result, and why; `attempt` is the number of attempts made, 0 if it never could run."""

    task: Task
    attempt: int
    reason: str


Outcome = Done | Failed


@dataclass(frozen=True, slots=True)
class Work:
    """An input read to its end: what can be folded, what is no complex, and how many records repeat another."""

    tasks: tuple[Task, ...]
    unbuildable: tuple[Unbuildable, ...]
    num_duplicates: int


def make_work(records: Iterable[Record], config: RunConfig, checkpoint: str) -> Work:
    """Tasks of the records, each content once, in the order of the input.

    `checkpoint` is the identity of the weights. A complex with an unknown component, or whose alignment or
    template cannot be read, becomes an Unbuildable.
    """
    tasks: dict[str, Task] = {}
    unbuildable: list[Unbuildable] = []
    num_duplicates = 0
    for record in records:
        try:
            task = make_task(record, config, checkpoint) if isinstance(record, Complex) else record
        except ValueError as error:
            task = Unbuildable(record.name, str(error), record.title, record.organism, record.source, record.place)
        if isinstance(task, Unbuildable):
            unbuildable.append(task)
        elif task.key in tasks:
            num_duplicates += 1
        else:
            tasks[task.key] = task
    return Work(tuple(tasks.values()), tuple(unbuildable), num_duplicates)


def smallest(work: Work, limit: int) -> Work:
    """The `limit` smallest tasks, in the order of the input, and nothing that could not be built; 0 is no limit."""
    if not limit:
        return work
    chosen = {task.key for task in sorted(work.tasks, key=lambda task: task.num_tokens)[:limit]}
    return Work(tuple(task for task in work.tasks if task.key in chosen), (), work.num_duplicates)


def make_task(complex: Complex, config: RunConfig, checkpoint: str) -> Task:
    """The task of one complex; ValueError for an unknown component or an unreadable file."""
    return Task(
        complex=complex,
        key=content_key(complex, result_settings(config), checkpoint),
        num_tokens=num_tokens(complex),
        msa_depth=msa_depth(complex, config.msa.max_rows),
    )


def msa_depth(complex: Complex, max_rows: int) -> int:
    """Rows of the alignment of all chains at most: those of the deepest file, and again those paired by keys."""
    deepest = min(max_rows, max(alignment_rows(chain) for chain in complex.chains))
    keyed = {chain.msa for chain in complex.chains if chain.msa and _is_table(chain.msa)}
    return deepest * (2 if len(keyed) > 1 else 1)


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that change what is stored: not how the work is spread, nor how many samples run at once."""
    model = {name: value for name, value in asdict(config.model).items() if name != "parallel_samples"}
    return {"model": model, "msa": asdict(config.msa), "write": sorted(config.write)}


def content_key(complex: Complex, settings: dict[str, Any], checkpoint: str) -> str:
    """SHA-256 over canonical JSON of the complex, the settings and the weights.

    The name counts, since results are found by it; title, organism and source do not. Alignments and templates
    count by their content, so moving a file changes nothing and editing it does.
    """
    content = {
        "format": KEY_FORMAT,
        "name": complex.name,
        "chains": [_chain_content(chain) for chain in complex.chains],
        "bonds": [asdict(bond) for bond in complex.bonds],
        "pockets": [asdict(pocket) for pocket in complex.pockets],
        "contacts": [asdict(contact) for contact in complex.contacts],
        "templates": [
            {**{k: v for k, v in asdict(template).items() if k != "path"}, "file": _digest(template.path)}
            for template in complex.templates
        ],
        "method": complex.method,
        "settings": settings,
        "checkpoint": checkpoint,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _chain_content(chain: Chain) -> dict[str, Any]:
    fields = ("name", "kind", "sequence", "accession", "cyclic", "modifications", "ccd", "smiles")
    return {**{name: getattr(chain, name) for name in fields}, "msa": _alignment(chain)[0]}


def alignment_rows(chain: Chain) -> int:
    """Rows of a chain's alignment file, the query among them."""
    return _alignment(chain)[1]


def _alignment(chain: Chain) -> tuple[str, int]:
    """(digest, rows) of a chain's alignment; the query alone is one row."""
    return _read_alignment(chain.msa) if chain.msa is not None else ("", 1)


@cache
def _read_alignment(path: Path) -> tuple[str, int]:
    """Read once per file: a protein of many complexes has one alignment."""
    content = _read(path)
    if _is_table(path):
        lines = csv.reader(io.StringIO(content.decode(errors="replace")))
        num_rows = sum(1 for line in lines if line) - 1
    else:
        num_rows = content.count(b"\n>") + content.startswith(b">")
    return hashlib.sha256(content).hexdigest(), max(1, num_rows)


def _is_table(path: Path) -> bool:
    """Whether an alignment is Boltz's `key,sequence` table."""
    return path.name.removesuffix(".gz").endswith(".csv")


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzipped."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def num_tokens(complex: Complex) -> int:
    """One token per residue of a polymer and one per heavy atom of a ligand."""
    if not any(chain.kind == "ligand" or chain.modifications for chain in complex.chains):
        return complex.num_residues
    from foldcp.tokens import tables  # reads the CCD, which most inputs never need

    return len(tables(complex).tokens.residue)
