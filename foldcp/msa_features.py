"""Alignments -> the rows that the network reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.chemistry import NUM_TOKENS
from foldcp.tokens import Tables


@dataclass(frozen=True)
class Alignment:
    """S rows over T tokens."""

    msa: Int[np.ndarray, "S T"]  # int8, index in the vocabulary
    deletions: Int[np.ndarray, "S T"]  # int16, residues left out before this one
    paired: Int[np.ndarray, "S C"]  # bool, whether the chain's sequence came by its key
    profile: Float[np.ndarray, "T 33"]


def query_alone(tables: Tables) -> Alignment:
    """The alignment of a complex whose chains have none: one row, the query."""
    msa = tables.residues.type[tables.tokens.residue].astype(np.int8)[None]
    return Alignment(
        msa=msa,
        deletions=np.zeros((1, 1), dtype=np.int16),
        paired=np.ones((1, len(tables.chains.name)), dtype=bool),
        profile=np.eye(NUM_TOKENS, dtype=np.float32)[msa[0]],
    )


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
