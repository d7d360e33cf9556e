"""What the page shows of single complexes: scores of each sample, alignments, structure and PAE.

All of a large run would not fit: the best complexes come first, until the bytes are spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn, pack
from foldcp.pipeline.reporting.embedding.experiments import pack_experiments
from foldcp.pipeline.reporting.embedding.loading import DEPTHS, RESIDUES, LoadedRun
from foldcp.pipeline.reporting.embedding.pae import bin_edges, read_pae
from foldcp.pipeline.reporting.embedding.traces import read_trace

SAMPLES_SHARE = 0.35  # of the bytes: for the scores of each sample
EXPERIMENTS_SHARE = 0.3  # of what is left
MAX_BLOCK_SHARE = 0.05  # of the bytes: for one complex
MAX_CHAINS = 150  # of a complex whose samples are shown one by one
MAX_STRUCTURE_BYTES = 20_000_000  # of one file of a structure
MAX_READ_RESIDUES = 700_000  # of all structures: half a minute
PAE_STEP = 0.125  # Å
MAX_DEPTHS = 200  # points of a chain's curve
Name = TypeVar("Name")


@dataclass(eq=False)
class Details:
    """Packed columns: by the number of a complex, scores of its samples with the depths of its
    alignments; by number and sample, structures with PAE; by number, experimental structures.

    `unreadable` are errors of files that cannot be read.
    """

    samples: dict[int, str]
    structures: dict[tuple[int, int], str]
    experiments: dict[int, str]
    unreadable: list[str]


def pack_details(loaded: LoadedRun, order: list[int], max_bytes: int) -> Details:
    """The details of complexes, in this order as long as they fit in so many bytes."""
    samples = _fitting(_pack_samples(loaded, order), int(max_bytes * SAMPLES_SHARE))
    left = max_bytes - sum(map(len, samples.values()))
    unreadable: list[str] = []
    experiments = _fitting(
        pack_experiments(loaded, order, unreadable), int(left * EXPERIMENTS_SHARE)
    )
    left -= sum(map(len, experiments.values()))
    structures = _fitting(_pack_structures(loaded, order, unreadable), left)
    return Details(samples, structures, experiments, unreadable)


def _fitting(blocks: Iterator[tuple[Name, str]], max_bytes: int) -> dict[Name, str]:
    """The first blocks, as long as they fit, without very large ones."""
    found: dict[Name, str] = {}
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
    """Matrices of chains x chains of every score with bands, for every sample, the residues of
    each interface, and the depth of the alignment along each chain.
    """
    banded = [score["name"] for score in loaded.scores["interfaces"] if score["bands"]]
    scores = [name for name in banded if name in loaded.interfaces]
    starts = loaded.first_chains()
    # Arrays, as to take rows of a DataFrame for every complex takes longer than all the rest.
    names = ("sample", "row_a", "row_b", *RESIDUES, *scores)
    arrays = {name: loaded.interfaces[name].to_numpy() for name in names}
    depths = loaded.chains[DEPTHS].to_numpy(object)
    rows_of = np.searchsorted(loaded.interfaces["complex"], np.arange(len(starts)))
    for number in order:
        first_chain, end_chain = starts[number : number + 2].tolist()
        num_chains = end_chain - first_chain
        if num_chains > MAX_CHAINS:
            continue
        packed = _depth_columns(depths[first_chain:end_chain])
        rows = {
            name: values[slice(*rows_of[number : number + 2])] for name, values in arrays.items()
        }
        a = rows["row_a"] - first_chain
        b = rows["row_b"] - first_chain
        samples, places = np.unique(rows["sample"], return_inverse=True)
        if len(samples):
            for score in scores:
                matrix = np.full((len(samples), num_chains, num_chains), np.nan)
                matrix[places, a, b] = rows[score]
                packed[score] = columns.decimals(matrix.ravel())
            packed |= _residue_columns(rows["sample"], a, b, [rows[name] for name in RESIDUES])
        if packed:
            yield number, pack(packed, {"samples": samples.astype(int).tolist()})


def _residue_columns(
    sample: np.ndarray, a: np.ndarray, b: np.ndarray, residues: list[np.ndarray]
) -> dict[str, PackedColumn]:
    """The interface residues of both chains of each pair, in the samples in which they touch."""
    first, second = residues
    is_text = np.array([isinstance(text, str) and text != "" for text in first], bool)
    kept = (a < b) & is_text
    numbers = {"residues_sample": sample, "residues_chain_a": a, "residues_chain_b": b}
    texts = {"residues_a": first, "residues_b": second}
    return {
        **{name: columns.differences(values[kept], 1) for name, values in numbers.items()},
        **{name: columns.texts(values[kept].tolist()) for name, values in texts.items()},
    }


def _depth_columns(chains: Sequence[np.ndarray | None]) -> dict[str, PackedColumn]:
    """The depth of the alignment along each chain of a complex: the chain of every point, its first
    residue, and the mean depth from there to the next; nothing without an alignment.
    """
    found: list[np.ndarray] = []
    for place, depths in enumerate(chains):
        if not isinstance(depths, np.ndarray) or not len(depths):
            continue
        first = np.arange(0, len(depths), -(-len(depths) // MAX_DEPTHS))
        means = np.add.reduceat(depths.astype(float), first) / np.diff(first, append=len(depths))
        found.append(np.stack([np.full(len(first), place), first + 1, means]))
    if not found:
        return {}
    names = ("depth_chain", "depth_residue", "depth")
    values = np.concatenate(found, axis=1)
    return {name: columns.differences(values[i], 1) for i, name in enumerate(names)}


def _pack_structures(
    loaded: LoadedRun, order: list[int], unreadable: list[str]
) -> Iterator[tuple[tuple[int, int], str]]:
    """Structures and PAE that have files: of the best sample of every complex, then of the other
    samples; adds to `unreadable` what is wrong with one.
    """
    starts = loaded.first_chains()
    names = loaded.chains["chain"].tolist()
    num_residues = 0
    for number, sample, structure, kept in _sample_files(loaded, order):
        path = loaded.out / structure
        if not path.is_file() or path.stat().st_size > MAX_STRUCTURE_BYTES:
            continue
        num_residues += int(loaded.complexes["num_residues"].iat[number])
        if num_residues > MAX_READ_RESIDUES:
            return
        try:
            packed = read_trace(path, names[starts[number] : starts[number + 1]])
            pae = read_pae(loaded.out / kept) if isinstance(kept, str) else None
        except ValueError as error:
            unreadable.append(str(error))
            continue
        facts = {}
        if pae is not None:
            packed["pae"] = columns.small_numbers(pae, PAE_STEP)
            tokens = int(loaded.complexes["num_tokens"].iat[number])
            facts["pae_edges"] = bin_edges(tokens).tolist()
        yield (number, sample), pack(packed, facts)


def _sample_files(loaded: LoadedRun, order: list[int]) -> list[tuple[int, int, str, Any]]:
    """Number of a complex, sample, path of its structure and of its PAE, if any, of every sample
    with a structure; the best samples first.
    """
    samples = loaded.samples[loaded.samples["structure"].notna()]
    places = {number: place for place, number in enumerate(order)}
    names = ("complex", "rank", "sample", "structure", "pae")
    files = sorted(
        zip(*(samples[name].tolist() for name in names), strict=True),
        key=lambda file: (file[1] > 0, places[file[0]], file[1]),
    )
    return [(number, int(sample), path, pae) for number, _, sample, path, pae in files]
