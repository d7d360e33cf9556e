"""Reader of complexes, whatever the format of the input.

    from foldcp.datasets.reader import read

    options = ReadOptions(sequences=(Path("uniprot.fasta.gz"),))
    for record in read(Path("allComplexes.txt"), options):
        print(record.name, record.reason if isinstance(record, InvalidComplex) else "valid")

To add a format, write a module in `formats/` that defines a `Format` and add it to `FORMATS`:
error messages, the command line's help and the search of folders follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from foldcp.complex import UNIPROT, InvalidComplex, Record, as_invalid
from foldcp.datasets.format import Format, InputFile, ReadOptions, has_suffix
from foldcp.datasets.formats import (
    a3m,
    boltz_fasta,
    boltz_yaml,
    chai,
    colabfold,
    complex_portal,
    corum,
    fasta,
    humap,
)
from foldcp.datasets.formats.json_jobs import alphafold3, alphafold_server, openfold3, protenix
from foldcp.datasets.formats.screens import alphapulldown, pairs
from foldcp.datasets.formats.screens.screen import read_screen
from foldcp.datasets.parsing.text_files import escape_path, in_a_line, is_unicode, read_text, stem
from foldcp.datasets.templates import TemplateFolder
from foldcp.files import reading

# The first that recognises a file reads it.
FORMATS = (
    a3m.FORMAT,
    corum.JSON_FORMAT,
    alphafold3.FORMAT,
    openfold3.FORMAT,
    protenix.FORMAT,
    alphafold_server.FORMAT,
    boltz_yaml.FORMAT,
    boltz_fasta.FORMAT,
    chai.FORMAT,
    fasta.FORMAT,
    corum.FORMAT,
    complex_portal.FORMAT,
    humap.FORMAT_3,
    humap.FORMAT_2,
    pairs.FORMAT,
    colabfold.FORMAT,
    alphapulldown.FORMAT,
)
FORMAT_NAMES = ", ".join(known.name for known in FORMATS)
# For help and errors: the names that --format takes, and what they are.
_NAMED_FORMATS = ", ".join(f"{known.name} ({known.description})" for known in FORMATS)
KNOWN_FORMATS = (
    f"{_NAMED_FORMATS}, or a folder of FASTA, YAML and JSON files, or of a3m files alone"
)
# Of the files that are read from a folder; those of the first that it has.
_FOLDER_SUFFIXES = [
    tuple(dict.fromkeys(end for known in FORMATS if known.alone == alone for end in known.suffixes))
    for alone in (False, True)
]
DEFAULTS = ReadOptions()
_PAGE = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype html|html)\b", re.IGNORECASE)
_MAX_REASON = 2_000  # characters of a reason


def read(path: Path, options: ReadOptions = DEFAULTS) -> Iterator[Record]:
    """The complexes of an input, in its order, numbered (`index`) from 0.

    The content tells the format, see `FORMATS`, unless `options.format` does; of a table, the names
    of its columns do. A record that is not a valid complex is an `InvalidComplex` with its reason.
    Only regular files are read; gzip and xz are unpacked.

    Args:
        path: a file, or a folder of YAML, JSON and FASTA files, or of a3m files alone. With
            `options.format`, it is a folder of files of that format.
        options: what the user says besides the input.

    Raises:
        ValueError: at once, in a line with the file and the value, for a file of unknown format,
            without content or with a single complex that is invalid, for missing sequences, and
            for other files of `options` that cannot be used. In a folder, an invalid file is an
            `InvalidComplex` like an invalid row of a table.
    """
    is_screen = options.all_against_all or options.baits is not None
    if not (is_screen or options.homodimers):
        raise ValueError("--no-homodimers is for a screen; add --all-against-all or --baits")
    for named in (path, *options.sequences):
        if not is_unicode(str(named)):
            raise ValueError(f"{escape_path(named)}: the name is not valid UTF-8; rename it")
    with _errors_in_a_line(), reading(str(path)):
        if is_screen:
            records = read_screen(path, options)
        else:
            records = _read_folder(path, options) if path.is_dir() else _read_file(path, options)
    if options.templates is not None:
        records = _with_templates(records, options.templates)
    return _numbered(_without_duplicates(_with_names_in_a_line(records)))


def _read_file(path: Path, options: ReadOptions) -> Iterable[Record]:
    is_a3m = a3m.FORMAT.name == options.format or has_suffix(path, a3m.FORMAT.suffixes)
    file = InputFile(path, read_text(path, options.max_bytes, keep_nul=is_a3m))
    if _PAGE.match(file.text):
        raise ValueError(
            f"{path}: a web page, not data; CORUM's old links serve one (`foldcp fetch corum` "
            "downloads the data)"
        )
    if options.format:
        return _read_as(_format_named(options.format), file, options)
    for known in FORMATS:
        if known.recognises(file):
            return known.read(file, options)
    if {"key", "sequence"} <= set(file.table.keys):
        raise ValueError(
            f"{path}: an alignment (key,sequence); give the folder that holds it with --msas"
        )
    if all(re.fullmatch(UNIPROT, name) for name in file.text.split()):
        raise ValueError(
            f"{path}: a list of accessions names no complexes; --all-against-all or --baits makes "
            "a screen of it"
        )
    columns = ", ".join(file.table.columns)[:200]
    raise ValueError(f"{path}: not an input ({KNOWN_FORMATS}); its columns are {columns!r}")


def _read_as(named: Format, file: InputFile, options: ReadOptions) -> Iterable[Record]:
    """The records of a file that the user says is of this format."""
    try:
        return named.read(file, options)
    except ValueError as error:
        likely = _likely_format(file)
        if likely in ("", named.name):
            raise
        raise ValueError(
            f"{error}; read as --format {named.name}, but it looks like {likely}"
        ) from error


def _likely_format(file: InputFile) -> str:
    """The name of the format that the content tells; "" for none, or where it is damaged."""
    try:
        return next((known.name for known in FORMATS if known.recognises(file)), "")
    except ValueError:
        return ""


def _format_named(name: str) -> Format:
    for known in FORMATS:
        if known.name == name:
            return known
    raise ValueError(f"unknown format {name!r}; known: {_NAMED_FORMATS}")


def _read_folder(path: Path, options: ReadOptions) -> Iterable[Record]:
    groups = _FOLDER_SUFFIXES
    if options.format:
        groups = [_format_named(options.format).suffixes]
        if not groups[0]:
            raise ValueError(f"{path}: is a folder; --format {options.format} reads a file")
    # Hidden files are not the user's: macOS leaves a binary `._a.yaml` beside each `a.yaml`.
    visible = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    for suffixes in groups:
        if files := [file for file in visible if has_suffix(file, suffixes)]:
            return _read_files(files, replace(options, sequences=()))
    known = ", ".join(chain.from_iterable(groups))
    raise ValueError(f"{path}: the folder has no file that ends in {known}")


def _read_files(files: list[Path], options: ReadOptions) -> Iterator[Record]:
    for file in files:
        try:
            if not is_unicode(file.name):
                raise ValueError(
                    f"{escape_path(file)}: the file's name is not valid UTF-8; rename it"
                )
            with reading(str(file)):
                yield from _read_file(file, options)
        except ValueError as error:
            yield InvalidComplex(escape_path(stem(file)), str(error), source=escape_path(file.name))


def _with_templates(records: Iterable[Record], folder: TemplateFolder) -> Iterator[Record]:
    """The records with templates by their sequences; invalid where those cannot be read."""
    for record in records:
        if isinstance(record, InvalidComplex):
            yield record
            continue
        try:
            yield folder.with_templates(record)
        except ValueError as error:
            yield as_invalid(record, str(error))


def _with_names_in_a_line(records: Iterable[Record]) -> Iterator[Record]:
    """The records; line ends in a name, which JSON and quoted cells may hold, become spaces."""
    for record in records:
        name = in_a_line(record.name)
        yield record if name == record.name else replace(record, name=name)


def _without_duplicates(records: Iterable[Record]) -> Iterator[Record]:
    """The records; of those with the same name all but the first are invalid for that reason."""
    names: set[str] = set()
    for record in records:
        if record.name in names:
            yield as_invalid(record, f"an earlier record is named {record.name!r} too")
        else:
            names.add(record.name)
            yield record


def _numbered(records: Iterable[Record]) -> Iterator[Record]:
    """The records with their indices; reasons are a line, cut to what a cell of a table shows."""
    with _errors_in_a_line():
        for index, record in enumerate(records):
            if isinstance(record, InvalidComplex):
                reason = record.reason if is_unicode(record.reason) else escape_path(record.reason)
                yield replace(record, index=index, reason=in_a_line(reason)[:_MAX_REASON])
            elif record.index == index:  # as the readers of screens number them
                yield record
            else:
                yield replace(record, index=index)


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Write errors in a line: names and values of the input may hold line ends."""
    try:
        yield
    except ValueError as error:
        text = in_a_line(str(error))
        if text == str(error):
            raise
        raise ValueError(text) from error
