"""Table rows of a prediction, a failed complex and an attempt."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from foldcp.complex import DatabaseEntry
from foldcp.features.layout import Layout
from foldcp.metrics.interface.scores import StructureScores
from foldcp.metrics.scores import Scores
from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.types import Attempt
from foldcp.pipeline.storage.columns.chain_columns import CHAIN_COLUMNS
from foldcp.pipeline.storage.columns.interface_columns import (
    INTERFACE_COLUMNS,
    INTERFACE_FIELDS,
    IPSAE_NAMES,
    LIS_NAMES,
    cutoff_column,
)
from foldcp.pipeline.storage.columns.structure_columns import STRUCTURE_COLUMNS, STRUCTURE_FIELDS
from foldcp.pipeline.storage.results.boltz_layout import COMPLEX_SCORES, ranking
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.results.provenance import Provenance

if TYPE_CHECKING:  # the driver, which writes other rows, needs no torch
    from foldcp.predict import Prediction

TYPES = {"float32": float, "int64": int, "bool": bool}
DEFAULT = WriteConfig()
TableRows = dict[str, list[dict[str, Any]]]
# Column of `interfaces` -> field of Scores; both are directed alike.
PAIR_SCORES = {
    "ipsae_d0res": "ipsae_d0res",
    "ipsae_d0chn": "ipsae_d0chn",
    "ipsae_d0dom": "ipsae_d0dom",
    "iptm": "pair_iptm",
    "iptm_boltz": "pair_iptm_boltz",
    "pae_mean": "pae_mean",
    "pae_min": "pae_min",
    "num_contacts": "contacts",
    "interface_plddt": "interface_plddt",
}


def result_rows(
    task: Task,
    layout: Layout,
    prediction: Prediction,
    provenance: Provenance,
    write: WriteConfig = DEFAULT,
) -> TableRows:
    """Rows of `complexes`, `chains` and `interfaces` for a prediction, sample by sample, and of
    `pairs`.

    `write` says which samples have a structure file, and their PAE.
    """
    rows: TableRows = {"complexes": [], "chains": [], "interfaces": []}
    order = ranking(prediction.scores)
    with_files = written_samples(prediction, write)
    written = with_files if write.structures != "none" else []
    pae_samples = with_files if write.num_pae_pairs else []
    chains = _chain_columns(task, layout)
    for sample, scores in enumerate(prediction.scores):
        complex_row = {
            **_complex_columns(task, provenance),
            **_prediction_columns(task, provenance),
            "sample": sample,
            "rank": order.index(sample),
            "structure": structure_path(task.key, sample, write) if sample in written else None,
            "pae": pae_path(task.key, sample) if sample in pae_samples else None,
            **{name: getattr(scores, name) for name in COMPLEX_SCORES},
            **_structure_columns(scores.structure),
        }
        rows["complexes"].append(complex_row)
        shared = {
            "key": task.key,
            "name": task.name,
            "sample": sample,
            **provenance.columns,
        }
        plddts = scores.chain_plddt.tolist()
        ptms = scores.chain_ptm.tolist()
        pdockq2s = scores.chain_pdockq2.tolist()
        for chain, plddt, ptm, pdockq2 in zip(chains, plddts, ptms, pdockq2s, strict=True):
            scored = {"plddt": plddt, "ptm": ptm, "pdockq2": pdockq2}
            rows["chains"].append({**shared, **chain, **scored})
        if sample == 0:
            for row, coverage in zip(rows["chains"], layout.chain_coverage, strict=True):
                row["msa_column_depth"] = coverage.tolist()
        rows["interfaces"] += _interface_rows(chains, scores, shared)
    rows["pairs"] = pair_rows(rows["interfaces"])
    return rows


def failed_rows(task: Task, reason: str, provenance: Provenance) -> TableRows:
    """The row of a complex for which every attempt failed."""
    row = {**_complex_columns(task, provenance), "outcome": "failed", "reason": reason}
    return {"complexes": [row]}


def attempt_row(
    attempt: Attempt,
    started: datetime,
    gpus: str,
    samples: int,
    least_bytes: float,
    predicted_peak_bytes: float,
    seconds: Mapping[str, float] | None = None,
    peak_bytes: int | None = None,
) -> dict[str, Any]:
    """The row of one attempt.

    `least_bytes` and `predicted_peak_bytes` are those of the cost model. `seconds` are those of
    each stage, `peak_bytes` the largest of its ranks; both are given for an attempt that produced a
    prediction.
    """
    task = attempt.task
    shape = attempt.shape
    return {
        "key": task.key,
        "name": task.name,
        "attempt": attempt.number,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "fallbacks": "; ".join(attempt.fallbacks),
        "first_pass": attempt.first_pass,
        "started": started,
        "num_tokens": task.num_tokens,
        "msa_depth": min(task.msa_depth, shape.max_rows),
        "samples": samples,
        "parallel_samples": shape.parallel_samples,
        "group_size": shape.num_ranks,
        "gpus": gpus,
        "precision": shape.precision,
        "batch": shape.batch,
        "seconds": (attempt.ended - attempt.started) / shape.batch,
        "predicted_seconds": attempt.predicted / shape.batch,
        **{f"seconds_{stage}": value for stage, value in (seconds or {}).items()},
        "peak_bytes": peak_bytes,
        "predicted_bytes": int(least_bytes),
        "predicted_peak_bytes": int(predicted_peak_bytes),
    }


def written_samples(prediction: Prediction, write: WriteConfig) -> list[int]:
    """The samples that have files of their own."""
    if write.structure_samples == "best":
        return [ranking(prediction.scores)[0]]
    return list(range(len(prediction.scores)))


def structure_path(key: str, sample: int, write: WriteConfig) -> str:
    """Path of the structure of a sample, relative to the run's folder."""
    return f"{structure_folder(key)}/{sample}.{write.structures}"


