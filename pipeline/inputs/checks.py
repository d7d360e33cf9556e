"""What a complex is folded from, read when it is planned: its alignments, templates and
constraints.

Whatever would be refused on a GPU is found here. What few complexes have is imported only for
those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from foldcp.complex import Chain, Complex
from foldcp.files import read_file, reading
from foldcp.pipeline.config import RunConfig

if TYPE_CHECKING:
    import numpy as np

    from foldcp.features.msa.chain_msas import MsaSettings
    from foldcp.features.templates.structure import TemplateChain

Stamp = tuple[int, int]  # when a file was changed (ns), and its bytes


@dataclass(frozen=True, slots=True)
class Alignments:
    """SHA-256 of each alignment's unpacked content, and the rows of the alignment of all chains."""

    digests: Mapping[Path, str]
    depth: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one chain's alignment. `keys` are those of its rows, or their number where none has a
    key.
    """

    sha256: str
    keys: np.ndarray | int


def read_alignments(complex: Complex, config: RunConfig) -> Alignments:
    """Read the alignments of a complex as the network will.

    Raises ValueError naming the chain and the file, for one that cannot be read or is of another
    chain.
    """
    if not any(chain.msa for chain in complex.chains):
        return Alignments({}, 1)
    from foldcp.features.msa.chain_msas import MsaSettings

    rows = config.msa.max_rows
    settings = MsaSettings(rows, rows, 2 * rows, config.msa.corrected, config.limits.msa_bytes)
    digests: dict[Path, str] = {}
    keys: list[np.ndarray | int] = []
    for chain in complex.chains:
        if chain.msa is None:
            keys.append(1)
            continue
        try:
            summary = _read_alignment(
                replace(chain, name="-", accession=""), _stamp(chain.msa), settings
            )
        except ValueError as error:
            raise ValueError(f"chain {chain.name}: {error}") from error
        digests[chain.msa] = summary.sha256
        keys.append(summary.keys)
    return Alignments(digests, _depth(keys, settings))


@lru_cache(maxsize=4096)
def _read_alignment(chain: Chain, stamp: Stamp, settings: MsaSettings) -> Summary:
    """Read once per file and chain: a protein of many complexes has one alignment."""
    from foldcp.features.msa.chain_msas import read_chain_msa
    from foldcp.features.msa.parse import UNPAIRED

    rows = read_chain_msa(chain, settings)
    return Summary(rows.sha256, rows.keys if (rows.keys != UNPAIRED).any() else len(rows.keys))


def _depth(keys: list[np.ndarray | int], settings: MsaSettings) -> int:
    """Rows over all chains. Without keys the alignments stand side by side."""
    counts = [found for found in keys if isinstance(found, int)]
    if len(counts) == len(keys):
        return min(max(counts), settings.max_rows)
    import numpy as np

    from foldcp.features.msa.pairing import pair_rows
    from foldcp.features.msa.parse import UNPAIRED

    return len(
        pair_rows(
            [np.full(k, UNPAIRED) if isinstance(k, int) else k for k in keys], settings
        ).sequence
    )


def read_templates(complex: Complex, config: RunConfig) -> dict[Path, str]:
    """SHA-256 of each template's unpacked content.

    Raises ValueError naming the file, for one that cannot be read or has not the chains that are
    asked for.
    """
    if not complex.templates:
        return {}
    from foldcp.features.templates.matching import match_chains

    digests = {}
    for template in complex.templates:
        path = template.path
        digests[path], structure = _read_template(path, _stamp(path), config.limits.input_bytes)
        match_chains(complex, template, structure)
    return digests


@lru_cache(maxsize=64)
def _read_template(
    path: Path, stamp: Stamp, max_bytes: int
) -> tuple[str, dict[str, TemplateChain]]:
    from foldcp.features.templates.structure import read_template

    sha256 = read_file(path, max_bytes).sha256
    return sha256, read_template(path, sha256, max_bytes)


def check_constraints(complex: Complex) -> None:
    """ValueError naming the complex and the value, for a constraint on a residue or an atom that
    does not exist.
    """
    if not (complex.bonds or complex.pockets or complex.contacts):
        return
    from foldcp.features.pairs import contact_conditions, covalent_bonds
    from foldcp.features.tokens import tokenize

    parts = tokenize(complex)
    covalent_bonds(complex, parts)
    contact_conditions(complex, parts)


def _stamp(path: Path) -> Stamp:
    """Another stamp, another content; the same is taken for the same."""
    with reading(str(path)):
        about = path.stat()
    return about.st_mtime_ns, about.st_size
