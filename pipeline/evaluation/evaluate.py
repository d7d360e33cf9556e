"""Comparison of the structures of a run with experimental ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from foldcp.files import read_file
from foldcp.pipeline.evaluation.references import References, find_references
from foldcp.pipeline.evaluation.sample import Reference, evaluate_sample
from foldcp.pipeline.evaluation.structures.chain import Structure
from foldcp.pipeline.evaluation.structures.read import read_structure
from foldcp.pipeline.storage.results.boltz_layout import file_stem
from foldcp.pipeline.storage.results.evaluation_tables import evaluating, write_evaluation
from foldcp.pipeline.storage.tables import read_fresh

DataFrame = Any  # of pandas, whose columns have no static types
Columns = dict[str, Any]
Rows = list[Columns]
MIN_IDENTITY = 0.8
NO_REFERENCE = "no reference"
NO_STRUCTURE = "no structure was written"
# Columns of a row of `evaluation` that do not depend on the interface.
INTERFACE_COLUMNS = (
    "key", "name", "sample", "checkpoint", "untrained", "reference", "reference_sha256",
)  # fmt: skip
WRITE_SECONDS = 60.0  # between writes of the tables; a kill loses the time since the last


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found: its rows, and how many complexes were taken from an earlier one."""

    interfaces: DataFrame  # of the table `evaluation`
    complexes: DataFrame  # of the table `evaluation_complexes`
    num_reused: int


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the rows of a complex depend on, besides its structures and reference."""

    min_identity: float
    version: str


def evaluate(
    out: Path,
    references: Path,
    min_identity: float = MIN_IDENTITY,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compare each result of a run with its reference, and write the tables `evaluation` and
    `evaluation_complexes`.

    A reference is a file in the folder `references` named by the complex (the name itself, the stem
    of its files in Boltz's layout, or its key), or a path in a table with the columns `complex` and
    `path`. Complexes that were compared with the same reference before are not compared again. What
    cannot be compared has a row with the reason. `progress` is told complexes done and in all.

    Raises:
        ValueError: `out` is not the folder of a run, has no structures, or is being evaluated;
            `references` cannot be read or has none of the complexes; a table cannot be written.
    """
    if not 0 < min_identity <= 1:
        raise ValueError(f"sequence identity {min_identity:g}: not between 0 and 1")
    settings = _Settings(min_identity, metadata.version("foldcp"))
    complexes = _complexes(out)
    files = find_references(references)
    paths = _paths(complexes, files)
    with evaluating(out):
        return _evaluate(out, complexes, paths, settings, progress)


def _complexes(out: Path) -> DataFrame:
    """The rows of `complexes` with a result. Raises ValueError where no structure was written."""
    rows = read_fresh(out, "complexes").to_pandas()
    rows = rows[rows["outcome"].eq("done")]
    if rows.empty:
        raise ValueError(f"{out}: no complex has a result")
    if rows["structure"].isna().all():
        raise ValueError(
            f"{out}: no structures were written (write.structures=none); run `foldcp score` once "
            "more with --set write.structures=cif.gz"
        )
    return rows


def _paths(complexes: DataFrame, references: References) -> dict[str, Path | str]:
    """Key -> path of the reference, or why there is none."""
    found: dict[str, Path | str] = {}
    for key, name in complexes.drop_duplicates("key")[["key", "name"]].itertuples(index=False):
        try:
            found[key] = references.find((name, file_stem(name, key), key)) or NO_REFERENCE
        except ValueError as error:
            found[key] = str(error)
    if all(path == NO_REFERENCE for path in found.values()):
        example = complexes["name"].iloc[0]
        raise ValueError(
            f"{references.path}: no reference of any of the {len(found):,} complexes; expected "
            f"files named by complex, such as {example}.cif"
        )
    return found


def _evaluate(
    out: Path,
    complexes: DataFrame,
    paths: Mapping[str, Path | str],
    settings: _Settings,
    progress: Callable[[int, int], None],
) -> Evaluation:
    earlier = _read_results(out)
    results = {key: earlier[key] for key in paths if key in earlier}
    chains = read_fresh(out, "chains").to_pandas().sort_values("chain_index")
    names = chains.drop_duplicates(["key", "chain_index"]).groupby("key")["chain"].agg(list)
    num_reused = 0
    next_write = time.monotonic() + WRITE_SECONDS
    for done, (key, rows) in enumerate(complexes.groupby("key", sort=False), start=1):
        complex = _Complex(out, rows.sort_values("sample"), names[key])
        found, is_reused = _compare(complex, paths[key], settings, earlier.get(key))
        num_reused += is_reused
        results[key] = found
        progress(done, len(paths))
        if time.monotonic() > next_write:
            _write(out, results)
            next_write = time.monotonic() + WRITE_SECONDS
    _write(out, results)
    tables = [read_fresh(out, name).to_pandas() for name in ("evaluation", "evaluation_complexes")]
    return Evaluation(tables[0], tables[1], num_reused)