def structure_folder(key: str) -> str:
    """Folder of the structures of a complex: one of 256 by the first digits of its key, so that
    none has too many entries.
    """
    return f"structures/{key[:2]}/{key}"


def pae_path(key: str, sample: int) -> str:
    """Path of the PAE of a sample, relative to the run's folder."""
    return f"{structure_folder(key)}/{sample}_pae.h5"


def one_line_notes(notes: Sequence[str]) -> list[str]:
    """The notes of a record, each without line breaks."""
    return [" ".join(note.split()) for note in notes]


def _complex_columns(task: Task, provenance: Provenance) -> dict[str, Any]:
    """Columns of `complexes` that are known before any prediction."""
    complex = task.complex
    return {
        "key": task.key,
        "name": complex.name,
        "title": complex.title,
        "organism": complex.organism,
        "source": complex.source,
        "num_chains": len(complex.chains),
        "num_residues": complex.num_residues,
        "num_tokens": task.num_tokens,
        "msa_depth": task.msa_depth,
        "notes": one_line_notes(complex.notes),
        "settings_hash": provenance.settings_hash,
        **source_columns(complex.entry),
        **provenance.columns,
    }


def source_columns(entry: DatabaseEntry) -> dict[str, Any]:
    """The columns of `complexes` with what the database says."""
    return {f"source_{field.name}": getattr(entry, field.name) for field in fields(entry)}


def _prediction_columns(task: Task, provenance: Provenance) -> dict[str, Any]:
    """Columns of `complexes` that all samples of a prediction share."""
    max_rows = provenance.max_rows
    return {
        "outcome": "done",
        "reason": "",
        "group_size": provenance.num_ranks,
        "precision": provenance.precision,
        "parallel_samples": provenance.parallel_samples,
        "fallbacks": "; ".join(provenance.fallbacks),
        "seed": provenance.seed,
        "msa_depth": min(task.msa_depth, max_rows) if max_rows else task.msa_depth,
    }


