"""Warnings about an input, for the user to see before it is folded."""

from __future__ import annotations

from collections.abc import Sequence

from foldcp.complex import Complex
from foldcp.datasets.formats.fasta import FOLDED_ALONE
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.validation import alignment_files


def input_warnings(spec: InputSpec, complexes: Sequence[Complex]) -> list[str]:
    """What reading the input has found, a line for proteins without an alignment in the folder that
    was named, and one for chains that are records of their own.
    """
    lines = list(dict.fromkeys(spec.warnings))
    if spec.options.msas:
        proteins = [
            chain for complex in complexes for chain in complex.chains if chain.kind == "protein"
        ]
        num_aligned = sum(bool(alignment_files(chain)) for chain in proteins)
        if num_aligned < len(proteins):
            lines.append(
                f"{num_aligned:,} of {len(proteins):,} chains have an alignment in "
                f"{', '.join(map(str, spec.options.msas))}"
            )
    num_alone = sum(FOLDED_ALONE in complex.notes for complex in complexes)
    if num_alone:
        records = "record" if num_alone == 1 else "records"
        lines.append(
            f"{spec.input}: {num_alone:,} {records} of one chain, each folded alone; join the "
            "chains of one complex by ':'"
        )
    return lines
