"""Confidence of a structure: of the whole, of residues, chains and pairs of chains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from foldcp.metrics.scores import Scores
from foldcp.structure.molecules import Molecules
from foldcp.structure.tables import UNKNOWN, Table, Tables


@dataclass(frozen=True)
class Metric:
    """A row of `ma_qa_metric`."""

    type: str
    mode: str
    description: str


METRICS = {
    1: Metric("pLDDT", "global", "mean predicted lDDT of all tokens, 0 to 100"),
    2: Metric("pLDDT", "local", "predicted lDDT of a residue of a polymer, 0 to 100"),
    3: Metric("pLDDT", "per-feature", "predicted lDDT of a ligand, mean of its atoms, 0 to 100"),
    4: Metric("pTM", "global", "predicted TM-score of the whole structure"),
    5: Metric("ipTM", "global", "predicted TM-score over pairs of different chains"),
    6: Metric("pTM", "per-feature", "predicted TM-score of a chain"),
    7: Metric(
        "ipTM",
        "per-feature-pair",
        "predicted TM-score of the second chain in the frames of the first, d0 from both lengths",
    ),
}
Values = list[tuple[int, float]]  # (number of a metric, value)


def confidence_tables(
    molecules: Molecules, plddt: Float[np.ndarray, " T"], scores: Scores | None
) -> Tables:
    """`ma_qa_metric` and the values of each; with `scores` also TM-scores. A chain is a feature."""
    values: Values = [(1, 100 * float(plddt.mean()))]
    if scores:
        values += [(4, scores.ptm), (5, scores.iptm)]
    tables = {
        "ma_qa_metric_global": {
            **_numbered(len(values)),
            "metric_id": [metric for metric, _ in values],
            "metric_value": np.array([value for _, value in values]),
        },
        **_features(molecules),
        **_residues(molecules, plddt),
        **_chains(molecules, plddt, scores),
    }
    if scores:
        tables |= _pairs(scores)
    used = sorted({metric for table in tables.values() for metric in table.get("metric_id", ())})
    metrics = [METRICS[number] for number in used]
    return {
        "ma_qa_metric": {
            "id": used,
            "name": [metric.type for metric in metrics],
            "description": [metric.description for metric in metrics],
            "type": [metric.type for metric in metrics],
            "mode": [metric.mode for metric in metrics],
            "software_group_id": [1 for _ in metrics],
        },
        **tables,
    }


def _numbered(length: int) -> Table:
    """The first columns of every table of values."""
    return {"ordinal_id": list(range(1, length + 1)), "model_id": [1] * length}


def _features(molecules: Molecules) -> Tables:
    """The chains as features, numbered from 1."""
    types: dict[int, str] = {}
    for instance in molecules.instances:
        types[instance.chain] = molecules.entities[instance.entity].type
    return {
        "ma_feature_list": {
            "feature_id": [chain + 1 for chain in types],
            "feature_type": ["entity instance" for _ in types],
            "entity_type": list(types.values()),
            "details": [UNKNOWN for _ in types],
        },
        "ma_entity_instance_feature": {
            "ordinal_id": list(range(1, len(molecules.instances) + 1)),
            "feature_id": [instance.chain + 1 for instance in molecules.instances],
            "label_asym_id": [instance.label for instance in molecules.instances],
        },
    }


def _residues(molecules: Molecules, plddt: Float[np.ndarray, " T"]) -> Tables:
    """pLDDT of each residue of a polymer, the mean over its tokens; others have no number."""
    R = molecules.num_residues
    total = np.bincount(molecules.residue_of_token, weights=plddt, minlength=R)
    mean = total / np.bincount(molecules.residue_of_token, minlength=R)
    residues = [residue for residue in range(R) if molecules.label_number(residue)]
    if not residues:
        return {}
    return {
        "ma_qa_metric_local": {
            **_numbered(len(residues)),
            "label_asym_id": [molecules.instance_of_residue[r].label for r in residues],
            "label_seq_id": [molecules.residue_number[residue] for residue in residues],
            "label_comp_id": [molecules.residue_name[residue] for residue in residues],
            "metric_id": [2] * len(residues),
            "metric_value": 100 * mean[residues],
        }
    }


def _chains(molecules: Molecules, plddt: Float[np.ndarray, " T"], scores: Scores | None) -> Tables:
    """pLDDT of each ligand, and pTM of each chain that has one."""
    layout = molecules.layout
    of_chain: list[tuple[int, int, float]] = []
    for chain, kind in enumerate(layout.chain_kinds):
        if kind == "ligand":
            mean = float(plddt[layout.token_chain == chain].mean())
            of_chain.append((chain, 3, 100 * mean))
    for chain, ptm in enumerate(scores.chain_ptm.tolist() if scores else ()):
        if np.isfinite(ptm):
            of_chain.append((chain, 6, ptm))
    if not of_chain:
        return {}
    return {
        "ma_qa_metric_feature": {
            **_numbered(len(of_chain)),
            "feature_id": [chain + 1 for chain, *_ in of_chain],
            "metric_id": [metric for _, metric, _ in of_chain],
            "metric_value": np.array([value for *_, value in of_chain]),
        }
    }


def _pairs(scores: Scores) -> Tables:
    """ipTM of each pair of chains that has one, directed as in the tables of a run: frames in the
    first, scored tokens in the second.
    """
    is_pair = np.isfinite(scores.pair_iptm) & ~np.eye(len(scores.pair_iptm), dtype=bool)
    first, second = np.nonzero(is_pair)
    if not len(first):
        return {}
    return {
        "ma_qa_metric_feature_pairwise": {
            **_numbered(len(first)),
            "feature_id_1": (first + 1).tolist(),
            "feature_id_2": (second + 1).tolist(),
            "metric_id": [7] * len(first),
            "metric_value": scores.pair_iptm[is_pair],
        }
    }
