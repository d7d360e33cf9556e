"""Copy numbers of subunits, from a table of the user's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from foldcp.datasets.parsing.tables import Row, Table, read_table
from foldcp.datasets.parsing.text_files import join_names, read_text
from foldcp.files import MAX_BYTES

# More copies than this are a data-entry error: large capsids have some hundreds of one protein.
MAX_COPIES = 1000

# Keys of the columns, the first that a table has counts.
_COMPLEX = ("complex", "complexid", "complexac", "humap3id", "humap2id", "id", "name")
_ACCESSION = ("accession", "uniprot", "uniprotid", "subunitsuniprotids", "protein", "subunit")
_COPIES = ("copies", "copynumber", "stoichiometry", "count")


@dataclass(frozen=True, slots=True)
class CopyNumbers:
    """Copies of the subunits of complexes, by name of the complex and accession."""

    path: Path
    by_complex: Mapping[str, Mapping[str, int]]

    def of(self, complex: str) -> Mapping[str, int]:
        """The copies of the subunits of a complex that the table names."""
        return self.by_complex.get(complex, {})

    def unmatched(self, subunits: Mapping[str, frozenset[str] | None]) -> list[str]:
        """What the table names and an input has not: complexes, and subunits as `1 (P12345)`.

        `subunits` holds the accessions of each complex of the input, None where a row is damaged.
        Raises ValueError when nothing of the table is in the input.
        """
        missing: list[str] = []
        num_matches = 0
        for name, copies in self.by_complex.items():
            if name not in subunits:
                missing.append(name)
                continue
            accessions = subunits[name]
            absent = [] if accessions is None else [key for key in copies if key not in accessions]
            missing.extend(f"{name} ({accession})" for accession in absent)
            num_matches += len(copies) - len(absent)
        if not num_matches:
            raise ValueError(
                f"{self.path}: the input has none of its complexes and accessions: "
                f"{join_names(missing, 5)}"
            )
        return missing


def read_copy_numbers(path: Path, max_bytes: int = MAX_BYTES) -> CopyNumbers:
    """The copy numbers of a table with a column each for the complex, the accession and the copies.

    Raises ValueError naming the file, and the row where one is at fault.
    """
    table = read_table(path, read_text(path, max_bytes))
    columns = [_column(table, names) for names in (_COMPLEX, _ACCESSION, _COPIES)]
    table.check(columns)
    by_complex: dict[str, dict[str, int]] = {}
    for row, (name, accession, copies) in _cells(table, columns):
        if not copies.isascii() or not copies.isdigit() or not 1 <= int(copies[:9]) <= MAX_COPIES:
            raise ValueError(
                f"{path}: row {row.number}: {copies[:40]!r} copies of {accession}; expected a "
                f"number from 1 to {MAX_COPIES}"
            )
        known = by_complex.setdefault(name, {})
        if known.setdefault(accession, int(copies)) != int(copies):
            raise ValueError(
                f"{path}: row {row.number}: two copy numbers of {accession} in complex {name!r}"
            )
    return CopyNumbers(path, by_complex)


def _cells(table: Table, columns: list[str]) -> Iterator[tuple[Row, list[str]]]:
    for row in table.rows():
        cells = [row.get(column) for column in columns]
        for column, cell in zip(columns, cells, strict=True):
            if not cell:
                raise ValueError(f"{table.path}: row {row.number}: no value for {column!r}")
        name, accession, copies = cells
        yield row, [name, accession.upper(), copies.removesuffix(".0")]


def _column(table: Table, names: tuple[str, ...]) -> str:
    for name in names:
        if name in table.keys:
            return name
    found = ", ".join(table.columns)[:200]
    raise ValueError(f"{table.path}: no column {names[0]!r}; its columns are {found!r}")
