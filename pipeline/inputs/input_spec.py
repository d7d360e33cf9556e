"""The input of a run, as the command names it, and the complexes in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foldcp.complex import Complex, Record
from foldcp.datasets.format import ReadOptions
from foldcp.datasets.formats.fasta import FOLDED_ALONE
from foldcp.datasets.msas import open_msas
from foldcp.datasets.reader import read
from foldcp.datasets.templates import open_templates
from foldcp.files import MAX_BYTES
from foldcp.pipeline.fetch import cache_folder, find_weights
from foldcp.pipeline.inputs.filters import chosen, criteria
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.shard import Shard


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The input as the command names it: files, weights, and a choice of complexes.

    `checkpoint` may be the name of fetched weights, such as `boltz2`, and is their path from then
    on; ValueError when they do not exist. `limit` takes the smallest complexes, 0 is all. `shard`
    is the part of the input that is meant, None the whole.
    `warnings` are lines for the user about the input, which reading it adds.
    """

    input: Path
    options: InputOptions = field(default_factory=InputOptions)
    checkpoint: str = ""
    limit: int = 0
    max_bytes: int = MAX_BYTES  # of the input and of the sequences, unpacked
    shard: Shard | None = None
    warnings: list[str] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", find_weights(self.checkpoint))  # the class is frozen


def records(spec: InputSpec, left_out: set[str] | None = None) -> Iterator[Record]:
    """The records of the input that the options choose; ValueError when there are none.

    Names of records that are not chosen are added to `left_out`.
    """
    found = chosen(
        read(spec.input, read_options(spec)),
        spec.options,
        set() if left_out is None else left_out,
        spec.warnings.append,
        spec.max_bytes,
    )
    first = next(found, None)
    if first is None:
        words = criteria(spec.options)
        raise ValueError(f"{spec.input}: no complex{words and ' of ' + words}")
    return itertools.chain([first], found)


def read_options(spec: InputSpec) -> ReadOptions:
    """What the reader is told. Raises ValueError for a folder of alignments that does not exist."""
    options = spec.options
    return ReadOptions(
        sequences=options.sequences,
        msas=open_msas(options.msas) if options.msas else None,
        templates=open_templates(options.templates) if options.templates else None,
        format=options.format,
        isoforms=options.isoforms,
        stoichiometry=options.stoichiometry,
        secondary_accessions=options.secondary_accessions,
        uniprot=cache_folder() / "uniprot" if options.uniprot else None,
        proteins_only=options.proteins_only,
        all_against_all=options.all_against_all,
        baits=options.baits,
        homodimers=not options.no_homodimers,
        allow_outside=options.allow_outside,
        max_bytes=spec.max_bytes,
        warn=spec.warnings.append,
    )


def only_complex(spec: InputSpec) -> Complex:
    """The complex of an input that holds one; ValueError when it is invalid or there are more."""
    found = list(itertools.islice(records(spec), 2))
    if len(found) > 1:
        is_alone = any(
            isinstance(record, Complex) and FOLDED_ALONE in record.notes for record in found
        )
        hint = "; the chains of one complex are joined by ':'" if is_alone else ""
        raise ValueError(f"{spec.input}: holds several complexes; `foldcp score` folds them{hint}")
    record = found[0]
    if not isinstance(record, Complex):
        raise ValueError(f"{spec.input}: {record.name}: {record.reason}")
    return record
