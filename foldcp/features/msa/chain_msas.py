"""MSAs of a complex's chains: settings of reading, and the check that each is of its chain.

Without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Int

from foldcp.chemistry.vocabulary import TOKEN_IDS, residue_codes
from foldcp.complex import Chain, Complex
from foldcp.features.msa.parse import UNPAIRED
from foldcp.features.msa.read import ChainMsa, MsaReading, MsaSource, read_msas
from foldcp.files import MAX_BYTES, FileSource

Pairing = Literal["key", "taxonomy"]
Compat = Literal["boltz", "community", "corrected"]


@dataclass(frozen=True)
class MsaSettings:
    """Limits on the rows that are read, and which faults of Boltz are followed.

    Boltz 2.2.1 has three faults here, which its published accuracy includes: rows that were paired
    by key come again as unpaired ones; deletions are ignored unless they are the query's; a row
    with a key is dropped if its chain's sequence occurred before, so that its partners lose it.
    `corrected` mends all three, and so does `compat="corrected"`; `compat="community"` mends the
    first and the last, as the community's fork of Boltz does.

    `pairing` says whether an a3m's rows are unpaired, as in Boltz, or have the taxon in their
    header as their key; `cut_to_range` cuts the alignment of a longer sequence to the chain.
    """

    max_file_rows: int = 8192  # of each file
    max_paired: int = 8192  # rows made by pairing keys, the query included
    max_rows: int = 16384
    corrected: bool = False
    max_bytes: int = MAX_BYTES  # of each file, unpacked; more is refused
    pairing: Pairing = "key"
    cut_to_range: bool = False
    compat: Compat = "boltz"

    def __post_init__(self) -> None:
        for name in ("max_file_rows", "max_paired", "max_rows", "max_bytes"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"alignment setting {name} must be at least 1, not {value}")

    @property
    def keeps_keyed_rows(self) -> bool:
        """Whether a paired row comes once, and one with a key may repeat a sequence."""
        return self.corrected or self.compat != "boltz"

    @property
    def keeps_deletions(self) -> bool:
        """Whether the deletions of all rows count."""
        return self.corrected or self.compat == "corrected"


def read_chain_msas(complex: Complex, settings: MsaSettings) -> list[ChainMsa]:
    """The MSA of each chain, the query alone where it has no file.

    A file is read once for equal chains. Raises ValueError naming the complex, the chain and the
    file, for one that is unreadable, of another chain, or changed since the complex was planned.
    """
    by_molecule: dict[object, ChainMsa] = {}
    msas = []
    for chain in complex.chains:
        if chain.msa is None and chain.paired_msa is None:
            msas.append(_query_alone(chain))
            continue
        molecule = (chain.paired_msa, chain.msa, chain.sequence, chain.modifications)
        if molecule not in by_molecule:
            try:
                by_molecule[molecule] = read_chain_msa(chain, settings, complex.digests)
            except ValueError as error:
                raise ValueError(
                    f"chain {chain.name} of complex {complex.name}: {error}"
                ) from error
        msas.append(by_molecule[molecule])
    return msas


def read_chain_msa(
    chain: Chain,
    settings: MsaSettings,
    digests: Mapping[FileSource, str] = MappingProxyType({}),
) -> ChainMsa:
    """The MSA of a chain, whose first row is the chain as it is; then the rows of its paired file
    and those of the other.

    `digests` are the SHA-256 that files must have. Raises ValueError naming the file, as
    `read_msas` does, and for the MSA of a chain other than a protein.
    """
    files = [path for path in (chain.paired_msa, chain.msa) if path is not None]
    if chain.kind != "protein":
        raise ValueError(
            f"alignment {files[0]}: the network reads alignments of proteins, not of {chain.kind}"
        )
    sources = []
    for path in files:
        digest = digests.get(path, "")
        if path == chain.paired_msa:
            max_rows = min(settings.max_paired, settings.max_file_rows)
            sources.append(MsaSource(path, max_rows, "paired", digest))
        else:
            keys = "taxonomy" if settings.pairing == "taxonomy" else "none"
            sources.append(MsaSource(path, settings.max_file_rows, keys, digest))
    how = MsaReading(settings.keeps_keyed_rows, settings.cut_to_range, settings.max_bytes)
    query = residue_types(chain)
    msa = read_msas(sources, how, query)
    msa.residues[0] = query
    return msa


def residue_types(chain: Chain) -> Int[np.ndarray, " L"]:
    """Indices in the vocabulary of a chain as the query of an MSA.

    A modified residue is unknown, and so is each component of a ligand.
    """
    unknown = TOKEN_IDS["UNK"]
    if chain.kind == "ligand":
        return np.full(max(1, len(chain.ccd)), unknown, dtype=np.int8)
    codes = residue_codes(chain.kind, chain.sequence, chain.modifications)
    return np.array([TOKEN_IDS.get(code, unknown) for code in codes], dtype=np.int8)


def _query_alone(chain: Chain) -> ChainMsa:
    return ChainMsa(
        residues=residue_types(chain)[None],
        deletions=np.zeros((0, 3), dtype=np.int64),
        keys=np.array([UNPAIRED]),
    )
