"""The pages of docs/ that are made from the code: outputs.md and settings.md.

    python docs/generate.py

writes them; `tests/test_docs.py` compares the files with what is written here.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterable
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.storage.parquet import arrow_schema
from foldcp.pipeline.storage.schemas import TABLES, Column, Table

DOCS = Path(__file__).resolve().parent

OUTPUTS = """\
# Columns of the tables

<!-- Written by docs/generate.py from pipeline/storage/schemas.py. -->

`RUN/tables/<table>/<table>.parquet` holds the tables of a run; [results.md](results.md) says how to
read them and when rows appear. Unit and meaning of every column are also in the metadata of the
Parquet schema (`pyarrow.parquet.read_schema(file).field("iptm").metadata`). A column marked with
`?` may be null.
"""

SETTINGS = """\
# Settings

<!-- Written by docs/generate.py from pipeline/config.py. -->

Every setting of `foldcp plan`, `score` and `fold`, with its default. A YAML file changes some of
them, `--set` single ones after it. Unknown keys and values out of range are refused in one line.

    foldcp score INPUT --out RUN --config settings.yaml --set model.samples=5 --set write=boltz,pae

    # settings.yaml
    model:
      samples: 5
      precision: bf16
    msa:
      corrected: true

`configs/run/` has two such files: `quick.yaml`, a first look, and `many_samples.yaml`, more passes
and structures. Settings under `model` and `msa`, and `write`, are part of the key of a result:
another value is another result. Those under `run` and `limits`, and `model.parallel_samples`,
change no result.
"""

KINDS = {int: "integer", float: "number", bool: "true or false", str: "text"}


def outputs() -> str:
    """docs/outputs.md: the columns of every table."""
    return OUTPUTS + "".join(map(_table_section, TABLES.values()))


def _table_section(table: Table) -> str:
    order = ", ".join(f"`{name}`" for name in table.order)
    schema = arrow_schema(table)
    rows = [_column_row(column, str(schema.field(column.name).type)) for column in table.columns]
    columns = _markdown_table(("column", "type", "unit", "meaning"), rows)
    return f"\n## {table.name}\n\n{table.description} Sorted by {order}.\n\n{columns}"


def _column_row(column: Column, arrow_type: str) -> tuple[str, ...]:
    mark = "?" if column.optional else ""
    return f"`{column.name}`{mark}", arrow_type, column.unit, column.description


def settings() -> str:
    """docs/settings.md: every key of a file of settings."""
    text = SETTINGS + _settings_section("Top level", RunConfig, "")
    for name, section in get_type_hints(RunConfig).items():
        if is_dataclass(section):
            text += _settings_section(f"`{name}`", section, f"{name}.")
    return text


def _settings_section(title: str, section: Any, prefix: str) -> str:
    hints = get_type_hints(section)
    comments = _comments(section)
    rows = [
        (f"`{prefix}{f.name}`", _values(hints[f.name], f), _default(f), comments[f.name])
        for f in fields(section)
        if not is_dataclass(hints[f.name])
    ]
    about = " ".join((inspect.getdoc(section) or "").split())
    return f"\n## {title}\n\n{about}\n\n" + _markdown_table(
        ("key", "values", "default", "meaning"), rows
    )


def _values(kind: Any, field: Field[Any]) -> str:
    """What a setting may be, in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"any of {_values(get_args(kind)[0], field)}"
    least = field.metadata.get("least")
    return KINDS[kind] if least is None else f"{KINDS[kind]}, at least {least:g}"


def _default(field: Field[Any]) -> str:
    value = field.default
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


def _comments(section: type) -> dict[str, str]:
    """The comments above and behind each field of a dataclass, in one line."""
    source = textwrap.dedent(inspect.getsource(section))
    by_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    last = 0
    for statement in definition.body:
        end = statement.end_lineno or statement.lineno
        lines = [by_line[line] for line in range(last + 1, end + 1) if line in by_line]
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = " ".join(lines)
        last = end
    return found


def _markdown_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = []
    for row in (header, ("---",) * len(header), *rows):
        cells = (cell.replace("|", "\\|") for cell in row)
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


PAGES = {"outputs.md": outputs, "settings.md": settings}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
