"""What a user should know about an input before it is folded. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from foldcp.complex import Complex
from foldcp.datasets.formats.fasta import FOLDED_ALONE
from foldcp.pipeline.inputs.input_spec import InputSpec


def remarks(sources: InputSpec, complexes: Sequence[Complex]) -> list[str]:
    """A line each: chains without an alignment in the folder that was named, chains that are
    records of their own.
    """
    lines = []
    if sources.msas is not None:
        proteins = [
            chain for complex in complexes for chain in complex.chains if chain.kind == "protein"
        ]
        aligned = sum(chain.msa is not None for chain in proteins)
        if aligned < len(proteins):
            lines.append(
                f"{aligned:,} of {len(proteins):,} chains have an alignment in {sources.msas}"
            )
    if alone := sum(FOLDED_ALONE in complex.notes for complex in complexes):
        join = "join the chains of one complex by ':'"
        lines.append(f"{sources.input}: {alone:,} records of one chain, each folded alone; {join}")
    return lines
