"""Columns of every table: name, type, unit and meaning. Plain data, which needs no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foldcp.pipeline.storage.columns.band_columns import BAND_COLUMNS
from foldcp.pipeline.storage.columns.chain_columns import chain_columns
from foldcp.pipeline.storage.columns.column import (
    Column,
    bytes_,
    count,
    names,
    score,
    seconds,
    text,
)
from foldcp.pipeline.storage.columns.evaluation_columns import (
    COMPLEX_EVALUATION_COLUMNS,
    INTERFACE_EVALUATION_COLUMNS,
    REFERENCE_COLUMNS,
)
from foldcp.pipeline.storage.columns.interface_columns import INTERFACE_COLUMNS
from foldcp.pipeline.storage.columns.pair_columns import (
    PAIR_STATISTICS,
    PROTEIN_PAIR_STATISTICS,
    is_score,
    statistics_columns,
)
from foldcp.pipeline.storage.columns.source_columns import SOURCE_COLUMNS
from foldcp.pipeline.storage.columns.structure_columns import STRUCTURE_COLUMNS

Row = Mapping[str, Any]  # by column name


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run's folder.

    `commit_column` names the commit that a row belongs to; the rows of one commit appear together
    or not at all. Rows are sorted by `sort_columns`.
    """

    name: str
    description: str
    commit_column: str
    sort_columns: tuple[str, ...]
    columns: tuple[Column, ...]

    def has(self, column: str) -> bool:
        """Whether the table has a column of this name."""
        return any(existing.name == column for existing in self.columns)


KEY = Column(
    "key",
    "string",
    "identity of the result: hash of the complex, its alignments and templates, the settings that "
    "change results, and the weights; of the name and position in the input for an invalid record",
)
NAME = Column("name", "string", "name of the complex in the input")
SAMPLE = Column("sample", "int64", "number of the sampled structure, from 0", "index")
CHECKPOINT = Column(
    "checkpoint",
    "string",
    "identity of the weights: sha256:HEX of the checkpoint file, or untrained:NAME for random "
    "weights, whose scores mean nothing",
)
UNTRAINED = Column("untrained", "bool", "true when the weights are random")
STALE = Column(
    "stale",
    "bool",
    "true for a result of an earlier input or of other settings; such rows are left out unless "
    "run.stale is keep",
    default=False,
)
GROUP_SIZE = count("group_size", "GPUs (or CPU ranks) that folded it together", nullable=True)
PRECISION = Column(
    "precision", "string", "precision of the network: fp32, mixed, bf16 or bf16-int8", nullable=True
)
PARALLEL_SAMPLES = count("parallel_samples", "structures sampled at once", nullable=True)
MSA_DEPTH = count("msa_depth", "MSA rows that the network read", nullable=True)

