"""The alignments of a complex's chains: how they are read, and whether each is of its chain. No
torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from foldcp.chemistry.vocabulary import TOKEN_IDS, residue_codes
from foldcp.complex import Chain, Complex
from foldcp.features.msa.alignment import UNPAIRED, MsaRows, read_alignment
from foldcp.files import MAX_BYTES


@dataclass(frozen=True)
class AlignmentSettings:
    """How many rows are read, and in which way.

    Boltz 2.2.1 has three faults here, which its published accuracy includes; `corrected` mends
    them: rows that were paired by key come again as unpaired ones; deletions are ignored unless
    they are the query's; a row with a key is dropped if its chain's sequence occurred before, so
    that its partners lose it.
    """

    max_file_rows: int = 8192  # of each file
    max_paired: int = 8192  # rows made by pairing keys, the query included
    max_rows: int = 16384
    corrected: bool = False
    max_bytes: int = MAX_BYTES  # of each file, unpacked; more is refused

    def __post_init__(self) -> None:
        for name in ("max_file_rows", "max_paired", "max_rows", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"alignment setting {name} must be at least 1, not {getattr(self, name)}"
                )


def read_chains(complex: Complex, settings: AlignmentSettings) -> list[MsaRows]:
    """The rows of each chain, the query alone where it has no file; a file is read once for equal
    chains.

    Raises ValueError naming the complex, the chain and the file, for a file that is unreadable, of
    another chain, or another than when the complex was planned.
    """
    read: dict[tuple[Path, str, tuple[tuple[int, str], ...]], MsaRows] = {}
    chains = []
    for chain in complex.chains:
        if chain.msa is None:
            chains.append(
                MsaRows(
                    residue_types(chain)[None],
                    np.zeros((0, 3), dtype=np.int64),
                    np.array([UNPAIRED]),
                )
            )
            continue
        molecule = (chain.msa, chain.sequence, chain.modifications)
        if molecule not in read:
            try:
                read[molecule] = read_chain(chain, settings, complex.digests.get(chain.msa, ""))
            except ValueError as error:
                raise ValueError(
                    f"chain {chain.name} of complex {complex.name}: {error}"
                ) from error
        chains.append(read[molecule])
    return chains


def read_chain(chain: Chain, settings: AlignmentSettings, digest: str = "") -> MsaRows:
    """The rows of a chain's alignment, the first of which shows the chain as it is.

    Raises ValueError naming the file, as `read_alignment` does, and for the alignment of a chain
    that is no protein.
    """
    assert chain.msa is not None
    if chain.kind != "protein":
        raise ValueError(
            f"alignment {chain.msa}: the network reads alignments of proteins, not of {chain.kind}"
        )
    query = residue_types(chain)
    rows = read_alignment(
        chain.msa,
        settings.max_file_rows,
        keep_keyed=settings.corrected,
        chain=query,
        digest=digest,
        max_bytes=settings.max_bytes,
    )
    rows.residues[0] = query
    return rows


def residue_types(chain: Chain) -> Int[np.ndarray, " L"]:
    """Indices in the vocabulary as an alignment sees a chain; what is modified, and each component
    of a ligand, is unknown.
    """
    unknown = TOKEN_IDS["UNK"]
    if chain.kind == "ligand":
        return np.full(max(1, len(chain.ccd)), unknown, dtype=np.int8)
    codes = residue_codes(chain.kind, chain.sequence, chain.modifications)
    return np.array([TOKEN_IDS.get(code, unknown) for code in codes], dtype=np.int8)
