"""What the JSON job files of several programs have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcp.complex import Bond, Chain, Complex, Contact, InvalidComplex, Pocket, Record, Template
from foldcp.datasets.chains import group_by_entity
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.strict_yaml import (
    existing_file,
    items,
    mapping,
    positive_integer,
    string,
)
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.parsing.yaml_tree import Node, describe

JSON_SUFFIXES = (".json",)
_ALIGNMENTS = (".a3m", ".a3m.gz", ".a3m.xz")
_CODE = re.compile(r"[A-Za-z0-9-]{1,10}")


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file of jobs, and how the files that it names are found."""

    path: Path
    options: ReadOptions
    from_working_directory: bool = False  # for names that its own folder lacks

    def file(self, node: Node, location: str) -> Path:
        """A file that a job names."""
        return existing_file(
            node,
            location,
            self.path.parent,
            allow_outside=self.options.allow_outside,
            from_working_directory=self.from_working_directory,
        )

    def alignment(self, node: Node, location: str) -> Path:
        """An a3m file that a job names."""
        found = self.file(node, location)
        if not found.name.lower().endswith(_ALIGNMENTS):
            raise ValueError(
                f"{location}: {describe(node)} does not end in {', '.join(_ALIGNMENTS)}"
            )
        return found


@dataclass(frozen=True, slots=True)
class JobParts:
    """What a job says besides its name and its chains."""

    bonds: tuple[Bond, ...] = ()
    pockets: tuple[Pocket, ...] = ()
    contacts: tuple[Contact, ...] = ()
    templates: tuple[Template, ...] = ()
    notes: tuple[str, ...] = ()


def make_complex(name: str, chains: Iterable[Chain], parts: JobParts, job: JobFile) -> Complex:
    """The complex of a job; proteins of which it names no alignment have that of the options.

    Raises ValueError where copies of one protein have different alignments.
    """
    grouped = _with_found_msas(group_by_entity(chains), name, job.options.msas)
    shared: dict[str, Chain] = {}
    for chain in grouped:
        first = shared.setdefault(f"{chain.kind} {chain.sequence}", chain)
        if chain.sequence and _alignments(chain) != _alignments(first):
            raise ValueError(
                f"chains {first.name} and {chain.name}: copies of one {chain.kind} have different "
                "alignments"
            )
    return Complex(
        name,
        grouped,
        source=job.path.name,
        bonds=parts.bonds,
        pockets=parts.pockets,
        contacts=parts.contacts,
        templates=parts.templates,
        notes=(*parts.notes, *msa_notes(grouped)),
    )


def _alignments(chain: Chain) -> tuple[object, ...]:
    return chain.msa, chain.paired_msa, chain.single_sequence


def _with_found_msas(
    chains: tuple[Chain, ...], name: str, msas: MsaFolder | None
) -> tuple[Chain, ...]:
    if msas is None or all(any(_alignments(chain)) for chain in chains):
        return chains
    found = msas.with_msas(chains, [name])
    return tuple(
        chain if any(_alignments(chain)) else other
        for chain, other in zip(chains, found, strict=True)
    )


def read_modifications(
    node: Node, location: str, code_key: str, position_key: str, prefix: str = ""
) -> tuple[tuple[int, str], ...]:
    """(position from 1, CCD code) of a list of mappings with these keys; codes have a prefix."""
    found: dict[int, str] = {}
    for number, item in enumerate(items(node, location), start=1):
        place = f"{location}, entry {number}"
        entry = mapping(item, place, [code_key, position_key])
        position = positive_integer(entry[position_key], f"{place}, {position_key}")
        if position in found:
            raise ValueError(f"{place}: a second one at position {position}")
        found[position] = read_code(entry[code_key], f"{place}, {code_key}", prefix)
    return tuple(sorted(found.items()))


def read_code(node: Node, location: str, prefix: str = "") -> str:
    """A code of the Chemical Component Dictionary, after a prefix such as `CCD_`."""
    written = string(node, location)
    code = written.removeprefix(prefix)
    if not written.startswith(prefix) or not _CODE.fullmatch(code):
        raise ValueError(
            f"{location}: expected a CCD code such as {prefix}ATP, got {describe(written)}"
        )
    return code.upper()


def seeds_note(node: Node, location: str) -> tuple[str, ...]:
    """A note on seeds, which a run takes from its settings."""
    seeds = [string(seed, location) for seed in items(node, location)]
    return (f"seeds: {join_names(seeds, 5)} ignored, see model.seed",) if seeds else ()


def rna_msa_note(chains: Sequence[str]) -> tuple[str, ...]:
    """A note on the alignments of RNA, which the model does not use."""
    return (f"msa: the alignments of RNA {join_names(chains)} are not used",) if chains else ()


def is_set(entry: Mapping[str, Node], key: str) -> bool:
    """Whether a mapping has a value other than null for a key; "" is one."""
    return entry.get(key, "null") != "null"


def job_records(
    jobs: Iterable[tuple[str, Callable[[], Complex]]], job: JobFile
) -> Iterator[Record]:
    """The complex of each job of a file, by name, or why it is not valid."""
    for name, make in jobs:
        try:
            yield make()
        except ValueError as error:
            yield InvalidComplex(name, str(error), source=job.path.name)
