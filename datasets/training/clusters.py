"""Clusters of similar chains, by which training draws them alike often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from itertools import chain as concatenated

import numpy as np

from foldcp.training.data.structure import ExperimentalChain

WORD = 4  # residues of a word
# Of a sequence's words, the least share that it has in common with the first of its cluster. Of two
# sequences with the identity p and differences that are spread evenly, it is about p to the power
# of `WORD`: 0.1 stands for an identity of 56%.
MIN_SHARED = 0.1
MIN_LENGTH = 10  # of a protein that is compared; shorter ones are alike if they are equal


def sequence_key(chain: ExperimentalChain) -> str:
    """What equal chains have in common: kind and sequence, or the components of a ligand."""
    return f"{chain.kind}:{chain.letters or '-'.join(chain.codes)}"


def cluster(keys: Iterable[str]) -> dict[str, str]:
    """The cluster of each of `sequence_key`'s values, named by a hash of its first sequence.

    Proteins are clustered greedily, the longest first: each joins the cluster with whose first
    sequence it shares most words of `WORD` residues, if these are `MIN_SHARED` of its own, and else
    begins one. Nucleic acids, ligands and short peptides are alike only if they are equal, as in
    Boltz's training data.
    """
    distinct = sorted(set(keys), key=lambda key: (-len(key), key))
    clusters: dict[str, str] = {}
    first_of: list[str] = []
    having: dict[str, list[int]] = defaultdict(list)  # word -> numbers of clusters
    for key in distinct:
        kind, _, sequence = key.partition(":")
        if kind != "protein" or len(sequence) < MIN_LENGTH:
            clusters[key] = _name(key)
            continue
        words = {sequence[i : i + WORD] for i in range(len(sequence) - WORD + 1)}
        found = np.fromiter(
            concatenated.from_iterable(having[word] for word in words if word in having),
            dtype=np.int64,
        )
        counts = np.bincount(found, minlength=1)
        best = int(counts.argmax())
        if counts[best] >= MIN_SHARED * len(words):
            clusters[key] = clusters[first_of[best]]
            continue
        clusters[key] = _name(key)
        for word in sorted(words):
            having[word].append(len(first_of))
        first_of.append(key)
    return clusters


def _name(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:12]
