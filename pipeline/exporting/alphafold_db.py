"""A run in the layout of AlphaFold DB's predicted complexes, as its Integration Kit (PDBe) has it.

    AF-<16 digits>-model_v1.cif                       ModelCIF of the best sample
    AF-<16 digits>-confidence_v1.json                 pLDDT of every residue, 0 to 100
    AF-<16 digits>-predicted_aligned_error_v1.json    PAE in Å, [i][j]: error of j in the frame of i
    AF-metadata-<n>-of-<m>.json                       what and how good the models are, 10,000 each
    uniprot_afid_mapping.csv                          a line for each chain
    uniprot_model_metadata.csv                        a line for each model

Residues are numbered through all chains; `chains` in the JSON files says where each begins.
AlphaFold DB gives out identifiers itself: the digits here are a hash of the result's key. Complexes
with other chains than proteins have no place there.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from foldcp.pipeline.exporting.kept_pae import kept_pae
from foldcp.pipeline.exporting.run_results import ComplexResult, Row, RunResults
from foldcp.pipeline.exporting.staged_folder import StagedFolder
from foldcp.pipeline.exporting.structure_text import structure_text, token_plddt
from foldcp.pipeline.storage.results.pae_file import PaeFile

VERSION = 1
MODELS_PER_FILE = 10_000  # of metadata
NO_PAE = "no predicted_aligned_error: the run has not kept the whole PAE"
PAE_ROWS = 256  # in memory at once
DECIMALS = 2
# Lower bounds of pLDDT, each with its category; 90 itself is still H.
CATEGORIES = ((70.0, "H"), (50.0, "M"), (30.0, "L"))
VERY_HIGH = 90.0
OLIGOMERS = {
    1: "monomer", 2: "dimer", 3: "trimer", 4: "tetramer", 5: "pentamer", 6: "hexamer",
    7: "heptamer", 8: "octamer",
}  # fmt: skip
PAE_CUTOFF = 10.0  # Å, of ipSAE
# Score of a dimer in the metadata -> our column, in both directions.
DIRECTED_SCORES = {
    "ipsae": "ipsae_d0res",
    "ipsae_d0chn": "ipsae_d0chn",
    "pDockQ2": "pdockq2",
    "LIS": "lis",
}
CHAIN_FIELDS: tuple[str, ...] = (
    "model_entity_id", "entity_id", "chain_id", "uniprot_ac", "is_fragment", "is_isoform",
    "entity_type", "sequence_start", "sequence_end", "average_plddt", "fraction_plddt_very_low",
    "fraction_plddt_low", "fraction_plddt_confident", "fraction_plddt_very_high",
)  # fmt: skip
MODEL_FIELDS: tuple[str, ...] = (
    "model_entity_id",
    "ipTM",
    "average_plddt",
    "complexName",
    "isAMdata",
)


def write_alphafold_db(results: RunResults, folder: StagedFolder) -> None:
    """Write the best sample of every complex of proteins, and tables of them all."""
    models: list[dict[str, Any]] = []
    with (
        folder.file("uniprot_afid_mapping.csv").open("w", newline="") as chain_file,
        folder.file("uniprot_model_metadata.csv").open("w", newline="") as model_file,
    ):
        chain_lines = csv.DictWriter(chain_file, CHAIN_FIELDS, restval="")
        model_lines = csv.DictWriter(model_file, MODEL_FIELDS, restval="")
        chain_lines.writeheader()
        model_lines.writeheader()
        for complex in results:
            reason = _reason_against(complex)
            if reason:
                results.not_written.append((complex.name, reason))
                continue
            model, chains = _write_complex(results, complex, folder)
            models.append(model)
            chain_lines.writerows(chains)
            model_lines.writerow(_model_line(model))
    batches = [models[i : i + MODELS_PER_FILE] for i in range(0, len(models), MODELS_PER_FILE)]
    for number, batch in enumerate(batches, 1):
        path = folder.file(f"AF-metadata-{number}-of-{len(batches)}.json")
        path.write_text(json.dumps(batch, indent=1))


def model_id(key: str) -> str:
    """AF- and 16 digits, the same for equal keys."""
    return f"AF-{int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10**16:016d}"


def confidence_category(plddt: float) -> str:
    """V (above 90), H (from 70), M (from 50), L (from 30) or D, of pLDDT from 0 to 100."""
    if plddt > VERY_HIGH:
        return "V"
    return next((letter for bound, letter in CATEGORIES if plddt >= bound), "D")


def _reason_against(complex: ComplexResult) -> str:
    """Why a complex cannot be written; empty where it can."""
    best = complex.samples[0]
    others = [
        f"{row['chain']} ({row['molecule_type']})"
        for row in complex.chains_of(best["sample"])
        if row["molecule_type"] != "protein"
    ]
    if others:
        return f"AlphaFold DB's layout is of proteins; chain {', '.join(others)}"
    return "" if best["structure"] is not None else "the run has no structure of its best sample"


def _write_complex(
    results: RunResults, complex: ComplexResult, folder: StagedFolder
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the files of one complex; returns its metadata and the lines of its chains."""
    best = complex.samples[0]
    chains = complex.chains_of(best["sample"])
    entry = model_id(complex.key)
    text = structure_text(results.run / best["structure"])
    folder.file(f"{entry}-model_v{VERSION}.cif").write_text(text, encoding="ascii")
    plddt = np.round(100 * token_plddt(text), DECIMALS)
    spans = _spans(chains)
    _write_confidence(folder.file(f"{entry}-confidence_v{VERSION}.json"), plddt, spans)
    with kept_pae(results.run, best) as pae:
        if pae is None:
            results.notes[NO_PAE] += 1
        else:
            _write_pae(folder.file(f"{entry}-predicted_aligned_error_v{VERSION}.json"), pae, spans)
    model = _metadata(entry, complex, chains, float(plddt.mean()))
    lines = [
        _chain_line(entry, chain, plddt[span["sequenceStart"] - 1 : span["sequenceEnd"]])
        for chain, span in zip(chains, spans, strict=True)
    ]
    return model, lines


