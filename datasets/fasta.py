"""How do bare sequences become complexes? FASTA and ColabFold's CSV: one record, one complex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foldcp.complex import Chain, Complex, Record, Unbuildable, chain_names
from foldcp.datasets.chains import by_molecule
from foldcp.datasets.msas import MsaFolder, msa_comment
from foldcp.datasets.sequences import accession_of, fasta_records, normalised
from foldcp.datasets.tables import Table

COLABFOLD = frozenset({"id", "sequence"})
# From this length on, a sequence of all of A, C, G and T and nothing else is taken for DNA.
_DNA_LENGTH = 20


def fasta(path: Path, text: str, msas: MsaFolder | None) -> Iterator[Record]:
    """A complex for each record of a FASTA text, its chains joined by `:`, its name the accession.

    Raises ValueError at once for a text that does not start with a header.
    """
    records = list(fasta_records(path, text))
    return (_fasta_record(number, *record, path.name, msas) for number, record in enumerate(records, start=1))


def _fasta_record(number: int, header: str, body: str, source: str, msas: MsaFolder | None) -> Record:
    name = accession_of(header)
    title = header.partition(" ")[2].strip()
    return _record(name or f"record {number}", title, body, source, msas, name)


def colabfold(table: Table, msas: MsaFolder | None) -> Iterator[Record]:
    """A complex for each row of a table with the columns `id` and `sequence`, its chains joined by `:`."""
    for row in table.rows():
        name = row.get("id") or f"row {row.number}"
        if row.num_cells != row.num_columns:
            reason = f"row {row.number} has {row.num_cells} columns, the table {row.num_columns}"
            yield Unbuildable(name, reason, source=table.path.name)
        else:
            yield _record(name, "", row.get("sequence"), table.path.name, msas, "")


def _record(name: str, title: str, sequence: str, source: str, msas: MsaFolder | None, accession: str) -> Record:
    parts = [normalised(part) for part in sequence.split(":")]
    if len(parts) > 1:
        accession = ""  # the header names the complex, not its chains
    try:
        chains = by_molecule(
            _protein(chain, part, accession, msas) for chain, part in zip(chain_names(), parts, strict=False)
        )
        return Complex(name, chains, title, source=source, comment=msa_comment(chains))
    except ValueError as error:
        return Unbuildable(name, str(error), title, source=source)


def _protein(name: str, sequence: str, accession: str, msas: MsaFolder | None) -> Chain:
    letters = set(sequence)
    if len(sequence) >= _DNA_LENGTH and (letters == set("ACGT") or letters == set("ACGU")):
        raise ValueError(f"chain {name}: the letters are those of a nucleic acid; a Boltz YAML file can say so")
    return Chain(name, "protein", sequence, accession, msas.find(sequence, [accession]) if msas else None)
