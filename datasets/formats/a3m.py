"""Alignments as inputs: a monomer's a3m, and ColabFold's a3m of a whole complex.

The latter begins with the lengths of the different chains and their copies, `#20,9<TAB>1,1`. Its
rows hold the chains side by side: first those of several chains, then those of each chain with gaps
in place of the others (`msa_to_str` of https://github.com/sokrypton/ColabFold). Each chain takes
its columns when its alignment is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from foldcp.complex import Complex, chain_names
from foldcp.datasets.chains import check_num_chains, group_by_entity
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.fasta import protein_chain
from foldcp.datasets.parsing.text_files import join_names, stem
from foldcp.features.msa.parse import ComplexShape, Row, RowReader, complex_shape, parse_msas
from foldcp.files import reading

_SUFFIXES = (".a3m",)
_COMPLEX = re.compile(r"#\d+(?:,\d+)*\t\d+(?:,\d+)*\s*\n>")
# What must have been meant as such a first line.
_FIRST_LINE = re.compile(r"#\d+(?:,|\t|\s*$)", re.MULTILINE)
# HH-suite puts the secondary structure before the query.
_NO_QUERY = re.compile(rb"\s*(?:ss|sa|aa)_(?:pred|conf|dssp)\b")


def _recognises(file: InputFile) -> bool:
    return file.has_suffix(_SUFFIXES) or _COMPLEX.match(file.text) is not None


def _read(file: InputFile, options: ReadOptions) -> list[Complex]:
    """The complex, named after the file, which is the alignment of all of its chains.

    Raises ValueError naming the file and what is wrong with its first line or with its queries.
    """
    path = file.path
    if not file.has_suffix(_SUFFIXES):
        raise ValueError(f"{path}: an alignment is read from a file whose name ends in .a3m")
    with reading(str(path)):
        try:
            sequences = _sequences(file)
            check_num_chains(len(sequences))
            chains = [
                protein_chain(name, sequence, msa=path.absolute())
                for name, sequence in zip(chain_names(), sequences, strict=False)
            ]
            return [Complex(stem(path), group_by_entity(chains), source=path.name)]
        except ValueError as error:
            reason = str(error).removeprefix(f"alignment {path}: ")
            raise ValueError(f"{path}: {reason}") from error


def _sequences(file: InputFile) -> Sequence[str]:
    """The sequence of every chain."""
    data = file.text.encode()
    msas = parse_msas(file.path, data)
    shape = complex_shape(data)
    if shape is not None:
        return _of_shape(shape, msas)
    if _FIRST_LINE.match(file.text):
        first = file.text.partition("\n")[0][:80]
        raise ValueError(
            f"the first line is {first!r}; expected the lengths of the chains, a tab and their "
            "copies, such as #20,9 and 1,1"
        )
    queries = dict.fromkeys(_query(read_rows, "") for read_rows in msas)
    if len(queries) > 1:
        raise ValueError(
            f"holds alignments of {len(queries)} sequences, parted by NUL characters; a Boltz YAML "
            "file says which chains are one complex, and each may name this file as its msa"
        )
    return list(queries)


def _of_shape(shape: ComplexShape, msas: list[RowReader]) -> Sequence[str]:
    if len(shape.copies) != len(shape.lengths) or not all((*shape.lengths, *shape.copies)):
        raise ValueError(
            f"the first line has the lengths {join_names(shape.lengths)} and the copies "
            f"{join_names(shape.copies)}; expected one number of copies for each length, all above "
            "0"
        )
    check_num_chains(sum(shape.copies))
    of_chains = msas[1:] if len(shape.lengths) > 1 else msas
    if len(of_chains) != len(shape.lengths):
        raise ValueError("NUL characters part it, but its first line is that of one complex")
    sequences: list[str] = []
    for number, read_rows in enumerate(of_chains):
        query = _query(read_rows, f" of chain {number + 1}" if len(of_chains) > 1 else "")
        if len(query) != shape.lengths[number]:
            raise ValueError(
                f"the query has {len(query)} residues, but the first line says "
                f"{shape.lengths[number]}"
            )
        sequences += [query] * shape.copies[number]
    return sequences


def _query(read_rows: RowReader, of_chain: str) -> str:
    """The first sequence of an alignment, which is that of its chain."""
    row: Row | None = next(iter(read_rows()), None)
    if row is None:
        raise ValueError(f"there is no sequence{of_chain}")
    if _NO_QUERY.match(row.header):
        raise ValueError(
            f"begins with {row.header.decode('latin-1').split()[0]!r}, which is no sequence; "
            "remove what comes before the query"
        )
    query = row.text.decode("latin-1")
    if "-" in query or query != query.upper():
        raise ValueError(
            f"the query{of_chain}, its first sequence, has gaps or insertions (lower-case letters)"
        )
    return query


FORMAT = Format(
    "a3m", "alignment of a monomer or of ColabFold", _recognises, _read, _SUFFIXES, alone=True
)
