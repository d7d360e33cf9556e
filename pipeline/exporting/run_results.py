"""The present results of a run, complex by complex, for an export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldcp.pipeline.storage.manifest import take_snapshot
from foldcp.pipeline.storage.results.boltz_layout import file_stem
from foldcp.pipeline.storage.tables import read_fresh

Row = dict[str, Any]
DataFrame = Any  # of pandas, whose columns have no static types
INTERFACE_COLUMNS = [
    "key", "sample", "chain_index_a", "chain_index_b", "iptm", "iptm_boltz", "ipsae_d0res",
    "ipsae_d0chn", "pdockq", "pdockq2", "lis",
]  # fmt: skip
CHAIN_COLUMNS = [
    "key", "sample", "chain_index", "chain", "molecule_type", "entity", "accession",
    "residue_range", "gene", "protein_name", "num_residues",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class ComplexResult:
    """One complex: its rows of `complexes` by rank, and those of the other tables.

    `stem` is a file name for it, `files` are those that the run has of it, relative to its folder.
    """

    key: str
    stem: str
    samples: list[Row]
    chains: list[Row]
    interfaces: DataFrame
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the complex."""
        return self.samples[0]["name"]

    def chains_of(self, sample: int) -> list[Row]:
        """The chains of a sample, in input order."""
        return [row for row in self.chains if row["sample"] == sample]

    def interfaces_of(self, sample: int) -> list[Row]:
        """The directed pairs of chains of a sample."""
        rows = self.interfaces
        return _records(rows[rows["sample"] == sample])


class RunResults:
    """The complexes of a run with a result, without stale ones, and a tally of what an export
    leaves out. Of the tables, only a few columns are kept in memory.

    Raises ValueError when `run` is not the folder of a run or a file of it is damaged.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.notes: Counter[str] = Counter()
        self.not_written: list[tuple[str, str]] = []
        complexes = read_fresh(run, "complexes").to_pandas()
        is_done = complexes["outcome"] == "done"
        self.num_without_result = int((~is_done).sum())
        done = complexes[is_done].astype({"sample": int, "rank": int})  # null without a result
        self._complexes = done.sort_values(["name", "key", "rank"])
        self._chains = read_fresh(run, "chains").select(CHAIN_COLUMNS).to_pandas()
        self._interfaces = read_fresh(run, "interfaces").select(INTERFACE_COLUMNS).to_pandas()
        names = self._complexes.drop_duplicates("key")["name"]
        self._repeated = frozenset(names[names.duplicated()])

    def __iter__(self) -> Iterator[ComplexResult]:
        """The complexes, by name."""
        commits = take_snapshot(self.run).commits
        chains = self._chains.groupby("key").indices
        interfaces = self._interfaces.groupby("key").indices
        nothing = np.zeros(0, dtype=np.int64)
        for key, rows in self._complexes.groupby("key", sort=False):
            name = rows["name"].iat[0]
            yield ComplexResult(
                key=key,
                stem=file_stem(name, key, name in self._repeated),
                samples=_records(rows),
                chains=_records(self._chains.iloc[chains.get(key, nothing)]),
                interfaces=self._interfaces.iloc[interfaces.get(key, nothing)],
                files=tuple(file.path for file in commits[key].files),
            )


def _records(frame: DataFrame) -> list[Row]:
    """Rows as dictionaries, with None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
