"""A complex written as another tool's input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from foldcp.complex import Chain, Complex
from foldcp.datasets.chains import group_by_entity
from foldcp.features.msa.parse import complex_shape, decode_plain
from foldcp.files import FileSource, read_file, unpacked_name


@dataclass(frozen=True, slots=True)
class Written:
    """The text of an input, the files that belong beside it by name, and what it leaves out."""

    text: str
    files: Mapping[str, FileSource] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def runs_of_copies(
    chains: Iterable[Chain], extra: Mapping[str, object]
) -> list[tuple[Chain, list[str]]]:
    """Successive chains that differ in nothing but their names, each run with its names.

    `extra` has, by name, what else must be equal.
    """
    runs: list[tuple[Chain, list[str]]] = []
    for chain in chains:
        if (
            runs
            and _is_copy(runs[-1][0], chain)
            and extra.get(runs[-1][0].name) == extra.get(chain.name)
        ):
            runs[-1][1].append(chain.name)
        else:
            runs.append((chain, [chain.name]))
    return runs


def _is_copy(first: Chain, other: Chain) -> bool:
    return replace(first, name=other.name) == other


def check_alignments(complex: Complex) -> None:
    """Raise ValueError for the alignment of a whole complex, of which each chain takes its columns:
    other programs read it as that of a single chain.
    """
    for source, chain in {chain.msa: chain.name for chain in complex.chains[::-1]}.items():
        if source is None or unpacked_name(source.name).endswith(".csv"):
            continue
        shape = complex_shape(decode_plain(read_file(source).data))
        if shape is not None and len(shape.lengths) > 1:
            raise ValueError(
                f"complex {complex.name}: chain {chain}: {source} is the alignment of a whole "
                "complex"
            )


def common_notes(complex: Complex) -> list[str]:
    """What none of the formats can say."""
    notes = []
    if complex.title or complex.organism or any(chain.accession for chain in complex.chains):
        notes.append("titles, organisms and accessions are left out")
    if complex.method:
        notes.append(f"the method {complex.method!r} is left out")
    if group_by_entity(complex.chains) != complex.chains:
        notes.append("copies of one molecule are side by side when it is read again")
    return notes


def without_alignment(complex: Complex) -> list[str]:
    """Names of the proteins of which nothing says that they have no alignment on purpose."""
    return [
        chain.name
        for chain in complex.chains
        if chain.kind == "protein" and not (chain.msa or chain.paired_msa or chain.single_sequence)
    ]
