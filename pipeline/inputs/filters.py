"""The choice of complexes by organism, name and size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from foldcp.complex import Complex, Record
from foldcp.datasets.parsing.text_files import join_names, read_text
from foldcp.files import MAX_BYTES
from foldcp.pipeline.inputs.input_options import InputOptions
from foldcp.pipeline.inputs.organisms import is_of_organism


def chosen(
    records: Iterable[Record],
    options: InputOptions,
    left_out: set[str],
    warn: Callable[[str], None],
    max_bytes: int = MAX_BYTES,
) -> Iterator[Record]:
    """The records that the options choose; the names of the others are added to `left_out`.

    A record that is no valid complex has no size and is left out by name and organism only.

    Raises:
        ValueError: at once for a least size above the largest and for a file of names that cannot
            be read; after the last record for names of `--id` that no record has. Those of the file
            that no record has are a warning.
    """
    _check_range("chains", options.min_chains, options.max_chains)
    _check_range("residues", options.min_residues, options.max_residues)
    listed = read_names(options.ids_file, max_bytes) if options.ids_file else ()
    return _chosen(records, options, listed, left_out, warn)


def criteria(options: InputOptions) -> str:
    """What the options choose, in words; an empty text if they choose all."""
    sizes = [
        f"{bound} {number:,} {what}"
        for bound, number, what in (
            ("at least", options.min_chains, "chains"),
            ("at most", options.max_chains, "chains"),
            ("at least", options.min_residues, "residues"),
            ("at most", options.max_residues, "residues"),
        )
        if number
    ]
    organism = [f"organism {options.organism!r}"] if options.organism else []
    names = [f"a name in {options.ids_file}"] if options.ids_file else []
    return ", ".join([*organism, *names, *sizes])


def read_names(path: Path, max_bytes: int = MAX_BYTES) -> tuple[str, ...]:
    """The names in a file, one on each line; blank lines count nowhere."""
    lines = (line.strip() for line in read_text(path, max_bytes).split("\n"))
    return tuple(dict.fromkeys(line for line in lines if line))


def _chosen(
    records: Iterable[Record],
    options: InputOptions,
    listed: tuple[str, ...],
    left_out: set[str],
    warn: Callable[[str], None],
) -> Iterator[Record]:
    wanted = {*options.ids, *listed}
    found: set[str] = set()
    for record in records:
        found |= {record.name} & wanted
        is_named = record.name in wanted or not wanted
        is_wanted = is_named and is_of_organism(record.organism, options.organism)
        if is_wanted and _has_size(record, options):
            yield record
        else:
            left_out.add(record.name)
    if missing := [name for name in options.ids if name not in found]:
        raise ValueError(f"--id: the input has no complex named {join_names(missing)}")
    if missing := [name for name in listed if name not in found]:
        warn(
            f"{options.ids_file}: {len(missing):,} of {len(listed):,} names are not in the input: "
            f"{join_names(missing, 5)}"
        )


def _has_size(record: Record, options: InputOptions) -> bool:
    if not isinstance(record, Complex):
        return True
    num_chains = len(record.chains)
    num_residues = record.num_residues
    return (
        num_chains >= options.min_chains
        and (not options.max_chains or num_chains <= options.max_chains)
        and num_residues >= options.min_residues
        and (not options.max_residues or num_residues <= options.max_residues)
    )


def _check_range(what: str, least: int, most: int) -> None:
    if most and least > most:
        raise ValueError(f"--min-{what} {least} is above --max-{what} {most}")
