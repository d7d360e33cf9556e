"""Measures of one predicted structure beside its reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from foldcp.pipeline.evaluation.matching.assignment import Matching
from foldcp.pipeline.evaluation.matching.chain_pair import ChainPair
from foldcp.pipeline.evaluation.matching.ligands import LigandMatcher, LigandPair
from foldcp.pipeline.evaluation.measures.dockq import (
    CONTACT,
    ContactMap,
    Contacts,
    score_interface,
)
from foldcp.pipeline.evaluation.measures.lddt import Lddt, lddt
from foldcp.pipeline.evaluation.measures.ligand_scores import (
    Pocket,
    find_pocket,
    lddt_pli,
    ligand_rmsd,
)
from foldcp.pipeline.evaluation.measures.superposition import rmsd, superposition
from foldcp.pipeline.evaluation.measures.tm_score import complex_tm_score
from foldcp.pipeline.evaluation.structures.chain import Chain, Structure

# Least DockQ of each class, from the best; below the last is "incorrect".
CLASSES = {"high": 0.8, "medium": 0.49, "acceptable": 0.23}
FAR = 1e3  # Å, deviation of a ligand that cannot be compared
Columns = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Reference:
    """An experimental structure, with its contacts, which several samples are compared with."""

    structure: Structure
    contacts: ContactMap = field(default_factory=ContactMap)


@dataclass(frozen=True, eq=False)
class SampleEvaluation:
    """Columns of a sample's row of `evaluation_complexes`, and of its rows of `evaluation`."""

    columns: Columns
    interfaces: Sequence[Columns]


@dataclass(frozen=True, eq=False)
class _Ligand:
    """An assigned ligand, its number in the complex, and its whole pocket."""

    number: int
    pair: LigandPair
    pocket: Pocket


def dockq_class(dockq: float) -> str | None:
    """CAPRI's class of a DockQ; None of NaN."""
    if np.isnan(dockq):
        return None
    return next((name for name, least in CLASSES.items() if dockq >= least), "incorrect")


def evaluate_sample(
    model: Structure, reference: Reference, min_identity: float
) -> SampleEvaluation:
    """Compare a prediction with its reference.

    Polymers are assigned by sequence, equal ones so that DockQ is largest; then ligands by
    component, equal ones so that the deviation is least. Raises ValueError when no polymer of the
    reference has the sequence of a predicted one.
    """
    contacts = Contacts(reference.contacts)
    numbers = [number for number, chain in enumerate(model.chains) if chain.is_polymer]
    polymers = [model.chains[number] for number in numbers]
    others = [chain for chain in reference.structure.chains if chain.is_polymer]
    matching = Matching.of(polymers, others, min_identity, contacts)
    if not matching.pairs:
        raise ValueError(
            f"no chain has a sequence of a predicted chain (identity of at least {min_identity:g})"
        )
    chosen = matching.assign()
    pairs = {numbers[i]: matching.pairs[i, j] for i, j in chosen}
    distances = lddt(list(pairs.values()))
    ligands = _assign_ligands(model, reference.structure, list(pairs.values()))
    interfaces = [*_interfaces(pairs, contacts, distances)]
    dockq = [row["dockq"] for row in interfaces if not np.isnan(row["dockq"])]
    interfaces += _ligand_interfaces(ligands, pairs, contacts)
    columns = {
        "num_chains": len(polymers),
        "num_reference_chains": len(others),
        "num_matched_chains": len(pairs),
        "matched_chains": _names(pairs, ligands),
        "num_interfaces": len(dockq),
        "dockq_mean": _mean(dockq),
        "dockq_min": min(dockq, default=np.nan),
        **_measures(list(pairs.values()), distances),
        "num_ligands": len(ligands),
        "ligand_rmsd": _mean([ligand_rmsd(found.pair, found.pocket) for found in ligands]),
        "lddt_pli": _mean([lddt_pli(found.pair, found.pocket) for found in ligands]),
    }
    return SampleEvaluation(columns, interfaces)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _measures(pairs: Sequence[ChainPair], distances: Lddt) -> Columns:
    """Measures of all assigned polymers together."""
    model = np.concatenate([pair.model_coords[pair.is_trace] for pair in pairs])
    target = np.concatenate([pair.reference_coords[pair.is_trace] for pair in pairs])
    rotation, translation = superposition(target, model)
    return {
        "num_matched_residues": sum(pair.num_common for pair in pairs),
        "min_sequence_identity": min(pair.alignment.identity for pair in pairs),
        "tm_score": complex_tm_score(pairs),
        "rmsd": rmsd(target @ rotation + translation, model),
        "reference_superposition": [*rotation.ravel().tolist(), *translation.tolist()],
        "lddt": distances.all,
        "interface_lddt": distances.interfaces,
    }


