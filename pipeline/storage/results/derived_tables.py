"""Publishing of the tables that are made of others: `protein_pairs` of the pairs of all groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foldcp.pipeline.storage.commits.record import is_intact
from foldcp.pipeline.storage.manifest import MANIFEST, Manifest, pairs_hash, to_json
from foldcp.pipeline.storage.parquet import arrow_schema, read_parquet, write_parquet
from foldcp.pipeline.storage.results.protein_pairs import in_alphabet, protein_pairs
from foldcp.pipeline.storage.run_folder import TEMPORARY
from foldcp.pipeline.storage.schemas import PAIRS, PROTEIN_PAIRS
from foldcp.pipeline.storage.staging import StagingArea

PATH = f"tables/{PROTEIN_PAIRS.name}/{PROTEIN_PAIRS.name}.parquet"
# So many rows of pairs are in memory at once; more are parted by accession on the disk.
PART_ROWS = 65_536
# While a run goes on, they are made again when there are so many times as many pairs.
GROWTH = 1.5


def is_due(manifest: Manifest) -> bool:
    """Whether there are many more pairs than what the published table was made of."""
    return _num_pairs(manifest) >= max(1, GROWTH * manifest.derived_rows)


def derive(staging: StagingArea, manifest: Manifest) -> Manifest:
    """Publish the tables again if their sources have changed or they are damaged.

    Returns the manifest, which is written.
    """
    source = pairs_hash(manifest)
    known = manifest.derived.get(PROTEIN_PAIRS.name)
    if known and manifest.derived_from == source and is_intact(staging.root, known, verify=True):
        return manifest
    paths = [staging.root / group.published[PAIRS.name].path for group in manifest.groups]
    parts = partial(_parts, paths, staging.root / TEMPORARY, _num_pairs(manifest))
    staged = staging.stage({PATH: partial(_write, parts=parts)})
    manifest = replace(
        manifest,
        generation=manifest.generation + 1,
        derived={PROTEIN_PAIRS.name: staged[0][0]},
        derived_from=source,
        derived_rows=_num_pairs(manifest),
    )
    staging.install({MANIFEST: to_json(manifest)})
    staging.publish(staged)
    return manifest


def _num_pairs(manifest: Manifest) -> int:
    return sum(group.rows.get(PAIRS.name, 0) for group in manifest.groups)


def _write(path: Path, parts: Callable[[], Iterator[pa.Table]]) -> None:
    write_parquet(path, parts(), arrow_schema(PROTEIN_PAIRS))


def _parts(paths: Sequence[Path], folder: Path, num_pairs: int) -> Iterator[pa.Table]:
    """The rows of the table, in its order, from files of `pairs`."""
    if num_pairs <= PART_ROWS:
        yield protein_pairs(pa.concat_tables(read_parquet(path, PAIRS) for path in paths))
        return
    limits = _limits(paths)
    files = [folder / f"pairs-{number}" for number in range(len(limits) - 1)]
    schema = arrow_schema(PAIRS)
    writers = [pa.ipc.new_file(str(file), schema) for file in files]
    for path in paths:
        rows = in_alphabet(read_parquet(path, PAIRS))
        for (low, high), writer in zip(pairwise(limits), writers, strict=True):
            is_within = (pc.field("accession_a") >= low) & (pc.field("accession_a") < high)
            writer.write_table(rows.filter(is_within))
    for file, writer in zip(files, writers, strict=True):
        writer.close()
        with pa.memory_map(str(file)) as source:
            yield protein_pairs(pa.ipc.open_file(source).read_all())
        file.unlink()


def _limits(paths: Sequence[Path]) -> list[str]:
    """First accessions of parts of about PART_ROWS rows each, and one after the last."""
    ends = ["accession_a", "accession_b"]
    pairs = pa.concat_tables(in_alphabet(read_parquet(path, PAIRS, ends)) for path in paths)
    names, numbers = pairs["accession_a"].value_counts().flatten()
    order = np.argsort(names.to_numpy(zero_copy_only=False).astype(str), kind="stable")
    parts = np.cumsum(numbers.to_numpy()[order]) // PART_ROWS
    starts = np.flatnonzero(np.diff(parts, prepend=-1))
    limits = [names[int(order[start])].as_py() for start in starts]
    return ["", *limits[1:], "\U0010ffff"]
