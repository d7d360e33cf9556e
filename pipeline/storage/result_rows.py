"""A task and what came of it -> rows of the tables, and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from foldcp.complex import InvalidComplex
from foldcp.features.layout import Layout
from foldcp.metrics.scores import Scores
from foldcp.pipeline.config import Extra
from foldcp.pipeline.inputs.tasks import KEY_LENGTH, Task
from foldcp.pipeline.scheduling.types import Attempt
from foldcp.pipeline.storage.boltz_layout import (
    SUMMARY,
    boltz_files,
    file_stem,
    ranking,
    write_array,
)
from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.store import Store
from foldcp.predict import Prediction
from foldcp.structure import write_cif

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
    "contacts": "contacts",
    "interface_plddt": "interface_plddt",
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """How results were made: on what weights, and for a fold by how many ranks, in which
    arithmetic, from how many alignment rows at most. `settings` is the digest of the settings that
    results hang on, `repeated` are the names of more than one complex.
    """

    checkpoint: str
    untrained: bool
    seed: int | None = None
    num_ranks: int | None = None
    precision: str | None = None
    max_rows: int | None = None
    settings: str = ""
    repeated: frozenset[str] = frozenset()

    @property
    def stamp(self) -> dict[str, Any]:
        """What every row says."""
        return {"checkpoint": self.checkpoint, "untrained": self.untrained}


def result_rows(task: Task, layout: Layout, prediction: Prediction, made: Provenance) -> TableRows:
    """Rows of `complexes`, `chains` and `interfaces` for a fold, one sample after the other."""
    rows: TableRows = {"complexes": [], "chains": [], "interfaces": []}
    order = ranking(prediction.scores)
    about = {
        **_about(task, made),
        "outcome": "done",
        "reason": "",
        "group_size": made.num_ranks,
        "precision": made.precision,
        "seed": made.seed,
        "msa_depth": min(task.msa_depth, made.max_rows) if made.max_rows else task.msa_depth,
    }
    chains = _chains(task, layout)
    for sample, scores in enumerate(prediction.scores):
        whole = {name: getattr(scores, name) for name in SUMMARY}
        place = {
            "sample": sample,
            "rank": order.index(sample),
            "structure": structure_path(task.key, sample),
        }
        rows["complexes"].append({**about, **place, **whole})
        base = {"key": task.key, "name": task.name, "sample": sample, **made.stamp}
        rows["chains"] += [
            {**base, **chain, "plddt": plddt, "ptm": ptm}
            for chain, plddt, ptm in zip(
                chains,
                scores.chain_plddt.tolist(),
                scores.chain_ptm.tolist(),
                strict=True,
            )
        ]
        rows["interfaces"] += _interfaces(chains, scores, base)
    return rows


def failed_rows(task: Task, reason: str, made: Provenance) -> TableRows:
    """The row of a complex for which every attempt failed."""
    return {"complexes": [{**_about(task, made), "outcome": "failed", "reason": reason}]}


def invalid_rows(records: Sequence[InvalidComplex], made: Provenance) -> dict[str, TableRows]:
    """key -> rows, of the records of an input that are no complexes. The key is the hash of the
    record's name and place in the input, so that another reason replaces the first.
    """
    rows: dict[str, TableRows] = {}
    for record in records:
        key = _hash(["invalid", record.name, record.place])
        about = {
            name: getattr(record, name)
            for name in ("name", "reason", "title", "organism", "source")
        }
        rows[key] = {
            "complexes": [
                {
                    "key": key,
                    **about,
                    "outcome": "invalid",
                    "notes": one_line_notes(record.notes),
                    "settings": made.settings,
                    **made.stamp,
                }
            ]
        }
    return rows


def _hash(content: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:KEY_LENGTH]


def sync_invalid(store: Store, records: Sequence[InvalidComplex], made: Provenance) -> None:
    """Store the rows of records that are no complexes, each once, with the reason of now. Those
    that are gone are removed by `Store.mark_stale`.
    """
    stored = store.reasons("invalid")
    for key, rows in invalid_rows(records, made).items():
        if stored.get(key) != rows["complexes"][0]["reason"]:
            store.put(key, rows)


def result_files(
    task: Task,
    layout: Layout,
    prediction: Prediction,
    made: Provenance,
    write: Sequence[Extra] = (),
) -> dict[str, Content]:
    """Path in the run's folder -> content: the structure of every sample, and what `write` asks
    for. `pae`, `pde` and `boltz` need a prediction that kept them.
    """
    weights = made.checkpoint + (
        ": random weights, the structure means nothing" if made.untrained else ""
    )
    details = f"foldcp, weights {weights}"
    files: dict[str, Content] = {}
    for sample, (coords, plddt) in enumerate(zip(prediction.coords, prediction.plddt, strict=True)):
        path = structure_path(task.key, sample)
        title = task.complex.title or task.name
        files[path] = partial(
            write_cif,
            layout=layout,
            coords=coords,
            plddt=plddt,
            name=task.name,
            title=title,
            details=details,
        )
        for name in ("pae", "pde"):
            if name in write:
                array = getattr(prediction, name)[sample]
                files[path.replace(".cif", f"_{name}.npz")] = partial(
                    write_array, name=name, array=array
                )
    if "boltz" in write:
        stem = file_stem(task.name, task.key, task.name in made.repeated)
        files |= boltz_files(task.name, stem, layout, prediction, details, write_pde="pde" in write)
    return files


def attempt_row(
    attempt: Attempt,
    started: datetime,
    gpus: str,
    samples: int,
    predicted_bytes: float,
    seconds: Mapping[str, float] | None = None,
    peak_bytes: int | None = None,
) -> dict[str, Any]:
    """The row of one try. `seconds` are those of each stage, `peak_bytes` the largest of its ranks;
    both of a fold that came to its end.
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
        "started": started,
        "num_tokens": task.num_tokens,
        "msa_depth": min(task.msa_depth, shape.max_rows),
        "samples": samples,
        "parallel_samples": shape.parallel_samples,
        "group_size": shape.num_ranks,
        "gpus": gpus,
        "precision": shape.precision,
        "seconds": attempt.ended - attempt.started,
        "predicted_seconds": attempt.predicted,
        **{f"seconds_{stage}": value for stage, value in (seconds or {}).items()},
        "peak_bytes": peak_bytes,
        "predicted_bytes": int(predicted_bytes),
    }


