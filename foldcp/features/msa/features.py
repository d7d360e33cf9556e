"""MSA features: the MSAs of a complex's chains, paired into the rows that the network reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import GAP, NUM_TOKENS
from foldcp.complex import Chain, Complex
from foldcp.features.msa.chain_msas import MsaSettings, read_chain_msas
from foldcp.features.msa.pairing import pair_rows
from foldcp.features.msa.read import ChainMsa
from foldcp.features.tokens import TokenizedComplex

_CHUNK_RESIDUES = 1 << 22  # that are counted at once


@dataclass(frozen=True, eq=False)
class ComplexMsa:
    """The MSA of a complex: S rows over T tokens of C chains."""

    msa: Int[np.ndarray, "S T"]  # int8, index in the vocabulary
    deletions: Int[np.ndarray, "#S #T"]  # residues left out just before; [1, 1] if there are none
    paired: Bool[np.ndarray, "S C"]  # whether the chain's sequence came by its key
    profile: Float[np.ndarray, "T 33"]
    chain_depth: Int[np.ndarray, " C"]  # different sequences of each chain, query included
    chain_coverage: list[Int[np.ndarray, " _"]]  # as in `Layout`


def pair_msas(complex: Complex, tokenized: TokenizedComplex, settings: MsaSettings) -> ComplexMsa:
    """The MSAs of a complex's chains, paired.

    Raises ValueError for a file that is unreadable or belongs to another chain.
    """
    chain_msas = read_chain_msas(complex, settings)
    pairing = pair_rows([chain_msa.keys for chain_msa in chain_msas], settings)
    shape = (len(pairing.sequence), len(tokenized.tokens.type))
    chain_deletions = [_used_deletions(chain_msa, settings) for chain_msa in chain_msas]
    counts = [found[:, 2] for found in chain_deletions if len(found)]
    count_type = _smallest_type(max((int(count.max()) for count in counts), default=0))
    msa = np.empty(shape, dtype=np.int8)
    deletions_shape = shape if counts else (1, 1)
    deletions = np.zeros(deletions_shape, dtype=count_type)
    for c, (chain_msa, found) in enumerate(zip(chain_msas, chain_deletions, strict=True)):
        tokens = np.flatnonzero(tokenized.token_chain == c)
        span = slice(tokens[0], tokens[-1] + 1)
        column = tokenized.token_number[tokens]
        row = pairing.sequence[:, c]
        gap = row < 0
        msa[:, span] = chain_msa.residues[row][:, column]
        msa[gap, span] = GAP
        if len(found):
            dense = np.zeros(chain_msa.residues.shape, dtype=count_type)
            dense[found[:, 0], found[:, 1]] = found[:, 2]
            deletions[:, span] = dense[row][:, column]
            deletions[gap, span] = 0
    used = [np.unique(row[row >= 0]) for row in pairing.sequence.T]
    depth = np.array([len(rows) for rows in used])
    coverage = list(map(_coverage, complex.chains, chain_msas, used))
    return ComplexMsa(msa, deletions, pairing.by_key, _profile(msa), depth, coverage)


def msa_features(tokenized: TokenizedComplex, msa: ComplexMsa) -> dict[str, Tensor]:
    """The fields of `Features` along the rows of the MSA."""
    shape = msa.msa.shape
    deletions = torch.from_numpy(msa.deletions)
    deletion_value = (math.pi / 2) * torch.atan(deletions.float() / 3)
    return {
        "msa": torch.from_numpy(msa.msa),
        "has_deletion": (deletions > 0).expand(shape),
        "deletion_value": deletion_value.expand(shape),
        "paired": torch.from_numpy(msa.paired)[:, torch.from_numpy(tokenized.token_chain)],
        "msa_mask": torch.ones(1, shape[1]).expand(shape),
        "profile": torch.from_numpy(msa.profile),
        "deletion_mean": deletion_value.mean(0).expand(shape[1]),
    }


def _coverage(chain: Chain, msa: ChainMsa, used: Int[np.ndarray, " U"]) -> Int[np.ndarray, " _"]:
    """The number of used rows with a residue at each place of a chain; empty without an
    alignment.
    """
    if chain.msa is None and chain.paired_msa is None:
        return np.zeros(0, dtype=np.int32)
    return (msa.residues[used] != GAP).sum(axis=0, dtype=np.int32)


def _smallest_type(largest: int) -> type[np.signedinteger]:
    """Integers of two bytes, unless a count exceeds them."""
    return np.int16 if largest <= np.iinfo(np.int16).max else np.int32


def _used_deletions(msa: ChainMsa, settings: MsaSettings) -> Int[np.ndarray, "D 3"]:
    """All deletions, or those of the query alone, as in Boltz."""
    return msa.deletions if settings.keeps_deletions else msa.deletions[msa.deletions[:, 0] == 0]


def _profile(msa: Int[np.ndarray, "S T"]) -> Float[np.ndarray, "T 33"]:
    """Share of each word of the vocabulary in each column."""
    num_rows, num_tokens = msa.shape
    counts = np.zeros(num_tokens * NUM_TOKENS, dtype=np.int64)
    first = np.arange(num_tokens, dtype=np.int32) * NUM_TOKENS
    rows_per_chunk = max(1, _CHUNK_RESIDUES // num_tokens)
    for start in range(0, num_rows, rows_per_chunk):
        chunk = first + msa[start : start + rows_per_chunk]
        counts += np.bincount(chunk.ravel(), minlength=len(counts))
    return counts.reshape(num_tokens, NUM_TOKENS).astype(np.float32) / np.float32(num_rows)
