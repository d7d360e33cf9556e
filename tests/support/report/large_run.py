"""A run's folder as large as a database, with invented complexes, scores and structures.

python -m tests.support.report.large_run FOLDER 5000 --structures 600
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from foldcp.complex import Chain, Complex, InvalidComplex, chain_names
from foldcp.features.layout import Layout
from foldcp.metrics.interface.scores import CutoffScores
from foldcp.pipeline.config import WriteConfig, WrittenSamples
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.filesystem import FileSystem
from foldcp.pipeline.storage.results.invalid_records import invalid_rows
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import failed_rows, result_rows
from foldcp.pipeline.storage.run_folder import RunInfo
from foldcp.pipeline.storage.store import Store
from foldcp.predict import Prediction
from tests.support.report.helix_bundles import GAP, HELIX, bundle_coordinates
from tests.support.synthetic import pae_blocks_of, synthetic_layout, synthetic_scores
from tests.support.synthetic_results import INFO, finishing

PROTEINS = 2_500  # different ones
RESIDUES = ("ALA", "GLY", "SER")
LETTERS = {"ALA": "A", "GLY": "G", "SER": "S"}
ORGANISMS = ("Human", "Mouse", "Rat")
FAILURES = (
    "P{number:05}: no sequence among those of uniprot.fasta",
    "the GPU is out of memory with 1 rank, bf16 and 1,024 MSA rows; 8 more GPUs are needed",
    "the fold took over 312 s",
    "its worker died twice",
)
NOTES = (
    "stoichiometry: not given: one copy of each",
    "subunits: 1 of {chains} has no accession and is left out",
    "msa: no alignment for P{number:05}",
)
GPUS = 8
DIMERS = 50  # different ones
NO_STRUCTURES = WriteConfig(structures="none")
MAX_PAE_TOKENS = 1_000
STAGES = {"features": 0.1, "trunk": 0.45, "sampling": 0.35, "confidence": 0.08, "write": 0.02}


class _Unsynced(FileSystem):
    """Files that nobody needs after a crash."""

    def sync(self, path: Path) -> None:
        """Nothing."""


def write_large_run(
    out: Path,
    num_complexes: int,
    num_structures: int,
    num_samples: int = 5,
    info: RunInfo = INFO,
    names: Mapping[int, str] | None = None,
    chain_counts: Sequence[int] = (),
    structure_samples: WrittenSamples = "best",
) -> None:
    """Fill a run's folder through the store; the first complexes have structures and PAE.

    `names` are those of some complexes, by their number; `chain_counts` the numbers of chains of
    each, which are drawn where it is empty.
    """
    given = names or {}
    provenance = Provenance(info.checkpoint, info.untrained, 0, 1, "mixed", 4096)
    started = datetime(2026, 3, 1, 8, tzinfo=UTC)
    free = np.zeros(GPUS)
    with finishing(Store.open(out, info, _Unsynced())) as store:
        for number in range(num_complexes):
            name = given.get(number, str(number + 1))
            rng = np.random.default_rng([7, number])  # the same whatever the others are
            num_chains = chain_counts[number] if chain_counts else 0
            task = _task(number, name, rng, num_chains)
            _attempts(store, task, number, free, started, num_samples, rng)
            if number % 61 == 60:
                reason = FAILURES[1 + number % 3]
                store.put(task.key, failed_rows(task, reason, provenance))
                continue
            layout = _layout(task)
            prediction = _prediction(layout, num_samples, rng, with_files=number < num_structures)
            has_pae = number < num_structures and len(layout.token_chain) < MAX_PAE_TOKENS
            kept_pae = "all" if has_pae else "none"
            write = WriteConfig(pae=kept_pae, structure_samples=structure_samples)
            files = {}
            if number < num_structures:
                files = result_files(
                    task,
                    layout,
                    prediction,
                    provenance,
                    write,
                    partial(pae_blocks_of, prediction),
                )
            store.put(task.key, result_rows(task, layout, prediction, provenance, write), files)
        records = [
            InvalidComplex(f"{9000 + n}", FAILURES[0].format(number=n))
            for n in range(max(2, num_complexes // 100))
        ]
        store.put_many(invalid_rows(records, provenance))


def write_dimers(out: Path, num_complexes: int, num_samples: int, info: RunInfo = INFO) -> None:
    """Fill a run's folder with complexes of two chains, whose scores are those of a few."""
    provenance = Provenance(info.checkpoint, info.untrained, 0, 1, "mixed", 4096)
    started = datetime(2026, 3, 1, 8, tzinfo=UTC)
    free = np.zeros(GPUS)
    made = []
    rng = np.random.default_rng(7)
    for number in range(DIMERS):
        task = _task(number, str(number), rng, 2)
        layout = _layout(task)
        prediction = _prediction(layout, num_samples, rng, with_files=False)
        made.append((task, result_rows(task, layout, prediction, provenance, NO_STRUCTURES)))
    with finishing(Store.open(out, info)) as store:
        for number in range(num_complexes):
            task, rows = made[number % DIMERS]
            key = hashlib.sha256(f"{number}".encode()).hexdigest()[:32]
            own = {"key": key, "name": f"{number:07}"}
            task = replace(task, key=key)
            store.put(key, {name: [{**row, **own} for row in part] for name, part in rows.items()})
            _attempts(store, task, number, free, started, num_samples, rng)