def _spans(chains: Sequence[Row]) -> list[dict[str, Any]]:
    """Name, identifier, first and last residue of every chain, counted through all of them."""
    spans = []
    last = 0
    for chain in chains:
        span = {
            "name": chain["protein_name"] or chain["chain"],
            "label_asym_id": chain["chain"],
            "sequenceStart": last + 1,
            "sequenceEnd": last + chain["num_residues"],
        }
        spans.append(span)
        last = span["sequenceEnd"]
    return spans


def _write_confidence(
    path: Path, plddt: Float[np.ndarray, " T"], spans: list[dict[str, Any]]
) -> None:
    values = plddt.tolist()
    document = {
        "residueNumber": list(range(1, len(values) + 1)),
        "confidenceScore": values,
        "confidenceCategory": [confidence_category(value) for value in values],
        "chains": spans,
    }
    path.write_text(json.dumps(document, separators=(",", ":")))


def _write_pae(path: Path, pae: PaeFile, spans: list[dict[str, Any]]) -> None:
    """Write the matrix in blocks of rows, as its text is several times as large."""
    largest = 0.0
    with path.open("w") as file:
        file.write('[{"predicted_aligned_error":[')
        for first in range(0, pae.num_tokens, PAE_ROWS):
            rows = pae.read(slice(first, first + PAE_ROWS), slice(None)).astype(float)
            largest = max(largest, float(rows.max()))
            text = json.dumps(rows.tolist(), separators=(",", ":"))
            file.write("," * bool(first) + text[1:-1])
        rest = json.dumps(spans, separators=(",", ":"))
        file.write(f'],"max_predicted_aligned_error":{largest},"chains":{rest}}}]')


