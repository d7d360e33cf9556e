"""Tasks: the different complexes of an input, each with the key of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from tqdm import tqdm

from foldcp.complex import Complex, InvalidComplex, Record, as_invalid
from foldcp.files import reading
from foldcp.pipeline.config import RunConfig, WriteConfig
from foldcp.pipeline.inputs.content_key import ContentKeys
from foldcp.pipeline.inputs.validation import (
    check_constraints,
    read_alignments,
    read_templates,
)

PROGRESS_DELAY = 3.0  # seconds before a progress bar shows that the input is being read


@dataclass(frozen=True, slots=True)
class Task:
    """A complex to fold.

    `key` identifies its result; `msa_depth` is the number of MSA rows that the network gets, unless
    there is no memory for so many. `read_seconds` is how long its files and components took to read
    when it was planned; a rank reads them again. `write` says which files its result is to have.
    """

    complex: Complex
    key: str
    num_tokens: int
    msa_depth: int
    read_seconds: float = field(default=0.0, compare=False)
    write: WriteConfig = field(default=WriteConfig(), compare=False)

    @property
    def name(self) -> str:
        """The complex's name."""
        return self.complex.name


@dataclass(frozen=True, slots=True)
class Done:
    """A task whose result was computed by attempt number `attempt`, from 1."""

    task: Task
    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A task without a result, and the reason; `attempt` is the number of attempts made, 0 if it
    could not be run at all.
    """

    task: Task
    attempt: int
    reason: str


Outcome = Done | Failed


@dataclass(frozen=True, slots=True)
class TaskList:
    """An input read to its end: tasks, invalid records, and the number of records that repeat
    another.
    """

    tasks: tuple[Task, ...]
    invalid: tuple[InvalidComplex, ...]
    num_duplicates: int


def make_task_list(
    records: Iterable[Record],
    config: RunConfig,
    checkpoint: str,
    alignments_follow: bool = False,
    on_first: Callable[[], None] | None = None,
) -> TaskList:
    """Tasks of the records, each content once, in the order of the input.

    `checkpoint` is the identity of the weights; `alignments_follow` is as in `TaskMaker`. What that
    refuses becomes an InvalidComplex. `on_first` is called when the first task is made.
    A terminal shows a progress bar, if reading takes long.
    """
    maker = TaskMaker(config, checkpoint, alignments_follow)
    tasks: dict[str, Task] = {}
    invalid: list[InvalidComplex] = []
    num_duplicates = 0
    for record in tqdm(
        records,
        "reading",
        unit=" complexes",
        delay=PROGRESS_DELAY,
        leave=False,
        disable=None,
    ):
        if isinstance(record, InvalidComplex):
            invalid.append(record)
            continue
        try:
            task = maker.make(record)
        except ValueError as error:
            invalid.append(as_invalid(record, str(error)))
            continue
        if on_first and not tasks:
            on_first()
        if task.key in tasks:
            num_duplicates += 1
        else:
            tasks[task.key] = task
    return TaskList(tuple(tasks.values()), tuple(invalid), num_duplicates)


def smallest(task_list: TaskList, limit: int) -> TaskList:
    """The `limit` smallest tasks, in the order of the input, without invalid records; 0 is no
    limit.
    """
    if not limit:
        return task_list
    by_size = sorted(task_list.tasks, key=lambda task: task.num_tokens)
    chosen = {task.key for task in by_size[:limit]}
    tasks = tuple(task for task in task_list.tasks if task.key in chosen)
    return TaskList(tasks, (), task_list.num_duplicates)


def make_task(complex: Complex, config: RunConfig, checkpoint: str) -> Task:
    """The task of one complex, see `TaskMaker`."""
    return TaskMaker(config, checkpoint).make(complex)


def require_task(input: Path, task_list: TaskList) -> None:
    """Raise ValueError, with the first reason, when no complex of an input can be built."""
    if not task_list.tasks:
        first = task_list.invalid[0]
        raise ValueError(f"{input}: no complex can be built; {first.name}: {first.reason}")


class TaskMaker:
    """What makes the tasks of a run's complexes; what they share is made once.

    `checkpoint` is the identity of the weights. With `alignments_follow`, this is but a plan, in
    which a protein that lacks an alignment counts as one with as many rows as are read.
    """

    def __init__(self, config: RunConfig, checkpoint: str, alignments_follow: bool = False) -> None:
        self.config = config
        self.alignments_follow = alignments_follow
        self._keys = ContentKeys(config, checkpoint)

    def make(self, complex: Complex) -> Task:
        """The task of a complex, with the digests of its files as they are now.

        Raises ValueError naming the file or value that cannot be folded: a protein that lacks an
        alignment, an alignment that cannot be read or is of another chain, a template that cannot
        be read or lacks a chain, an unknown component, a constraint on an atom that does not exist.
        """
        started = perf_counter()
        with reading(f"complex {complex.name}"):
            alignments = read_alignments(complex, self.config, self.alignments_follow)
            digests = {**alignments.digests, **read_templates(complex, self.config)}
            check_constraints(complex)
            planned = replace(complex, digests=digests) if digests else complex
            return Task(
                complex=planned,
                key=self._keys.key(planned),
                num_tokens=num_tokens(planned),
                msa_depth=alignments.depth,
                read_seconds=perf_counter() - started,
                write=self.config.write,
            )


def num_tokens(complex: Complex) -> int:
    """One token per residue of a polymer and one per heavy atom of a ligand or a modified
    residue.
    """
    if not any(chain.kind == "ligand" or chain.modifications for chain in complex.chains):
        return complex.num_residues
    from foldcp.features.tokens import (
        tokenize,
    )  # reads the CCD, which most inputs never need

    return len(tokenize(complex).tokens.residue)