def _chain_columns(task: Task, layout: Layout) -> list[dict[str, Any]]:
    """Columns of `chains` that all samples share, for each chain."""
    chains = task.complex.chains
    assert [chain.name for chain in chains] == list(layout.chain_names)
    num_tokens = np.bincount(layout.token_chain, minlength=len(chains)).tolist()
    rows = []
    for index, chain in enumerate(chains):
        statistics = chain.msa_statistics
        content = chain.sequence or chain.smiles or "-".join(chain.ccd)
        row = {
            "chain": chain.name,
            "chain_index": index,
            "molecule_type": chain.kind,
            "entity": int(layout.chain_entities[index]) + 1,
            "accession": chain.entry_accession,
            "residue_range": chain.entry_range,
            "gene": chain.gene,
            "protein_name": chain.protein_name,
            "num_residues": len(chain.sequence) or max(1, len(chain.ccd)),
            "num_tokens": num_tokens[index],
            "sequence_sha256": hashlib.sha256(content.encode()).hexdigest(),
            "msa_depth": int(layout.chain_msa_depth[index]),
            "msa_neff": statistics.neff if statistics else None,
            "msa_coverage": statistics.coverage if statistics else None,
        }
        rows.append(row)
    return rows


def _interface_rows(
    chains: list[dict[str, Any]], scores: Scores, shared: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of every directed pair of different chains."""
    pairs = _pair_columns(scores)
    residues = scores.interface.interface_residues
    rows = []
    for a, chain_a in enumerate(chains):
        for b, chain_b in enumerate(chains):
            if a == b:
                continue
            has_residues = pairs["num_interface_residues_a"][a][b] is not None
            row = {
                **shared,
                "chain_a": chain_a["chain"],
                "chain_b": chain_b["chain"],
                **{f"{name}_a": chain_a[name] for name in CHAIN_COLUMNS},
                **{f"{name}_b": chain_b[name] for name in CHAIN_COLUMNS},
                **{column: values[a][b] for column, values in pairs.items()},
                "num_interface_residues_b": pairs["num_interface_residues_a"][b][a],
                "interface_residues_a": residues[a][b] if has_residues else None,
                "interface_residues_b": residues[b][a] if has_residues else None,
            }
            rows.append(row)
    return rows


def _pair_columns(scores: Scores) -> dict[str, list[list[Any]]]:
    """Column -> its value of each pair of chains [a][b]."""
    arrays = {column: getattr(scores, field) for column, field in PAIR_SCORES.items()}
    for column, field in INTERFACE_FIELDS.items():
        arrays[column] = getattr(scores.interface, field)
    for cutoff, at_cutoff in scores.cutoffs.items():
        for name in (*IPSAE_NAMES, *LIS_NAMES):
            arrays[cutoff_column(name, cutoff)] = getattr(at_cutoff, name)
    without_value = np.full((len(scores.chain_ptm), len(scores.chain_ptm)), np.nan)
    columns = {}
    for column in INTERFACE_COLUMNS:
        if column.type == "string":
            continue
        values = arrays.get(column.name, without_value)
        columns[column.name] = _counts(values) if column.type == "int64" else values.tolist()
    return columns


def _structure_columns(scores: StructureScores) -> dict[str, Any]:
    """The columns of `complexes` beside those of Boltz."""
    columns: dict[str, Any] = {}
    for column in STRUCTURE_COLUMNS:
        value = getattr(scores, STRUCTURE_FIELDS[column.name])
        convert = TYPES[column.type]
        columns[column.name] = None if math.isnan(value) else convert(value)
    return columns


def _counts(values: Float[np.ndarray, "C C"]) -> list[list[int | None]]:
    """Whole numbers; None for NaN."""
    return [[None if np.isnan(value) else int(value) for value in row] for row in values.tolist()]
