"""Columns of `chains` that every row of a pair of chains repeats."""

from __future__ import annotations

from typing import Literal

from foldcp.pipeline.storage.columns.column import Column, count, text

# Their names in `chains`.
CHAIN_COLUMNS = (
    "chain_index",
    "molecule_type",
    "entity",
    "num_residues",
    "accession",
    "gene",
)


def chain_columns(end: Literal["a", "b"]) -> tuple[Column, ...]:
    """The columns of one of the two chains."""
    chain = f"of chain_{end}"
    return (
        Column(f"chain_index_{end}", "int64", f"position {chain} in the complex, from 0", "index"),
        Column(f"molecule_type_{end}", "string", f"molecule type {chain}, as in chains"),
        Column(f"entity_{end}", "int64", f"molecule {chain}; equal numbers are copies", "index"),
        count(f"num_residues_{end}", f"residues {chain}; components of a ligand"),
        text(f"accession_{end}", f"UniProt accession {chain}, without a range; may be empty"),
        text(f"gene_{end}", f"gene name {chain}; empty if unknown"),
    )
