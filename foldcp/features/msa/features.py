"""The alignments of a complex's chains -> the rows that the network reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import GAP, NUM_TOKENS
from foldcp.complex import Complex
from foldcp.features.msa.alignment import MsaRows
from foldcp.features.msa.chain_alignments import AlignmentSettings, read_chains
from foldcp.features.msa.pairing import pair
from foldcp.features.tokens import Tables

_PROFILE_BLOCK = 1 << 22  # residues that are counted at once


@dataclass(frozen=True, eq=False)
class Alignment:
    """S rows over T tokens of C chains."""

    msa: Int[np.ndarray, "S T"]  # int8, index in the vocabulary
    deletions: Int[
        np.ndarray, "#S #T"
    ]  # residues left out just before; of shape 1, 1 where there are none
    paired: Bool[np.ndarray, "S C"]  # whether the chain's sequence came by its key
    profile: Float[np.ndarray, "T 33"]
    chain_depth: Int[
        np.ndarray, " C"
    ]  # different sequences of each chain's alignment that are shown, the query one


def align(complex: Complex, tables: Tables, settings: AlignmentSettings) -> Alignment:
    """The alignment of a complex. Raises ValueError for a file that is unreadable or belongs to
    another chain.
    """
    chains = read_chains(complex, settings)
    pairing = pair([rows.keys for rows in chains], settings)
    shape = len(pairing.row), len(tables.tokens.type)
    deletions = [_seen_deletions(rows, settings) for rows in chains]
    count = _smallest_type(
        max((int(found[:, 2].max()) for found in deletions if len(found)), default=0)
    )
    msa = np.empty(shape, dtype=np.int8)
    left_out = np.zeros(shape if any(map(len, deletions)) else (1, 1), dtype=count)
    for c, rows in enumerate(chains):
        tokens = np.flatnonzero(tables.token_chain == c)
        span = slice(tokens[0], tokens[-1] + 1)
        number = tables.token_number[tokens]
        shown = pairing.row[:, c]
        gap = pairing.row[:, c] < 0
        msa[:, span] = rows.residues[shown][:, number]
        msa[gap, span] = GAP
        if len(deletions[c]):
            dense = np.zeros(rows.residues.shape, dtype=count)
            dense[deletions[c][:, 0], deletions[c][:, 1]] = deletions[c][:, 2]
            left_out[:, span] = dense[shown][:, number]
            left_out[gap, span] = 0
    depth = np.array([len(np.unique(shown[shown >= 0])) for shown in pairing.row.T])
    return Alignment(msa, left_out, pairing.by_key, _profile(msa), depth)


def _smallest_type(largest: int) -> type[np.signedinteger]:
    """Integers of two bytes, unless a count is beyond them."""
    return np.int16 if largest <= np.iinfo(np.int16).max else np.int32


def _seen_deletions(rows: MsaRows, settings: AlignmentSettings) -> Int[np.ndarray, "D 3"]:
    """Boltz sees those of the query alone."""
    return rows.deletions if settings.corrected else rows.deletions[rows.deletions[:, 0] == 0]


def _profile(msa: Int[np.ndarray, "S T"]) -> Float[np.ndarray, "T 33"]:
    """Share of each word of the vocabulary in each column."""
    num_rows, num_tokens = msa.shape
    counts = np.zeros(num_tokens * NUM_TOKENS, dtype=np.int64)
    first = np.arange(num_tokens, dtype=np.int32) * NUM_TOKENS
    rows_at_once = max(1, _PROFILE_BLOCK // num_tokens)
    for start in range(0, num_rows, rows_at_once):
        block = first + msa[start : start + rows_at_once]
        counts += np.bincount(block.ravel(), minlength=len(counts))
    return counts.reshape(num_tokens, NUM_TOKENS).astype(np.float32) / np.float32(num_rows)


def alignment_features(tables: Tables, alignment: Alignment) -> dict[str, Tensor]:
    """The fields of `Features` along the rows of the alignment."""
    shape = alignment.msa.shape
    deletions = torch.from_numpy(alignment.deletions)
    value = (math.pi / 2) * torch.atan(deletions.float() / 3)
    return {
        "msa": torch.from_numpy(alignment.msa),
        "has_deletion": (deletions > 0).expand(shape),
        "deletion_value": value.expand(shape),
        "paired": torch.from_numpy(alignment.paired)[:, torch.from_numpy(tables.token_chain)],
        "msa_mask": torch.ones(1, shape[1]).expand(shape),
        "profile": torch.from_numpy(alignment.profile),
        "deletion_mean": value.mean(0).expand(shape[1]),
    }