@dataclass(frozen=True, eq=False)
class _Result:
    """The rows of a complex in both tables."""

    interfaces: Rows
    complexes: Rows

    def is_of(self, samples: Sequence[int], sha256: str, settings: _Settings) -> bool:
        """Whether these are measures of some samples beside a reference of some content."""
        row = self.complexes[0]
        same = (sha256, settings.min_identity, settings.version)
        return (
            all(not row["reason"] for row in self.complexes)
            and [row["sample"] for row in self.complexes] == list(samples)
            and (row["reference_sha256"], row["min_identity"], row["version"]) == same
            and all(row["reference_superposition"] is not None for row in self.complexes)
            and all(row["reference_sha256"] == sha256 for row in self.interfaces)
        )

    def at(self, reference: str) -> _Result:
        """The same beside the same reference, which may lie elsewhere by now."""
        interfaces, complexes = (
            [row | {"reference": reference} for row in rows]
            for rows in (self.interfaces, self.complexes)
        )
        return _Result(interfaces, complexes)


@dataclass(frozen=True, eq=False)
class _Complex:
    """A complex of a run: its rows of `complexes` by sample, and the names of its chains."""

    out: Path
    rows: DataFrame
    chains: Sequence[str]

    @property
    def samples(self) -> list[int]:
        """Samples whose structures were written."""
        return self.rows.loc[self.rows["structure"].notna(), "sample"].astype(int).tolist()

    def row(self, reference: Columns, reason: str = "", sample: int | None = None) -> Columns:
        """Columns that rows of both tables have."""
        first = self.rows.iloc[0]
        about = {name: first[name] for name in ("key", "name", "checkpoint", "untrained")}
        about["untrained"] = bool(about["untrained"])
        return {**about, "sample": sample, "reason": reason, **reference}

    def read(self, sample: int) -> Structure:
        """The structure of a sample, its chains named as in the tables. Raises ValueError."""
        (path,) = self.rows.loc[self.rows["sample"].eq(sample), "structure"]
        structure = read_structure(self.out / path, "author")
        if len(structure.chains) != len(self.chains):
            raise ValueError(
                f"{self.out / path}: {len(structure.chains)} chains, but the tables have "
                f"{len(self.chains)}"
            )
        named = zip(structure.chains, self.chains, strict=True)
        return replace(structure, chains=tuple(replace(c, name=name) for c, name in named))


def _compare(
    complex: _Complex, path: Path | str, settings: _Settings, earlier: _Result | None
) -> tuple[_Result, bool]:
    """The rows of a complex, and whether they are the earlier ones, which are still right."""
    about = {"min_identity": settings.min_identity, "version": settings.version}
    if isinstance(path, str):
        return _Result([], [complex.row(about, path)]), False
    about["reference"] = os.path.abspath(path)  # a report is made from any folder
    try:
        content = read_file(path)
        about["reference_sha256"] = content.sha256
        if earlier and earlier.is_of(complex.samples, content.sha256, settings):
            return earlier.at(about["reference"]), True
        reference = Reference(read_structure(path, "label", content))
    except ValueError as error:
        return _Result([], [complex.row(about, str(error))]), False
    if not complex.samples:
        return _Result([], [complex.row(about, NO_STRUCTURE)]), False
    result = _Result([], [])
    for sample in complex.samples:
        try:
            found = evaluate_sample(complex.read(sample), reference, settings.min_identity)
        except ValueError as error:
            result.complexes.append(complex.row(about, str(error), sample))
            continue
        row = complex.row(about, sample=sample)
        result.complexes.append(row | found.columns)
        shared = {name: row[name] for name in INTERFACE_COLUMNS}
        result.interfaces.extend(shared | columns for columns in found.interfaces)
    return result, False


def _read_results(out: Path) -> dict[str, _Result]:
    """The rows of an earlier evaluation by key."""
    found: dict[str, _Result] = {}
    for row in read_fresh(out, "evaluation_complexes").to_pylist():
        found.setdefault(row["key"], _Result([], [])).complexes.append(row)
    for row in read_fresh(out, "evaluation").to_pylist():
        found.setdefault(row["key"], _Result([], [])).interfaces.append(row)
    return {key: result for key, result in found.items() if result.complexes}


def _write(out: Path, results: Mapping[str, _Result]) -> None:
    interfaces = [row for result in results.values() for row in result.interfaces]
    complexes = [row for result in results.values() for row in result.complexes]
    write_evaluation(out, interfaces, complexes)