def structure_path(key: str, sample: int) -> str:
    """Where the structure of a sample lies in the run's folder."""
    return f"structures/{key}/{sample}.cif"


def _about(task: Task, made: Provenance) -> dict[str, Any]:
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
        "settings": made.settings,
        **made.stamp,
    }


def one_line_notes(notes: Sequence[str]) -> list[str]:
    """The notes of a record, each without line breaks."""
    return [" ".join(note.split()) for note in notes]


def _chains(task: Task, layout: Layout) -> list[dict[str, Any]]:
    """What `chains` says of each chain before any sample."""
    chains = task.complex.chains
    assert [chain.name for chain in chains] == list(layout.chain_names)
    num_tokens = np.bincount(layout.token_chain, minlength=len(chains)).tolist()
    return [
        {
            "chain": chain.name,
            "chain_index": index,
            "kind": chain.kind,
            "accession": chain.accession,
            "num_residues": len(chain.sequence) or max(1, len(chain.ccd)),
            "num_tokens": num_tokens[index],
            "sequence_sha256": hashlib.sha256(
                (chain.sequence or chain.smiles or "-".join(chain.ccd)).encode()
            ).hexdigest(),
            "msa_depth": int(layout.chain_msa_depth[index]),
        }
        for index, chain in enumerate(chains)
    ]


def _interfaces(
    chains: list[dict[str, Any]], scores: Scores, base: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every directed pair of different chains."""
    pairs = {column: getattr(scores, field).tolist() for column, field in PAIR_SCORES.items()}
    return [
        {
            **base,
            "chain_a": chain_a["chain"],
            "chain_b": chain_b["chain"],
            "accession_a": chain_a["accession"],
            "accession_b": chain_b["accession"],
            **{column: values[a][b] for column, values in pairs.items()},
        }
        for a, chain_a in enumerate(chains)
        for b, chain_b in enumerate(chains)
        if a != b
    ]
