"""Alignments, templates and constraints of a complex, read and checked when it is planned.

What would be refused on a GPU is refused here. What few complexes have is imported only for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from foldcp.complex import Chain, Complex
from foldcp.datasets.parsing.text_files import join_names
from foldcp.files import EmbeddedFile, FileSource, read_file, reading
from foldcp.pipeline.config import RunConfig

if TYPE_CHECKING:
    from foldcp.features.msa.chain_msas import MsaSettings
    from foldcp.features.msa.pairing import KeyCounts
    from foldcp.features.templates.structure import TemplateChain

MAX_CHAINS = 1 << 15  # whose alignments' keys are kept: more than an organism's proteins
MAX_NAMED = 10  # chains without an alignment that an error lists

FileVersion = tuple[int, int]  # time of the last change in ns, size in bytes


@dataclass(frozen=True, slots=True)
class Alignments:
    """SHA-256 of each alignment's unpacked content, and the number of MSA rows of all chains."""

    digests: Mapping[FileSource, str]
    depth: int


@dataclass(frozen=True, slots=True)
class ChainAlignment:
    """SHA-256 of one chain's alignments, and the counts of its rows' pairing keys, or the number of
    rows where none has a key.
    """

    digests: Mapping[FileSource, str]
    keys: KeyCounts | int


def read_alignments(
    complex: Complex, config: RunConfig, alignments_follow: bool = False
) -> Alignments:
    """Read the alignments of a complex as the network will.

    With `alignments_follow`, a protein that lacks an alignment counts as one with `assumed_rows`.

    Raises ValueError naming the chain and the file, for one that cannot be read or is of another
    chain, and naming the chains that lack an alignment, unless `msa.missing` allows that.
    """
    needs_alignments = config.msa.missing == "error"
    if needs_alignments and not alignments_follow:
        check_aligned(complex)
    assumed = assumed_rows(config)
    if not any(alignment_files(chain) for chain in complex.chains):
        lacking = any(chain.lacks_alignment for chain in complex.chains)
        return Alignments({}, assumed if lacking else 1)
    settings = msa_settings(config, 2 * config.msa.max_rows)
    digests: dict[FileSource, str] = {}
    keys: list[KeyCounts | int] = []
    for chain in complex.chains:
        files = alignment_files(chain)
        if not files:
            keys.append(assumed if chain.lacks_alignment else 1)
            continue
        try:
            versions = tuple(map(_file_version, files))
            alignment = _read_alignment(_nameless(chain), versions, settings)
        except ValueError as error:
            raise ValueError(f"chain {chain.name}: {error}") from error
        digests |= alignment.digests
        keys.append(alignment.keys)
    return Alignments(digests, _num_rows(keys, settings))


def assumed_rows(config: RunConfig) -> int:
    """Rows with which a protein is planned that lacks an alignment: as many as are read of one, or
    its sequence alone where it is folded so.
    """
    return config.msa.max_rows if config.msa.missing == "error" else 1


def alignment_files(chain: Chain) -> list[FileSource]:
    """The files of a chain's alignments."""
    return [path for path in (chain.paired_msa, chain.msa) if path is not None]


def msa_settings(config: RunConfig, max_rows: int) -> MsaSettings:
    """The run's settings of reading alignments, with at most `max_rows` rows in all."""
    from foldcp.features.msa.chain_msas import MsaSettings

    msa = config.msa
    return MsaSettings(
        max_file_rows=msa.max_rows,
        max_paired=min(msa.max_rows, max_rows),
        max_rows=max_rows,
        corrected=msa.corrected,
        max_bytes=config.limits.msa_bytes,
        pairing=msa.pairing,
        cut_to_range=msa.cut_to_range,
        compat=config.compat,
    )


def check_aligned(complex: Complex) -> None:
    """Raise ValueError naming the proteins of a complex that lack an alignment."""
    lacking = [
        f"chain {chain.name} ({chain.accession})" if chain.accession else f"chain {chain.name}"
        for chain in complex.chains
        if chain.lacks_alignment
    ]
    if lacking:
        raise ValueError(
            f"no alignment for {join_names(lacking, MAX_NAMED)}: `foldcp msa` makes alignments, "
            "which --msas DIR or `msa:` in a Boltz YAML names; `--set "
            "msa.missing=single-sequence`, or `msa: empty` in the YAML, folds from the sequence "
            "alone, less accurately"
        )


@lru_cache(MAX_CHAINS)
def _nameless(chain: Chain) -> Chain:
    """The chain that stands for all copies of a chain, which share the cached alignment."""
    return replace(chain, name="-", accession="")


@lru_cache(MAX_CHAINS)
def _read_alignment(
    chain: Chain, versions: tuple[FileVersion, ...], settings: MsaSettings
) -> ChainAlignment:
    """Read once per files and chain: a protein of many complexes has one alignment."""
    from foldcp.features.msa.chain_msas import read_chain_msa
    from foldcp.features.msa.pairing import count_keys
    from foldcp.features.msa.parse import UNPAIRED

    rows = read_chain_msa(chain, settings)
    has_keys = (rows.keys != UNPAIRED).any()
    return ChainAlignment(rows.digests, count_keys(rows.keys) if has_keys else len(rows.keys))


def _num_rows(keys: Sequence[KeyCounts | int], settings: MsaSettings) -> int:
    """MSA rows of all chains together; without pairing keys the alignments stand side by side."""
    counts = [entry for entry in keys if isinstance(entry, int)]
    if len(counts) == len(keys):
        return min(max(counts), settings.max_rows)
    from foldcp.features.msa.pairing import num_paired_rows, without_keys

    chains = [without_keys(entry) if isinstance(entry, int) else entry for entry in keys]
    return num_paired_rows(chains, settings)


def read_templates(complex: Complex, config: RunConfig) -> dict[FileSource, str]:
    """SHA-256 of each template's unpacked content.

    Raises ValueError naming the file, for one that cannot be read or lacks a chain that is asked
    for.
    """
    if not complex.templates:
        return {}

    from foldcp.features.templates.matching import match_chains

    max_bytes = config.limits.input_bytes
    digests = {}
    for template in complex.templates:
        path = template.path
        digests[path], chains = _read_template(path, _file_version(path), max_bytes)
        match_chains(complex, template, chains)
    return digests


@lru_cache(maxsize=64)
def _read_template(
    path: FileSource, version: FileVersion, max_bytes: int
) -> tuple[str, dict[str, TemplateChain]]:
    from foldcp.features.templates.structure import read_template

    sha256 = read_file(path, max_bytes).sha256
    return sha256, read_template(path, sha256, max_bytes)


def check_constraints(complex: Complex) -> None:
    """Raise ValueError naming the complex and the value, for a constraint on a residue or an atom
    that does not exist.
    """
    if not (complex.bonds or complex.pockets or complex.contacts):
        return
    from foldcp.features.pairs import contact_conditions, covalent_bonds
    from foldcp.features.tokens import tokenize

    parts = tokenize(complex)
    covalent_bonds(complex, parts)
    contact_conditions(complex, parts)


def _file_version(path: FileSource) -> FileVersion:
    """Values that change when the file does; equal values are assumed to mean equal content."""
    file = path.path if isinstance(path, EmbeddedFile) else path
    with reading(str(path)):
        status = file.stat()
    return status.st_mtime_ns, status.st_size