def _task(number: int, name: str, rng: np.random.Generator, num_chains: int = 0) -> Task:
    """A complex of so many chains, or of as many as those of CORUM have: most few, some many."""
    num_entities = int(min(2 + rng.geometric(0.38) - 1, 40)) if number % 400 != 399 else 60
    num_entities = num_chains or num_entities
    names = list(islice(chain_names(), 2 * num_entities))
    chains = []
    for _ in range(num_entities):
        protein = int(min(rng.zipf(1.35), PROTEINS))
        length = 60 + (protein * 7919) % 420
        sequence = "".join(LETTERS[code] for code in _codes(protein, length))
        copies = 2 if not num_chains and rng.random() < 0.18 else 1
        for _ in range(copies):
            chain = Chain(
                names[len(chains)],
                "protein",
                sequence,
                accession=f"P{protein:05}",
                gene=_gene(protein),
                protein_name=f"Invented protein {protein}",
            )
            chains.append(chain)
    notes = [note.format(number=number, chains=len(chains)) for note in NOTES[: number % 4]]
    complex = Complex(
        name,
        tuple(chains),
        title=f"{_gene(number * 37)} complex"
        + (" with a rather long description" * (number % 5 == 4)),
        organism=ORGANISMS[number % 7 % 3],
        notes=tuple(notes),
    )
    key = hashlib.sha256(f"{number}".encode()).hexdigest()[:32]
    return Task(complex, key, complex.num_residues, 1_000)


def _codes(protein: int, length: int) -> list[str]:
    return [RESIDUES[(protein + place * place) % 3] for place in range(length)]


def _title(number: int) -> str:
    suffix = " with a rather long description" if number % 5 == 4 else ""
    return f"{_gene(number * 37)} complex{suffix}"