def _names(pairs: Mapping[int, ChainPair], ligands: Sequence[_Ligand]) -> list[str]:
    found = {number: (pair.model, pair.reference) for number, pair in pairs.items()}
    found |= {ligand.number: (ligand.pair.model, ligand.pair.reference) for ligand in ligands}
    return [f"{found[n][0].name}={found[n][1].name}" for n in sorted(found)]


def _ends(first: tuple[Chain, Chain], second: tuple[Chain, Chain]) -> Columns:
    """Names and kinds of two chains, each with that of the reference."""
    columns = {}
    for end, (model, reference) in (("a", first), ("b", second)):
        columns[f"chain_{end}"] = model.name
        columns[f"molecule_type_{end}"] = reference.kind
        columns[f"reference_chain_{end}"] = reference.name
    return columns


def _interfaces(
    pairs: Mapping[int, ChainPair], contacts: Contacts, distances: Lddt
) -> Iterator[Columns]:
    """Columns of each interface between polymers."""
    for (i, a), (j, b) in itertools.combinations(enumerate(pairs.values()), 2):
        scores = score_interface(a, b, contacts)
        if scores is not None:
            yield {
                **_ends((a.model, a.reference), (b.model, b.reference)),
                **asdict(scores),
                "dockq_class": dockq_class(scores.dockq),
                "interface_lddt": distances.by_pair.get((i, j), np.nan),
            }


def _ligand_interfaces(
    ligands: Sequence[_Ligand], pairs: Mapping[int, ChainPair], contacts: Contacts
) -> Iterator[Columns]:
    """Columns of each ligand and polymer that touch in the reference."""
    for ligand, polymer in itertools.product(ligands, pairs.values()):
        found = contacts.reference.find(polymer.reference, ligand.pair.reference, CONTACT)
        pocket = find_pocket(ligand.pair.reference, [polymer]) if len(found) else None
        if pocket is not None:
            ends = (polymer.model, polymer.reference)
            yield {
                **_ends(ends, (ligand.pair.model, ligand.pair.reference)),
                "num_reference_contacts": len(found),
                "ligand_rmsd": ligand_rmsd(ligand.pair, pocket),
                "lddt_pli": lddt_pli(ligand.pair, pocket),
            }


def _assign_ligands(
    model: Structure, reference: Structure, pairs: Sequence[ChainPair]
) -> list[_Ligand]:
    """The ligands that both structures have, equal ones such that their deviations are least."""
    predicted = [(n, chain) for n, chain in enumerate(model.chains) if not chain.is_polymer]
    matcher = LigandMatcher(model, reference)
    found: dict[tuple[int, int], _Ligand] = {}
    others = [chain for chain in reference.chains if not chain.is_polymer]
    for column, other in enumerate(others):
        same = [
            (row, number, pair)
            for row, (number, chain) in enumerate(predicted)
            if (pair := matcher.match(chain, other)) is not None
        ]
        pocket = find_pocket(other, pairs) if same else None
        if pocket is not None:
            found |= {(row, column): _Ligand(n, pair, pocket) for row, n, pair in same}
    if not found:
        return []
    deviations = np.full((len(predicted), len(others)), FAR)
    for (row, column), ligand in found.items():
        deviations[row, column] = min(ligand_rmsd(ligand.pair, ligand.pocket), FAR / 2)
    chosen = zip(*linear_sum_assignment(deviations), strict=True)
    return [found[ends] for ends in chosen if ends in found]
