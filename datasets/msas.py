"""Where is a chain's alignment?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from foldcp.complex import Chain

# In the order of preference: Boltz's `key,sequence` CSV says which rows of two chains belong together.
SUFFIXES = (".csv", ".a3m", ".a3m.gz")


@dataclass(frozen=True)
class MsaFolder:
    """A folder of alignments, each named by the sha256 of its sequence or by its accession."""

    path: Path
    files: frozenset[str] = field(repr=False)  # listed once: a database asks for tens of thousands of chains

    def find(self, sequence: str, names: Iterable[str]) -> Path | None:
        """The alignment of `sequence`: `<sha256(sequence)>.csv`, .a3m or .a3m.gz, else one of `names` so ended.

        The hash goes first because it cannot be the alignment of another isoform or fragment.
        """
        for name in (sha256(sequence.encode()).hexdigest(), *names):
            for suffix in SUFFIXES:
                if name and name + suffix in self.files:
                    return self.path / (name + suffix)
        return None


def open_msas(path: Path) -> MsaFolder:
    """The alignments in the folder `path`. Raises ValueError if it is none."""
    try:
        return MsaFolder(path.resolve(), frozenset(file.name for file in path.iterdir()))
    except OSError as error:
        raise ValueError(f"{path}: no folder of alignments ({error.strerror})") from error


def msa_comment(chains: Iterable[Chain]) -> dict[str, str]:
    """What to tell about proteins that are folded from their sequence alone: a poor prediction mostly."""
    alone = dict.fromkeys(
        chain.accession or f"chain {chain.name}" for chain in chains if chain.kind == "protein" and not chain.msa
    )
    return {"msa": f"no alignment for {', '.join(alone)}"} if alone else {}
