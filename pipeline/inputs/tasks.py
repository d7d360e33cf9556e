"""What is to be done: one task per different complex, named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from foldcp.complex import Chain, Complex, InvalidComplex, Record
from foldcp.files import reading
from foldcp.pipeline.config import EXECUTION_SETTINGS, RunConfig
from foldcp.pipeline.inputs.checks import check_constraints, read_alignments, read_templates

KEY_FORMAT = 2  # to be raised when the same content would give another result
BONDS_FORMAT = 1  # the same, of complexes with bonds alone
QUIET_SECONDS = 3.0  # before a bar shows that the input is being read
KEY_LENGTH = 32  # hexadecimal digits of SHA-256


@dataclass(frozen=True, slots=True)
class Task:
    """A complex to fold. `key` names its result; `msa_depth` is the number of alignment rows that
    the network gets, unless there is no memory for so many. `read_seconds` is how long its files
    and components took to read when it was planned; a rank reads them again.
    """

    complex: Complex
    key: str
    num_tokens: int
    msa_depth: int
    read_seconds: float = field(default=0.0, compare=False)

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
    """A task that has no result, and why; `attempt` is the number of attempts made, 0 if it
    never could run.
    """

    task: Task
    attempt: int
    reason: str


Outcome = Done | Failed


@dataclass(frozen=True, slots=True)
class TaskList:
    """An input read to its end: what can be folded, what is no complex, and how many records
    repeat another.
    """

    tasks: tuple[Task, ...]
    invalid: tuple[InvalidComplex, ...]
    num_duplicates: int


def make_work(records: Iterable[Record], config: RunConfig, checkpoint: str) -> TaskList:
    """Tasks of the records, each content once, in the order of the input.

    `checkpoint` is the identity of the weights. What `make_task` refuses becomes an InvalidComplex. A
    terminal shows how far the reading has come, if it takes long.
    """
    tasks: dict[str, Task] = {}
    invalid: list[InvalidComplex] = []
    num_duplicates = 0
    for record in tqdm(
        records,
        "reading",
        unit=" complexes",
        delay=QUIET_SECONDS,
        leave=False,
        disable=None,
    ):
        try:
            task = make_task(record, config, checkpoint) if isinstance(record, Complex) else record
        except ValueError as error:
            task = InvalidComplex(
                record.name,
                str(error),
                record.title,
                record.organism,
                record.source,
                record.place,
                record.notes,
            )
        if isinstance(task, InvalidComplex):
            invalid.append(task)
        elif task.key in tasks:
            num_duplicates += 1
        else:
            tasks[task.key] = task
    return TaskList(tuple(tasks.values()), tuple(invalid), num_duplicates)


def smallest(work: TaskList, limit: int) -> TaskList:
    """The `limit` smallest tasks, in the order of the input, and nothing that could not be
    built; 0 is no limit.
    """
    if not limit:
        return work
    chosen = {task.key for task in sorted(work.tasks, key=lambda task: task.num_tokens)[:limit]}
    return TaskList(
        tuple(task for task in work.tasks if task.key in chosen),
        (),
        work.num_duplicates,
    )


def make_task(complex: Complex, config: RunConfig, checkpoint: str) -> Task:
    """The task of one complex, with the digests of its files as they are now.

    Raises ValueError naming the file or value that cannot be folded: an alignment that cannot be
    read or is of another chain, a template that cannot be read or lacks a chain, an unknown
    component, a constraint on an atom that does not exist.
    """
    started = perf_counter()
    with reading(f"complex {complex.name}"):
        alignments = read_alignments(complex, config)
        templates = read_templates(complex, config)
        check_constraints(complex)
        planned = replace(complex, digests={**alignments.digests, **templates})
        return Task(
            complex=planned,
            key=content_key(planned, result_settings(config), checkpoint),
            num_tokens=num_tokens(planned),
            msa_depth=alignments.depth,
            read_seconds=perf_counter() - started,
        )


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that change what is stored: not how the work is spread, how many samples run at
    once, or which kernels compute them.
    """
    model = {
        name: value
        for name, value in asdict(config.model).items()
        if name not in EXECUTION_SETTINGS
    }
    return {"model": model, "msa": asdict(config.msa), "write": sorted(config.write)}


def content_key(complex: Complex, settings: dict[str, Any], checkpoint: str) -> str:
    """SHA-256 over canonical JSON of the complex, the settings and the weights.

    The name counts, since results are found by it; title, organism and source do not. Alignments
    and templates count by their content (`Complex.digests`), so moving a file changes nothing and
    editing it does.
    """
    content = {
        "format": KEY_FORMAT + (BONDS_FORMAT if complex.bonds else 0),
        "name": complex.name,
        "chains": [_chain_content(chain, complex.digests) for chain in complex.chains],
        "bonds": [asdict(bond) for bond in complex.bonds],
        "pockets": [asdict(pocket) for pocket in complex.pockets],
        "contacts": [asdict(contact) for contact in complex.contacts],
        "templates": [
            {
                **{k: v for k, v in asdict(template).items() if k != "path"},
                "file": complex.digests[template.path],
            }
            for template in complex.templates
        ],
        "method": complex.method,
        "settings": settings,
        "checkpoint": checkpoint,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _chain_content(chain: Chain, digests: Mapping[Path, str]) -> dict[str, Any]:
    fields = (
        "name",
        "kind",
        "sequence",
        "accession",
        "cyclic",
        "modifications",
        "ccd",
        "smiles",
    )
    return {
        **{name: getattr(chain, name) for name in fields},
        "msa": digests[chain.msa] if chain.msa else "",
    }


def num_tokens(complex: Complex) -> int:
    """One token per residue of a polymer and one per heavy atom of a ligand."""
    if not any(chain.kind == "ligand" or chain.modifications for chain in complex.chains):
        return complex.num_residues
    from foldcp.features.tokens import tokenize  # reads the CCD, which most inputs never need

    return len(tokenize(complex).tokens.residue)
