"""A run in the layout of another tool: its tables as CSV, its protein pairs as a network for
Cytoscape, its structures as those of Boltz 2 or of AlphaFold DB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import networkx as nx
import numpy as np
import pandas as pd

from foldcp.pipeline.exporting.alphafold_db import write_alphafold_db
from foldcp.pipeline.exporting.boltz_folder import write_boltz_folder
from foldcp.pipeline.exporting.run_results import RunResults
from foldcp.pipeline.exporting.staged_folder import StagedFolder
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.storage.run_folder import RUN_FILE
from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.tables import read_fresh

RunFormat = Literal["csv", "cytoscape", "boltz", "afdb"]
NETWORK = "protein_pairs.graphml"
LIST_SEPARATOR = ";"  # of lists in a cell
LAYOUTS = {"boltz": write_boltz_folder, "afdb": write_alphafold_db}


@dataclass(frozen=True, slots=True)
class RunExported:
    """The files that were written, what they lack (in how many complexes), and the complexes that
    were not written, with the reason; `num_without_result` have none in the run.
    """

    paths: list[Path]
    notes: Counter[str] = field(default_factory=Counter)
    not_written: list[tuple[str, str]] = field(default_factory=list)
    num_without_result: int = 0


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return (path / RUN_FILE).is_file()


def export_run(run: Path, to: RunFormat, out: Path, overwrite: bool) -> RunExported:
    """Write the files in the folder `out`, where they appear together. Stale results are left out.

    Raises ValueError when `run` is not the folder of a run or a file of it is damaged, for a file
    that exists already, unless `overwrite`, and for one that cannot be written.
    """
    read_fresh(run, "runs")  # an error about the run comes before any about the folder
    check_folder_writable(out)
    try:
        if to == "csv" or to == "cytoscape":
            return _export_tables(run, to, out, overwrite)
        results = RunResults(run)
        with StagedFolder(out, overwrite) as folder:
            LAYOUTS[to](results, folder)
    except OSError as error:
        raise ValueError(f"{error.filename or out}: cannot be written: {error.strerror}") from error
    return RunExported(
        paths=[out / name for name in folder.names],
        notes=results.notes,
        not_written=results.not_written,
        num_without_result=results.num_without_result,
    )


def _export_tables(
    run: Path, to: Literal["csv", "cytoscape"], out: Path, overwrite: bool
) -> RunExported:
    writers = _csv_writers(run) if to == "csv" else {NETWORK: _network_writer(run)}
    with StagedFolder(out, overwrite) as folder:
        paths = [folder.file(name) for name in writers]
        for path, write in zip(paths, writers.values(), strict=True):
            write(path)
    return RunExported([out / name for name in folder.names])


def _csv_writers(run: Path) -> dict[str, Callable[[Path], None]]:
    """File name -> its writer, of every table; one table at a time is in memory."""

    def writer(name: str) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            rows = read_fresh(run, name).to_pandas()
            for column in ALL_TABLES[name].columns:
                if column.type.startswith("l"):
                    rows[column.name] = rows[column.name].map(join_list)
            rows.to_csv(path, index=False)

        return write

    return {f"{name}.csv": writer(name) for name in ALL_TABLES}


def join_list(values: Sequence[object] | None) -> str:
    """A list as one cell; empty for one that is null."""
    return "" if values is None else LIST_SEPARATOR.join(map(str, values))


def _network_writer(run: Path) -> Callable[[Path], None]:
    """Writer of a GraphML file: proteins, with an edge for each pair that touches in a complex."""
    rows = read_fresh(run, "protein_pairs").to_pandas()
    network = nx.Graph()
    for row in rows[rows["num_contacts_max"] > 0].to_dict("records"):
        for end in "ab":
            gene = row[f"gene_{end}"]
            network.add_node(
                row[f"accession_{end}"], gene=gene, name=gene or row[f"accession_{end}"]
            )
        values = {name: _plain(value) for name, value in row.items() if not pd.isna(value)}
        network.add_edge(row["accession_a"], row["accession_b"], **values)
    return lambda path: nx.write_graphml(network, path)


def _plain(value: Any) -> Any:
    """A number of Python for one of numpy, which GraphML does not know."""
    return value.item() if isinstance(value, np.generic) else value