COMPLEXES = Table(
    "complexes",
    "One row per complex and sample; a complex without a result has one row with the reason.",
    "key",
    ("name", "key", "sample"),
    (
        KEY,
        NAME,
        Column("title", "string", "title or description of the complex, as in the input"),
        Column("organism", "string", "organism, as in the input"),
        Column("source", "string", "file that the complex was read from"),
        Column(
            "outcome",
            "string",
            "done, failed (no attempt succeeded) or invalid (the record cannot be folded)",
        ),
        Column("reason", "string", "why there is no result; empty when done"),
        Column(
            "notes",
            "list<string>",
            "what was assumed or left out where the input does not say, each as subject: text, "
            "such as 'stoichiometry: not given for P12345: one copy'; pandas reads each list as an "
            "array",
            default=(),
        ),
        names(
            "missing_accessions",
            "subunits without a known sequence, for which the record is invalid",
        ),
        count("num_chains", "chains", nullable=True),
        count("num_residues", "residues of all polymers", nullable=True),
        count(
            "num_tokens",
            "tokens: residues, modified or not, and heavy atoms of ligands",
            nullable=True,
        ),
        MSA_DEPTH,
        Column(
            "sample",
            "int64",
            "number of the sampled structure, from 0; null without a result",
            "index",
            nullable=True,
        ),
        Column(
            "rank",
            "int64",
            "rank of the sample by confidence_score, from 0, the best",
            "index",
            nullable=True,
        ),
        score(
            "confidence_score",
            "(4 complex_plddt + iptm) / 5, with ptm for iptm when there is one chain",
        ),
        score("ptm", "predicted TM-score of the whole complex"),
        score("iptm", "predicted TM-score over pairs of different chains; null for one chain"),
        score("ligand_iptm", "iptm over pairs of a ligand and a protein; null without any"),
        score("protein_iptm", "iptm over pairs of different proteins; null without any"),
        score("complex_plddt", "mean pLDDT of all tokens"),
        score(
            "complex_iplddt",
            "mean pLDDT that counts interface tokens 10 times and ligand tokens 20 times",
        ),
        score(
            "complex_pde",
            "expected distance error of pairs likely in contact",
            "Å, lower is better",
        ),
        score(
            "complex_ipde",
            "expected distance error of pairs of different chains likely in contact; null for one "
            "chain",
            "Å, lower is better",
        ),
        *STRUCTURE_COLUMNS,
        Column(
            "structure",
            "string",
            "path of the sample's structure file, relative to the run's folder; null where none is "
            "written (write.structures, write.structure_samples)",
            nullable=True,
        ),
        Column(
            "pae",
            "string",
            "path of the sample's PAE, relative to the run's folder, for `foldcp.PaeFile`; null "
            "where none is kept (write.pae)",
            nullable=True,
        ),
        GROUP_SIZE,
        PRECISION,
        PARALLEL_SAMPLES,
        Column(
            "fallbacks",
            "string",
            "what was changed as attempts at it ran out of memory, as in attempts; empty for "
            "nothing, null without a result",
            nullable=True,
        ),
        Column("seed", "int64", "seed of the diffusion noise", nullable=True),
        Column(
            "settings_hash",
            "string",
            "hash of the settings that change results; runs.settings has every setting",
            default="",
        ),
        *SOURCE_COLUMNS,
        CHECKPOINT,
        UNTRAINED,
        STALE,
    ),
)
CHAINS = Table(
    "chains",
    "One row per chain and sample of every complex with a result.",
    "key",
    ("name", "key", "sample", "chain_index"),
    (
        KEY,
        NAME,
        SAMPLE,
        Column("chain", "string", "name of the chain, as in the structure file"),
        Column("chain_index", "int64", "position of the chain in the complex, from 0", "index"),
        Column("molecule_type", "string", "protein, dna, rna or ligand"),
        Column(
            "entity",
            "int64",
            "number of the molecule in the complex, from 1, equal for its copies, as in the "
            "structure file",
            "index",
        ),
        Column(
            "accession",
            "string",
            "UniProt accession, without a range; empty where the input has none",
        ),
        text(
            "residue_range",
            "residues of the UniProt entry that the chain is, such as 325-356; empty for all",
        ),
        text("gene", "gene name, of the sequence's entry or of the database; empty if unknown"),
        text("protein_name", "name of the protein, likewise"),
        count("num_residues", "residues; components of a ligand"),
        count("num_tokens", "tokens"),
        Column(
            "sequence_sha256",
            "string",
            "SHA-256 of the sequence, to find equal chains and changed entries",
        ),
        count(
            "msa_depth",
            "different MSA rows of the chain that were used, with the query",
        ),
        Column(
            "msa_column_depth",
            "list<int32>",
            "of these rows, those with a residue, not a gap, at each residue of the chain; empty "
            "for a chain without an alignment; null but for sample 0, as it is the same for all",
            "count",
            nullable=True,
        ),
        Column(
            "msa_neff",
            "float32",
            "effective number of sequences of the whole alignment: the sum over them of 1 / "
            "(sequences at least 80% identical); null unless `foldcp msa` made the alignment",
            "sequences",
            nullable=True,
        ),
        Column(
            "msa_coverage",
            "float32",
            "mean share of the chain's residues that a sequence of the alignment covers; null "
            "unless `foldcp msa` made the alignment",
            "0..1",
            nullable=True,
        ),
        score("plddt", "mean pLDDT of the chain's tokens"),
        score(
            "ptm",
            "predicted TM-score of the chain, d0 from its own length (as AlphaFold 3)",
        ),
        score(
            "pdockq2",
            "pDockQ2 of the chain as published (Zhu 2023), over its CA contacts with all other "
            "proteins; 0 without contact; null unless it is one of several proteins",
        ),
        CHECKPOINT,
        UNTRAINED,
        STALE,
    ),
)
INTERFACES = Table(
    "interfaces",
    "One row per directed pair of different chains and sample: errors of the tokens of chain_b "
    "from the frames of chain_a. Both directions are there and differ; their minimum is the strict "
    "choice, their maximum the usual one.",
    "key",
    ("name", "key", "sample", "chain_a", "chain_b"),
    (
        KEY,
        NAME,
        SAMPLE,
        Column("chain_a", "string", "name of the chain whose frames are used (aligned)"),
        Column("chain_b", "string", "name of the chain whose tokens are scored"),
        *chain_columns("a"),
        *chain_columns("b"),
        *INTERFACE_COLUMNS,
        CHECKPOINT,
        UNTRAINED,
        STALE,
    ),
)
INTERFACE_SCORES = tuple(filter(is_score, INTERFACE_COLUMNS))
PAIRS = Table(
    "pairs",
    "One row per pair of different chains of a complex, in the order of the complex, over all "
    "samples and both directions.",
    "key",
    ("name", "key", "chain_index_a", "chain_index_b"),
    (
        KEY,
        NAME,
        Column("chain_a", "string", "name of the first chain"),
        Column("chain_b", "string", "name of the second chain"),
        *chain_columns("a"),
        *chain_columns("b"),
        count("num_samples", "samples of the complex"),
        Column(
            "best_sample",
            "int64",
            "sample with the largest ipsae_d0res of both directions, of equal ones that with the "
            "larger iptm",
            "index",
        ),
        score(
            "ipsae_strict",
            "ipsae_d0res of the direction in which it is smaller, mean over samples; pairs are "
            "ranked by it",
        ),
        *BAND_COLUMNS,
        score(
            "interface_agreement",
            "residues that touch the other chain (interface_residues): mean over pairs of samples "
            "of common ones / those of either; null with one sample or without any",
        ),
        *statistics_columns(INTERFACE_SCORES, PAIR_STATISTICS),
        CHECKPOINT,
        UNTRAINED,
        STALE,
    ),
)
PROTEIN_PAIRS = Table(
    "protein_pairs",
    "One row per pair of UniProt accessions over all complexes and copies, from the rows of pairs "
    "that are not stale; the two are equal for a homo-oligomer.",
    "accession_a",
    ("accession_a", "accession_b"),
    (
        Column("accession_a", "string", "the accession that comes first in the alphabet"),
        Column("accession_b", "string", "the other accession"),
        text("gene_a", "gene name of accession_a; empty if unknown"),
        text("gene_b", "gene name of accession_b; empty if unknown"),
        count("num_complexes", "complexes that hold both"),
        count("num_pairs", "pairs of chains in these complexes"),
        Column("best_key", "string", "key of the complex with the largest ipsae_d0res_max"),
        Column("best_name", "string", "name of that complex"),
        Column("best_chain_a", "string", "chain with accession_a in that complex"),
        Column("best_chain_b", "string", "chain with accession_b in that complex"),
        *BAND_COLUMNS,
        *statistics_columns(INTERFACE_SCORES, PROTEIN_PAIR_STATISTICS),
        CHECKPOINT,
        UNTRAINED,
    ),
)
ATTEMPTS = Table(
    "attempts",
    "One row per attempt at a complex, whatever its outcome.",
    "attempt_id",
    ("started", "attempt_id"),
    (
        Column("attempt_id", "string", "name of the attempt, different in every row"),
        Column("run_id", "string", "invocation that it belongs to; see runs"),
        KEY,
        NAME,
        Column(
            "attempt",
            "int64",
            "number of the attempt at this complex in this invocation, from 1",
            "index",
        ),
        Column(
            "outcome",
            "string",
            "done; oom (out of memory), worker_died (a process or a node was lost), timeout (the "
            "deadline passed, or no step was done for too long), error (it raised), invalid (its "
            "input or result was refused) or stopped (its GPUs were needed, or it was slow and "
            "begun again on more)",
        ),
        Column("reason", "string", "what went wrong, in one line; empty when done"),
        Column(
            "fallbacks",
            "string",
            "what was changed before this attempt after earlier ones ran out of memory, such as "
            "more ranks or bf16, separated by '; '; empty for none",
        ),
        count(
            "first_pass",
            "passes through the trunk that it did not make, as an earlier attempt had kept the "
            "state after them; 0 began at the first",
            nullable=True,
        ),
        Column("started", "timestamp", "start of the attempt", "UTC", nullable=True),
        count("num_tokens", "tokens of the complex", nullable=True),
        MSA_DEPTH,
        count("samples", "structures asked for: model.samples", nullable=True),
        PARALLEL_SAMPLES,
        GROUP_SIZE,
        Column(
            "gpus",
            "string",
            "GPUs of the worker group, as node:index separated by commas; CPU ranks as node:count",
            nullable=True,
        ),
        PRECISION,
        count(
            "batch",
            "complexes that were folded together on one GPU, this one among them; 1: alone",
            nullable=True,
        ),
        seconds("seconds", "wall time of the attempt; its share of that of a batch"),
        seconds("predicted_seconds", "the same as the cost model predicted it"),
        seconds("seconds_features", "reading alignments and making features"),
        seconds(
            "seconds_trunk",
            "embedding, templates, MSA module and Pairformer, all recyclings",
        ),
        seconds("seconds_sampling", "diffusion sampling"),
        seconds("seconds_confidence", "confidence module and scores"),
        seconds("seconds_write", "writing the results"),
        bytes_("peak_bytes", "largest memory in use on any rank"),
        bytes_(
            "predicted_bytes",
            "least memory of one rank that the cost model says the fold needs, with its chunks as "
            "small as they can be; ranks with less cannot fold it",
        ),
        bytes_(
            "predicted_peak_bytes",
            "memory of one rank that the cost model predicts, with chunks that use what is free; "
            "an upper bound of peak_bytes",
        ),
    ),
)
RUNS = Table(
    "runs",
    "One row per invocation on this folder, once it is over; one that was killed has no end.",
    "run_id",
    ("started", "run_id"),
    (
        Column("run_id", "string", "name of the invocation"),
        Column("started", "timestamp", "start", "UTC"),
        Column("ended", "timestamp", "end; null when it was killed", "UTC", nullable=True),
        Column(
            "status",
            "string",
            "finished or interrupted; running in read_table only, while the run is in progress",
        ),
        Column("command", "string", "command line"),
        Column("input", "string", "input file"),
        count(
            "num_done",
            "complexes of the folder with a result, at the end",
            nullable=True,
        ),
        count(
            "num_failed",
            "complexes of the folder that failed, at the end",
            nullable=True,
        ),
        count(
            "num_invalid",
            "records of the input that cannot be folded, at the end",
            nullable=True,
        ),
        Column("checkpoint", "string", "checkpoint, as named in the command"),
        Column(
            "checkpoint_sha256",
            "string",
            "SHA-256 of the checkpoint file; null for random weights",
            nullable=True,
        ),
        UNTRAINED,
        Column("settings", "string", "every setting, as JSON"),
        Column(
            "versions",
            "string",
            "versions of foldcp, Python and the libraries, as JSON",
        ),
        Column("hardware", "string", "machines and accelerators", nullable=True),
        Column(
            "shard",
            "string",
            "part of the input that was scored, as I/N; null for the whole",
            nullable=True,
        ),
        Column(
            "merged_from",
            "list<string>",
            "folders that this invocation of `foldcp merge` put together; null for any other",
            nullable=True,
        ),
    ),
)
EVALUATION = Table(
    "evaluation",
    "One row per sample and interface of its reference whose chains were predicted, made by "
    "`foldcp evaluate`; chain_a comes before chain_b in the complex, but a ligand is chain_b. "
    "Ligands have a row for each polymer that they touch.",
    "key",
    ("name", "key", "sample", "chain_a", "chain_b"),
    (
        KEY,
        NAME,
        SAMPLE,
        Column("chain_a", "string", "name of the first chain"),
        Column("chain_b", "string", "name of the second chain"),
        *INTERFACE_EVALUATION_COLUMNS,
        *REFERENCE_COLUMNS,
        CHECKPOINT,
        UNTRAINED,
    ),
)
EVALUATION_COMPLEXES = Table(
    "evaluation_complexes",
    "One row per sample of a complex whose reference `foldcp evaluate` compared it with; of a "
    "complex that was not compared, one row with the reason.",
    "key",
    ("name", "key", "sample"),
    (
        KEY,
        NAME,
        Column(
            "sample",
            "int64",
            "number of the sampled structure, from 0; null where the complex was not compared",
            "index",
            nullable=True,
        ),
        *COMPLEX_EVALUATION_COLUMNS,
        *REFERENCE_COLUMNS,
        CHECKPOINT,
        UNTRAINED,
    ),
)
# Tables whose rows are stored with each commit.
TABLES = {table.name: table for table in (COMPLEXES, CHAINS, INTERFACES, PAIRS, ATTEMPTS, RUNS)}
# Tables that are made from others when these are published.
DERIVED_TABLES = {table.name: table for table in (PROTEIN_PAIRS,)}
# Tables that `foldcp evaluate` writes, each as a whole.
EVALUATION_TABLES = {table.name: table for table in (EVALUATION, EVALUATION_COMPLEXES)}
ALL_TABLES = {**TABLES, **DERIVED_TABLES, **EVALUATION_TABLES}