def _gene(number: int) -> str:
    """An invented gene name."""
    letters = "BDFGKLMNPRSTVX"
    return "".join(letters[(number // 14**i) % 14] for i in range(3)) + str(number % 19 + 1)


def _layout(task: Task) -> Layout:
    codes = {letter: code for code, letter in LETTERS.items()}
    chains = [("protein", [codes[letter] for letter in c.sequence]) for c in task.complex.chains]
    names = [chain.name for chain in task.complex.chains]
    depths = [
        1 + int(hashlib.sha256(c.accession.encode()).digest()[0]) ** 2 // 8
        for c in task.complex.chains
    ]
    layout = synthetic_layout(chains, names, depths)
    sequences = zip(chains, depths, strict=True)
    coverage = [_coverage(len(residues), depth) for (_, residues), depth in sequences]
    return replace(layout, chain_coverage=coverage)


def _coverage(length: int, depth: int) -> np.ndarray:
    """Most rows of an alignment have a chain's middle; some chains have none."""
    if depth < 20:
        return np.zeros(0, np.int32)
    place = np.arange(length) / length
    share = 0.95 - 0.75 * np.abs(2 * place - 0.9) ** 3 + 0.05 * np.sin(25 * place)
    return np.maximum(1, np.clip(share, 0, 1) * depth).astype(np.int32)


def _prediction(
    layout: Layout, num_samples: int, rng: np.random.Generator, with_files: bool
) -> Prediction:
    """Scores that hang together: chains near each other in a ring interact."""
    num_chains = len(layout.chain_names)
    quality = rng.beta(2.2, 1.6)
    chain_quality = np.clip(quality + rng.normal(0, 0.12, num_chains), 0.2, 0.97)
    nearness = _nearness(num_chains, rng)
    scores = []
    for _ in range(num_samples):
        noise = rng.normal(0, 0.03, (num_chains, num_chains))
        bound = np.clip(nearness * np.sqrt(np.outer(chain_quality, chain_quality)) + noise, 0, 0.98)
        ipsae = np.where(bound < 0.25, 0, bound).astype(np.float32)
        np.fill_diagonal(ipsae, np.nan)
        contacts = np.triu((120 * np.maximum(bound - 0.3, 0)).astype(np.int32), 1)
        contacts = contacts + contacts.T
        pae = (31.0 - 29 * np.clip(bound, 0, 1)).astype(np.float32)
        np.fill_diagonal(pae, np.nan)
        plddt = np.clip(chain_quality + rng.normal(0, 0.01, num_chains), 0, 1).astype(np.float32)
        best = float(np.nanmax(bound)) if num_chains > 1 else 0.0
        whole = {
            "confidence_score": float(0.8 * plddt.mean() + 0.2 * best),
            "ptm": float(np.clip(quality * 0.9, 0, 1)),
            "iptm": best * 0.95,
            "protein_iptm": best * 0.95,
            "ligand_iptm": 0.0,
            "complex_plddt": float(plddt.mean()),
            "complex_iplddt": float(plddt.mean() * 0.95),
            "complex_pde": float(1 + 6 * (1 - quality)),
            "complex_ipde": float(1 + 9 * (1 - quality)),
        }
        random = synthetic_scores(layout, rng)
        sample = replace(
            random,
            **{name: value for name, value in whole.items() if hasattr(random, name)},
            ipsae_d0res=ipsae,
            ipsae_d0chn=(ipsae * 0.93).astype(np.float32),
            ipsae_d0dom=(ipsae * 0.96).astype(np.float32),
            pair_iptm=np.sqrt(ipsae).astype(np.float32) * np.float32(0.95),
            pae_mean=pae,
            pae_min=(pae * 0.4).astype(np.float32),
            contacts=contacts,
            chain_plddt=plddt,
            interface_plddt=np.where(contacts > 0, plddt[:, None], np.float32(np.nan)),
            interface=replace(
                random.interface,
                interface_residues=_interface_residues(layout, contacts, rng),
                num_interface_residues=np.where(contacts > 0, 12.0, 0.0),
                clashes=np.where(contacts > 70, 1.0, 0.0),
                clashing_atoms=np.zeros_like(pae),
                contact_pae=pae * np.float32(0.6),
                pde_mean=pae * np.float32(0.8),
                pde_min=pae * np.float32(0.3),
                contact_prob_max=np.sqrt(ipsae),
                contact_prob_top10=ipsae,
                actifptm=np.sqrt(ipsae) * np.float32(0.97),
                pitm=ipsae * np.float32(0.9),
                af2complex_score=ipsae * np.float32(1.2),
                ligand_iptm=np.full_like(pae, np.nan),
                pdockq=ipsae * np.float32(0.74),
                pdockq2=ipsae * np.float32(0.9),
                pdockq2_original=ipsae * np.float32(0.85),
            ),
            structure=replace(
                random.structure,
                ranking_score=0.76 * best + 0.2 * quality,
                fraction_disordered=float(0.3 * (1 - quality)),
                has_clash=0.0,
                mpdockq=best * 0.7,
            ),
            cutoffs={10: _cutoff_scores(ipsae, 1.0), 12: _cutoff_scores(ipsae, 1.05)},
        )
        scores.append(sample)
    coords = np.zeros((num_samples, 0, 3), np.float32)
    plddt = np.zeros((num_samples, 0), np.float32)
    pae = []
    if with_files:
        one = bundle_coordinates(layout)
        coords = np.broadcast_to(one, (num_samples, *one.shape))
        plddt = _token_plddt(layout, chain_quality, num_samples, rng)
        if len(layout.token_chain) < MAX_PAE_TOKENS:
            pae = _token_pae(layout, nearness, plddt, rng)
    return Prediction(
        coords=coords,
        plddt=plddt,
        scores=scores,
        pae=pae,
        pde=[],
        layout=layout,
        seconds={"trunk": 1.5, "sampling": 2.5, "confidence": 0.25},
        peak_bytes=12345,
    )


def _interface_residues(
    layout: Layout, contacts: np.ndarray, rng: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """Twelve residues in two runs for every chain of a pair in contact."""
    lengths = np.bincount(layout.token_chain)
    texts = []
    for a, name in enumerate(layout.chain_names):
        firsts = rng.integers(1, max(2, lengths[a] - 40), len(lengths))
        found = [f"{name}:{n}-{n + 7},{n + 24}-{n + 27}" for n in firsts.tolist()]
        texts.append(tuple(np.where(contacts[a] > 0, found, "").tolist()))
    return tuple(texts)


def _cutoff_scores(ipsae: np.ndarray, factor: float) -> CutoffScores:
    """Scores at a cutoff of PAE, as large as ipSAE is."""
    scaled = np.minimum(ipsae * np.float32(factor), np.float32(0.99))
    pairs = np.round(scaled.astype(float) * 9_000)
    return CutoffScores(
        ipsae_d0res=scaled,
        ipsae_d0chn=scaled * np.float32(0.93),
        ipsae_d0dom=scaled * np.float32(0.96),
        lis=scaled * np.float32(0.7),
        lia=pairs,
        clis=scaled * np.float32(0.8),
        clia=np.round(pairs / 40),
        ilis=scaled * np.float32(0.75),
    )


def _nearness(num_chains: int, rng: np.random.Generator) -> np.ndarray:
    """0 to 1 for every pair: near ones interact, some others do."""
    ring = np.arange(num_chains)
    distance = np.abs(ring[:, None] - ring[None, :])
    distance = np.minimum(distance, num_chains - distance)
    near = np.where(distance <= 1, rng.uniform(0.55, 1, (num_chains, num_chains)), 0.0)
    others = np.where(rng.random((num_chains, num_chains)) < 0.12, 0.6, 0.05)
    nearness = np.maximum(near, others)
    return np.maximum(nearness, nearness.T)


def _token_plddt(
    layout: Layout, chain_quality: np.ndarray, num_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """High in helices, lower in loops and at both ends."""
    place = layout.token_residue.astype(float)
    length = np.bincount(layout.token_chain)[layout.token_chain]
    ends = np.minimum(place, length - place + 1)
    in_helix = (place % (HELIX + GAP)) < HELIX
    base = chain_quality[layout.token_chain] + 0.08 * in_helix - 0.14 * ~in_helix
    base = base - 0.45 * np.exp(-ends / 5)
    noise = rng.normal(0, 0.02, (num_samples, len(place)))
    return np.clip(base + noise, 0.15, 0.99).astype(np.float32)


def _token_pae(
    layout: Layout, nearness: np.ndarray, plddt: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Small within a chain and between near ones."""
    chain = layout.token_chain
    between = 30 - 27 * np.clip(nearness, 0, 1)
    np.fill_diagonal(between, 2.0)
    matrices = []
    for sample in plddt:
        doubt = 8 * (1 - sample)
        matrix = between[chain[:, None], chain[None, :]] + doubt[None, :] + 0.5 * doubt[:, None]
        matrix += rng.normal(0, 0.4, matrix.shape)
        matrices.append(np.clip(matrix, 0.2, 31.7).astype(np.float32))
    return matrices


def _attempts(
    store: Store,
    task: Task,
    number: int,
    free: np.ndarray,
    started: datetime,
    samples: int,
    rng: np.random.Generator,
) -> None:
    """Attempts on the GPU that is free first; some run out of memory first, some fail."""
    predicted = 3.0 + (task.num_tokens / 400) ** 2
    outcomes = ["done"]
    if number % 61 == 60:
        outcomes = [("worker_died", "oom", "timeout")[number % 3]] * 2
    elif task.num_tokens > 2_500 or number % 97 == 96:
        outcomes = ["oom", "done"]
    for attempt, outcome in enumerate(outcomes, 1):
        size = 2 if task.num_tokens > 2_500 else 1
        gpus = np.argsort(free, kind="stable")[:size]
        begin = float(free[gpus].max())
        seconds = float(predicted * rng.lognormal(0, 0.18) * (0.4 if outcome == "oom" else 1))
        free[gpus] = begin + seconds + 0.5
        store.put_attempt(
            {
                "key": task.key,
                "name": task.name,
                "attempt": attempt,
                "outcome": outcome,
                "reason": "" if outcome == "done" else f"invented: {outcome}",
                "fallbacks": "" if attempt == 1 else "parallel_samples 5 -> 1",
                "started": started + timedelta(seconds=begin),
                "num_tokens": task.num_tokens,
                "msa_depth": task.msa_depth,
                "samples": samples,
                "parallel_samples": 5 if attempt == 1 else 1,
                "group_size": size,
                "gpus": "node-1:" + ",".join(str(gpu) for gpu in gpus),
                "precision": "mixed",
                "seconds": seconds,
                "predicted_seconds": predicted,
                **{f"seconds_{stage}": share * seconds for stage, share in STAGES.items()},
                "peak_bytes": int(2e9 + 900 * task.num_tokens**2),
                "predicted_bytes": int(2e9 + 600 * task.num_tokens**2),
                "predicted_peak_bytes": int(2e9 + 1000 * task.num_tokens**2),
            }
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a large run of invented results.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("complexes", type=int)
    parser.add_argument("--structures", type=int, default=0)
    arguments = parser.parse_args()
    write_large_run(arguments.folder, arguments.complexes, arguments.structures)
