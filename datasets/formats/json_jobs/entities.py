"""Molecules of a job as AlphaFold's server and Protenix write them: one entry for all copies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from foldcp.complex import Chain, Complex, Kind, Record
from foldcp.datasets.chains import check_num_chains
from foldcp.datasets.format import InputFile
from foldcp.datasets.formats.json_jobs.job import JobFile, job_records, read_modifications
from foldcp.datasets.parsing.strict_yaml import (
    items,
    mapping,
    positive_integer,
    single_entry,
    string,
    strings,
)
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.datasets.sequences import normalize
from foldcp.files import reading

CCD = "CCD_"
POLYMERS: Mapping[str, Kind] = {
    "proteinChain": "protein",
    "dnaSequence": "dna",
    "rnaSequence": "rna",
}
KINDS = (*POLYMERS, "ligand", "ion")


@dataclass(frozen=True, slots=True)
class Entity:
    """An entry of `sequences`: its key, its values, and the names of its copies."""

    key: str
    location: str
    entry: Mapping[str, Node]
    names: tuple[str, ...]


def read_entities(
    node: Node, known: Mapping[str, Collection[str]], names: Iterator[str]
) -> list[Entity]:
    """The entries of `sequences`, their copies named by `id` or else by the next of `names`.

    `known` has the optional keys of each kind of entry.
    """
    found: list[tuple[str, str, dict[str, Node], int]] = []
    for number, item in enumerate(items(node, "sequences"), start=1):
        key, value = single_entry(item, f"sequences, entry {number}", KINDS)
        location = f"sequences, entry {number} ({key})"
        required = "sequence" if key in POLYMERS else key
        entry = mapping(value, location, [required, "count"], known[key])
        found.append((key, location, entry, positive_integer(entry["count"], f"{location}, count")))
    check_num_chains(sum(count for *_, count in found))
    given = [_given_names(entry, location, count) for _, location, entry, count in found]
    taken = {name for group in given for name in group}
    free = (name for name in names if name not in taken)
    return [
        Entity(key, location, entry, group or tuple(next(free) for _ in range(count)))
        for (key, location, entry, count), group in zip(found, given, strict=True)
    ]


def _given_names(entry: Mapping[str, Node], location: str, count: int) -> tuple[str, ...]:
    if "id" not in entry:
        return ()
    names = strings(entry["id"], f"{location}, id")
    if len(names) != count:
        raise ValueError(f"{location}: {len(names)} in id, but count is {count}")
    return names


def polymer(entity: Entity) -> Chain:
    """The first copy of a polymer, without alignments."""
    entry = entity.entry
    location = entity.location
    keys = ("ptmType", "ptmPosition")
    if entity.key != "proteinChain":
        keys = ("modificationType", "basePosition")
    return Chain(
        entity.names[0],
        POLYMERS[entity.key],
        normalize(string(entry["sequence"], f"{location}, sequence")),
        modifications=read_modifications(
            entry.get("modifications", []), f"{location}, modifications", *keys, prefix=CCD
        ),
    )


def listed_jobs(file: InputFile) -> list[Node]:
    """The list that a JSON file of jobs is, an empty one for any other file."""
    if not file.text.lstrip().startswith("[") or '"sequences"' not in file.text:
        return []
    jobs = file.json
    return jobs if isinstance(jobs, list) else []


def read_jobs(
    file: InputFile, job: JobFile, make: Callable[[Node, JobFile, int], Complex]
) -> Iterator[Record]:
    """The complexes of a list of jobs, each made of its node and its number from 1.

    Raises ValueError naming the file for one that is no list of jobs.
    """
    with reading(str(file.path)):
        tree = file.json
        try:
            jobs = _expect_jobs(tree)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error
    return job_records(
        (
            (_job_name(node, number), partial(make, node, job, number))
            for number, node in enumerate(jobs, start=1)
        ),
        job,
    )


def _job_name(node: Node, number: int) -> str:
    """The name of a job for messages: its own, or its number in the file."""
    name = node.get("name", "") if isinstance(node, dict) else ""
    return name if isinstance(name, str) and name else f"job {number}"


def _expect_jobs(node: Node | None) -> list[Node]:
    """The list of jobs that a file must be."""
    if not isinstance(node, list):
        got = "nothing of JSON" if node is None else describe(node)
        raise ValueError(f"expected a list of jobs, got {got}")
    if not node:
        raise ValueError("the list of jobs is empty")
    return node
