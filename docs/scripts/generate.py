"""The pages of docs/ that are made from the code: outputs.md and settings.md.

    python docs/scripts/generate.py

writes them; `tests/test_docs.py` compares the files with what is written here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.storage.columns.column import Column
from foldcp.pipeline.storage.columns.pair_columns import (
    PAIR_STATISTICS,
    PROTEIN_PAIR_STATISTICS,
    statistics_columns,
)
from foldcp.pipeline.storage.schemas import ALL_TABLES, INTERFACE_SCORES, Table
from foldcp.structure.tables import CATEGORIES

DOCS = Path(__file__).resolve().parents[1]

OUTPUTS = """\
# Columns of the tables, categories of the structures

<!-- Written by docs/scripts/generate.py from pipeline/storage/schemas.py and
foldcp/structure/tables.py. -->

`RUN/tables/<table>/` holds the tables of a run in Parquet files; [results.md](results.md) says how
to read them and when rows appear. Unit and meaning of every column are also in the metadata of the
Parquet schema (`pyarrow.parquet.read_schema(file).field("iptm").metadata`). A column marked with
`?` may be null.
"""

# Tables with statistics of each score, which would fill pages.
STATISTICS = {"pairs": PAIR_STATISTICS, "protein_pairs": PROTEIN_PAIR_STATISTICS}

STRUCTURES = """
## Structure files

A structure is a file of [ModelCIF](https://github.com/ihmwg/ModelCIF), the extension of mmCIF for
computed models, as text or BinaryCIF with the same values ([results.md](results.md) says what is
written when). `label_asym_id` and `auth_asym_id` are the name of the chain in the tables and
residues count from 1 in each chain. A ligand of several components that are not all sugars is as
many molecules: the second has the `label_asym_id` NAME_2, and all share the `auth_asym_id`.
Categories that would be empty are left out.

"""

SETTINGS = """\
# Settings

<!-- Written by docs/scripts/generate.py from pipeline/config.py. -->

Every setting of `foldcp plan`, `score` and `fold`, with its default. A YAML file changes some of
them, `--set` single ones after it. Unknown keys and values out of range are refused in one line.

    foldcp score INPUT --out RUN --config settings.yaml --set model.samples=5 --set write=boltz

    # settings.yaml
    model:
      samples: 5
      precision: bf16
    msa:
      corrected: true

`configs/run/` has two such files: `quick.yaml`, a first look, and `many_samples.yaml`, more passes
and structures. A setting that changes results is part of the key of a result: with another
value a complex is folded again.
"""

KINDS = {int: "integer", float: "number", bool: "true or false", str: "text"}


def outputs() -> str:
    """docs/outputs.md: the columns of every table, and the categories of a structure's file."""
    categories = [(f"`{name}`", meaning) for name, meaning in CATEGORIES.items()]
    structures = STRUCTURES + _markdown_table(("category", "holds"), categories)
    return OUTPUTS + "".join(map(_table_section, ALL_TABLES.values())) + structures


def _table_section(table: Table) -> str:
    order = ", ".join(f"`{name}`" for name in table.sort_columns)
    statistics = STATISTICS.get(table.name, {})
    made = {column.name for column in statistics_columns(INTERFACE_SCORES, statistics)}
    rows = [_column_row(column) for column in table.columns if column.name not in made]
    rows += [
        (f"`<score>_{name}`?", "`float32`", "its own", f"of every score of `interfaces`: {text}")
        for name, text in statistics.items()
    ]
    columns = _markdown_table(("column", "type", "unit", "meaning"), rows)
    return f"\n## {table.name}\n\n{table.description} Sorted by {order}.\n\n{columns}"


def _column_row(column: Column) -> tuple[str, ...]:
    mark = "?" if column.nullable else ""
    return f"`{column.name}`{mark}", f"`{column.type}`", column.unit, column.description


def settings() -> str:
    """docs/settings.md: every key of a file of settings."""
    text = SETTINGS + _settings_section("Top level", RunConfig, "")
    for name, section in get_type_hints(RunConfig).items():
        if is_dataclass(section):
            text += _settings_section(f"`{name}`", section, f"{name}.")
    return text


def _settings_section(title: str, section: Any, prefix: str) -> str:
    hints = get_type_hints(section)
    rows = [
        _setting_row(prefix, field, hints[field.name])
        for field in fields(section)
        if not is_dataclass(hints[field.name])
    ]
    about = " ".join((inspect.getdoc(section) or "").split())
    columns = _markdown_table(("key", "values", "default", "changes results", "meaning"), rows)
    return f"\n## {title}\n\n{about}\n\n{columns}"


def _setting_row(prefix: str, field: Field[Any], kind: Any) -> tuple[str, ...]:
    changes = "yes" if field.metadata["changes_results"] else "no"
    choices = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    values = choices or _values(kind, field.metadata["minimum"])
    return f"`{prefix}{field.name}`", values, _default(field), changes, field.metadata["help"]


def _values(kind: Any, minimum: float | None) -> str:
    """The values that a setting may have, in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"any of {_values(get_args(kind)[0], minimum)}"
    return KINDS[kind] if minimum is None else f"{KINDS[kind]}, at least {minimum:g}"


def _default(field: Field[Any]) -> str:
    value = field.default
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


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
