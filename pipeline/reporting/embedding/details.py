"""What the page shows of single complexes: scores of each sample, structure and PAE.

All of a large run would not fit: the best complexes come first, until the bytes are spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn, pack
from foldcp.pipeline.reporting.embedding.loading import LoadedRun
from foldcp.pipeline.reporting.embedding.pae import bin_edges, read_pae
from foldcp.pipeline.reporting.embedding.traces import read_trace

SAMPLES_SHARE = 0.35  # of the bytes: for the scores of each sample
MAX_BLOCK_SHARE = 0.05  # of the bytes: for one complex
MAX_CHAINS = 150  # of a complex whose samples are shown one by one
MAX_STRUCTURE_BYTES = 20_000_000  # of one file of a structure
MAX_READ_RESIDUES = 700_000  # of all structures: half a minute
PAE_STEP = 0.125  # Å


@dataclass(eq=False)
class Details:
    """Packed columns of complexes, by their number: scores of samples, structures with PAE.

    `unreadable` are errors of files that cannot be read.
    """

    samples: dict[int, str]
    structures: dict[int, str]
    unreadable: list[str]


def pack_details(loaded: LoadedRun, order: list[int], max_bytes: int) -> Details:
    """The details of complexes, in this order as long as they fit in so many bytes."""
    samples = _fitting(_pack_samples(loaded, order), int(max_bytes * SAMPLES_SHARE))
    left = max_bytes - sum(map(len, samples.values()))
    unreadable: list[str] = []
    structures = _fitting(_pack_structures(loaded, order, unreadable), left)
    return Details(samples, structures, unreadable)


def _fitting(blocks: Iterator[tuple[int, str]], max_bytes: int) -> dict[int, str]:
    """The first blocks, as long as they fit, without very large ones."""
    found: dict[int, str] = {}
    used = 0
    for number, block in blocks:
        if len(block) > max_bytes * MAX_BLOCK_SHARE:
            continue
        used += len(block)
        if used > max_bytes:
            break
        found[number] = block
    return found


def _pack_samples(loaded: LoadedRun, order: list[int]) -> Iterator[tuple[int, str]]:
    """Matrices of chains x chains of every score with bands, for every sample."""
    banded = [score["name"] for score in loaded.scores["interfaces"] if score["bands"]]
    scores = [name for name in banded if name in loaded.interfaces]
    starts = loaded.first_chains()
    groups = loaded.interfaces.groupby("complex").indices
    for number in order:
        num_chains = int(starts[number + 1] - starts[number])
        if number not in groups or num_chains > MAX_CHAINS:
            continue
        rows = loaded.interfaces.iloc[groups[number]]
        samples = sorted(rows["sample"].unique())
        places = rows["sample"].map({sample: s for s, sample in enumerate(samples)}).to_numpy()
        a = rows["row_a"].to_numpy() - starts[number]
        b = rows["row_b"].to_numpy() - starts[number]
        packed: dict[str, PackedColumn] = {}
        for score in scores:
            matrix = np.full((len(samples), num_chains, num_chains), np.nan)
            matrix[places, a, b] = rows[score].to_numpy(np.float64)
            packed[score] = columns.decimals(matrix.ravel())
        yield number, pack(packed, {"samples": [int(sample) for sample in samples]})


def _pack_structures(
    loaded: LoadedRun, order: list[int], unreadable: list[str]
) -> Iterator[tuple[int, str]]:
    """Structure and PAE of the best sample of every complex that has a file; adds to `unreadable`
    what is wrong with one.
    """
    starts = loaded.first_chains()
    names = loaded.chains["chain"].tolist()
    num_residues = 0
    for number in order:
        structure = loaded.complexes["structure"].iat[number]
        path = loaded.out / str(structure)
        if not isinstance(structure, str) or not path.is_file():
            continue
        if path.stat().st_size > MAX_STRUCTURE_BYTES:
            continue
        num_residues += int(loaded.complexes["num_residues"].iat[number])
        if num_residues > MAX_READ_RESIDUES:
            return
        try:
            packed = read_trace(path, names[starts[number] : starts[number + 1]])
            kept = loaded.complexes["pae"].iat[number]
            pae = read_pae(loaded.out / kept) if isinstance(kept, str) else None
        except ValueError as error:
            unreadable.append(str(error))
            continue
        facts = {}
        if pae is not None:
            packed["pae"] = columns.small_numbers(pae, PAE_STEP)
            tokens = int(loaded.complexes["num_tokens"].iat[number])
            facts["pae_edges"] = bin_edges(tokens).tolist()
        yield number, pack(packed, facts)
