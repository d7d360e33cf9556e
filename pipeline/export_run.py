"""Tables of a run as CSV files, and its protein pairs as a network for Cytoscape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import networkx as nx
import numpy as np
import pandas as pd

from foldcp.pipeline.storage.run_folder import RUN_FILE
from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.tables import read_fresh

RunExport = Literal["csv", "cytoscape"]
NETWORK = "protein_pairs.graphml"
LIST_SEPARATOR = ";"  # of lists in a cell


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return (path / RUN_FILE).is_file()


def export_run(run: Path, to: RunExport, out: Path, overwrite: bool) -> list[Path]:
    """Write the files in the folder `out`; returns their paths. Stale rows are left out.

    Raises ValueError when `run` is not the folder of a run, for a file that exists already, unless
    `overwrite`, and for one that cannot be written.
    """
    writers = _csv_writers(run) if to == "csv" else {NETWORK: _network_writer(run)}
    paths = [out / name for name in writers]
    for path in paths:
        if path.exists() and not overwrite:
            raise ValueError(f"{path}: exists already; --overwrite replaces it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, write in zip(paths, writers.values(), strict=True):
            write(path)
    except OSError as error:
        raise ValueError(f"{error.filename or out}: cannot be written: {error.strerror}") from error
    return paths


def _csv_writers(run: Path) -> dict[str, Callable[[Path], None]]:
    """File name -> its writer, of every table."""

    def writer(name: str) -> Callable[[Path], None]:
        rows = read_fresh(run, name).to_pandas()
        lists = [column.name for column in ALL_TABLES[name].columns if column.type.startswith("l")]
        for column in lists:
            rows[column] = rows[column].map(join_list)
        return lambda path: rows.to_csv(path, index=False)

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