def _metadata(
    entry: str, complex: ComplexResult, chains: list[Row], mean_plddt: float
) -> dict[str, Any]:
    """The metadata of one model; what the run does not know is left out."""
    best = complex.samples[0]
    accessions = [chain["accession"] for chain in chains]
    is_uniprot = all(accessions)
    metadata: dict[str, Any] = {
        "modelEntityId": entry,
        "latestVersion": VERSION,
        "isComplex": len(chains) > 1,
        "isUniProt": is_uniprot,
        "globalMetricValue": round(mean_plddt, DECIMALS),
    }
    metadata |= _assembly(complex, chains) if len(chains) > 1 else {}
    if is_uniprot:
        metadata["uniprotAccession"] = _distinct(accessions)
        metadata["uniprotDescription"] = _distinct(
            chain["protein_name"] or chain["accession"] for chain in chains
        )
    genes = _distinct(chain["gene"] for chain in chains if chain["gene"])
    metadata |= {"gene": genes} if genes else {}
    if best["organism"]:
        metadata["organismScientificName"] = [best["organism"]]
    if best["iptm"] is not None:
        metadata["complexPredictionAccuracy_ipTM"] = round(best["iptm"], DECIMALS)
        metadata["complexPredictionAccuracy_iptm_af"] = best["iptm"]
    scores = _dimer_scores(complex.interfaces_of(best["sample"])) if len(chains) == 2 else {}
    return metadata | {f"complexPredictionAccuracy_{name}": x for name, x in scores.items()}


def _assembly(complex: ComplexResult, chains: list[Row]) -> dict[str, Any]:
    """What kind of complex it is."""
    copies = Counter(chain["entity"] for chain in chains)
    accessions = {chain["entity"]: chain["accession"] for chain in chains}
    kind = "Homo" if len(copies) == 1 else "Hetero"
    state = OLIGOMERS.get(len(chains), f"{len(chains)}-mer")
    composition = [f"{accessions[entity]}_{count}" for entity, count in copies.items()]
    assembly: dict[str, Any] = {
        "complexName": complex.samples[0]["title"] or complex.name,
        "assemblyType": kind,
        "oligomericState": state,
        "oligomericStateDescription": f"{kind}{state}",
    }
    return assembly | ({"complexComposition": composition} if all(accessions.values()) else {})


def _dimer_scores(interfaces: list[Row]) -> dict[str, float]:
    """Scores of the one pair of chains, A before B."""
    forth, back = sorted(interfaces, key=lambda row: row["chain_index_a"])
    scores = {"ipsae_pae_cutoff": PAE_CUTOFF, "pDockQ": forth["pdockq"]}
    for name, column in DIRECTED_SCORES.items():
        scores[f"{name}_AB"] = forth[column]
        scores[f"{name}_BA"] = back[column]
    return {name: value for name, value in scores.items() if value is not None}


def _chain_line(entry: str, chain: Row, plddt: Float[np.ndarray, " R"]) -> dict[str, Any]:
    """The line of a chain, with the shares of its residues in each range of pLDDT."""
    letters = Counter(map(confidence_category, plddt.tolist()))
    shares = {
        "very_low": letters["D"] + letters["L"],
        "low": letters["M"],
        "confident": letters["H"],
        "very_high": letters["V"],
    }
    start, end = _uniprot_range(chain)
    return {
        "model_entity_id": entry,
        "entity_id": chain["entity"],
        "chain_id": chain["chain"],
        "uniprot_ac": chain["accession"],
        "is_fragment": str(bool(chain["residue_range"])).lower(),
        "is_isoform": str("-" in chain["accession"]).lower(),
        "entity_type": "protein",
        "sequence_start": start,
        "sequence_end": end,
        "average_plddt": round(float(plddt.mean()), DECIMALS),
        **{f"fraction_plddt_{name}": round(x / len(plddt), 3) for name, x in shares.items()},
    }


def _uniprot_range(chain: Row) -> tuple[int, int]:
    """First and last residue in UniProt: of a chain without a range all from 1."""
    first, _, last = (chain["residue_range"] or "").partition("-")
    if first.isdigit() and last.isdigit():
        return int(first), int(last)
    return 1, chain["num_residues"]


def _model_line(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_entity_id": model["modelEntityId"],
        "ipTM": model.get("complexPredictionAccuracy_iptm_af", ""),
        "average_plddt": model["globalMetricValue"],
        "complexName": model.get("complexName", ""),
    }


def _distinct(values: Iterable[str]) -> list[str]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))
