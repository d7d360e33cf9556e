"""Crops, the filter of clashing chains and sampling weights are those of Boltz."""

from __future__ import annotations

import numpy as np

from foldcp.datasets.training.filters import FilterSettings, clashing_chains
from foldcp.training.data.crop import CropLimits, CropTokens, crop_around
from foldcp.training.data.prepared import IndexChain, IndexRow
from foldcp.training.data.sampling import items_and_weights
from foldcp.training.data.settings import DataSettings
from foldcp.training.data.structure import ExperimentalChain
from tests.parity.support.oracle import Oracle
from tests.parity.support.table import Row, check

CASE = "structures that are made up"
ALLOWED = 1e-12


def test_crops_are_those_of_boltz(oracle: Oracle) -> None:
    cases = oracle.record_of("training data")["crops"]
    different = 0
    for case in cases:
        tokens = CropTokens(
            chain=case["chain"].numpy(),
            unit=case["unit"].numpy(),
            num_atoms=case["num_atoms"].numpy(),
            center=case["center"].numpy(),
            resolved=case["resolved"].numpy() > 0,
        )
        limits = CropLimits(case["max_tokens"], case["max_atoms"])
        crop = crop_around(tokens, limits, case["query"], case["neighborhood"])
        different += crop.tolist() != case["crop"].tolist()
    check([Row("crops that differ", CASE, 1, different / len(cases), 0)])


def test_clashing_chains_are_those_of_boltz(oracle: Oracle) -> None:
    cases = oracle.record_of("training data")["clashes"]
    different = 0
    for case in cases:
        chains = [chain_of(coords.numpy()) for coords in case["coords"]]
        different += sorted(clashing_chains(chains, FilterSettings())) != case["dropped"]
    assert sum(len(case["dropped"]) for case in cases) > 50
    check([Row("clashing chains that differ", CASE, 1, different / len(cases), 0)])


def chain_of(coords: np.ndarray) -> ExperimentalChain:
    length = len(coords)
    return ExperimentalChain(
        name="A",
        kind="protein",
        codes=("ALA",) * length,
        letters="A" * length,
        atom_residue=np.arange(length),
        atom_names=("CA",) * length,
        coords=coords,
        bfactors=np.zeros(length),
    )


def test_sampling_weights_are_those_of_boltz(oracle: Oracle) -> None:
    record = oracle.record_of("training data")["weights"]
    rows = [
        IndexRow(
            name=str(number),
            source="",
            split="train",
            chains=tuple(
                IndexChain(str(i), kind, 10, 10, "", str(cluster))
                for i, (kind, cluster) in enumerate(structure["chains"])
            ),
            interfaces=tuple((i, j) for i, j in structure["interfaces"]),
        )
        for number, structure in enumerate(record["structures"])
    ]
    _, ours = items_and_weights(rows, DataSettings())
    theirs = record["weights"].numpy()
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    check([Row("sampling weights", CASE, 1, error, ALLOWED)])
