"""Columns of every table: name, type, unit and meaning. Plain data, which needs no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]  # by column name
Type = Literal["string", "list<string>", "int64", "float32", "float64", "bool", "timestamp"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `unit` is empty for values without one, such as names. `default` is the value in rows that do
    not give one.
    """

    name: str
    type: Type
    description: str
    unit: str = ""
    nullable: bool = False
    default: str | bool | tuple[str, ...] | None = None


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


def _score(name: str, description: str, unit: str = "0..1, higher is better") -> Column:
    return Column(name, "float32", description, unit, nullable=True)


def _count(name: str, description: str, nullable: bool = False) -> Column:
    return Column(name, "int64", description, "count", nullable)


def _seconds(name: str, description: str) -> Column:
    return Column(name, "float64", description, "s", nullable=True)


def _bytes(name: str, description: str) -> Column:
    return Column(name, "int64", description, "B", nullable=True)


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
GROUP_SIZE = _count("group_size", "GPUs (or CPU ranks) that folded it together", nullable=True)
PRECISION = Column(
    "precision", "string", "precision of the network: fp32, mixed or bf16", nullable=True
)
MSA_DEPTH = _count("msa_depth", "MSA rows that the network read", nullable=True)

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
        _count("num_chains", "chains", nullable=True),
        _count("num_residues", "residues of all polymers", nullable=True),
        _count(
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
        _score(
            "confidence_score",
            "(4 complex_plddt + iptm) / 5, with ptm for iptm when there is one chain",
        ),
        _score("ptm", "predicted TM-score of the whole complex"),
        _score("iptm", "predicted TM-score over pairs of different chains; 0 for one chain"),
        _score("ligand_iptm", "iptm over pairs of a ligand and a protein; 0 without any"),
        _score("protein_iptm", "iptm over pairs of different proteins; 0 without any"),
        _score("complex_plddt", "mean pLDDT of all tokens"),
        _score(
            "complex_iplddt",
            "mean pLDDT that counts interface tokens 10 times and ligand tokens 20 times",
        ),
        _score(
            "complex_pde",
            "expected distance error of pairs likely in contact",
            "Å, lower is better",
        ),
        _score(
            "complex_ipde",
            "expected distance error of pairs of different chains likely in contact",
            "Å, lower is better",
        ),
        Column(
            "structure",
            "string",
            "path of the sample's structure file, relative to the run's folder; null where none is "
            "written (write.structures, write.structure_samples)",
            nullable=True,
        ),
        GROUP_SIZE,
        PRECISION,
        Column("seed", "int64", "seed of the diffusion noise", nullable=True),
        Column(
            "settings_hash",
            "string",
            "hash of the settings that change results; runs.settings has every setting",
            default="",
        ),
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
        Column("accession", "string", "UniProt accession; empty where the input has none"),
        _count("num_residues", "residues; components of a ligand"),
        _count("num_tokens", "tokens"),
        Column(
            "sequence_sha256",
            "string",
            "SHA-256 of the sequence, to find equal chains and changed entries",
        ),
        _count(
            "msa_depth",
            "different MSA rows of the chain that were used, with the query",
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
        _score("plddt", "mean pLDDT of the chain's tokens"),
        _score(
            "ptm",
            "predicted TM-score of the chain, d0 from its own length (as AlphaFold 3)",
        ),
        CHECKPOINT,
        UNTRAINED,
        STALE,
    ),
)
_FRAMES = "frames in chain_a, scored tokens in chain_b"
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
        Column(
            "accession_a",
            "string",
            "UniProt accession of chain_a; empty where the input has none",
        ),
        Column(
            "accession_b",
            "string",
            "UniProt accession of chain_b; empty where the input has none",
        ),
        _score(
            "ipsae_d0res",
            f"ipSAE with d0 from the tokens within the error cutoff of each frame; {_FRAMES}",
        ),
        _score("ipsae_d0chn", f"ipSAE with d0 from both chain lengths; {_FRAMES}"),
        _score(
            "ipsae_d0dom",
            f"ipSAE with d0 from the tokens that have any pair within the cutoff; {_FRAMES}",
        ),
        _score(
            "iptm",
            f"ipTM of the pair with d0 from both chain lengths (as AlphaFold 3); {_FRAMES}",
        ),
        _score(
            "iptm_boltz",
            f"ipTM of the pair with d0 from all tokens of the complex; {_FRAMES}: Boltz's "
            "pair_chains_iptm[b][a]",
        ),
        _score("pae_mean", f"mean predicted aligned error; {_FRAMES}", "Å, lower is better"),
        _score(
            "pae_min",
            f"smallest predicted aligned error; {_FRAMES}",
            "Å, lower is better",
        ),
        _count(
            "num_contacts",
            "token pairs with representative atoms within 8 Å; equal both ways",
        ),
        _score(
            "interface_plddt",
            "mean pLDDT of the tokens of chain_a in contact with chain_b; null without contact",
        ),
        CHECKPOINT,
        UNTRAINED,
        STALE,
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
            "deadline passed), error (it raised) or invalid (its input or result was refused)",
        ),
        Column("reason", "string", "what went wrong, in one line; empty when done"),
        Column(
            "fallbacks",
            "string",
            "what was changed before this attempt after earlier ones ran out of memory, such as "
            "more ranks or bf16, separated by '; '; empty for none",
        ),
        Column("started", "timestamp", "start of the attempt", "UTC", nullable=True),
        _count("num_tokens", "tokens of the complex", nullable=True),
        MSA_DEPTH,
        _count("samples", "structures asked for: model.samples", nullable=True),
        _count("parallel_samples", "structures sampled at once", nullable=True),
        GROUP_SIZE,
        Column(
            "gpus",
            "string",
            "GPUs of the worker group, as node:index separated by commas; CPU ranks as node:count",
            nullable=True,
        ),
        PRECISION,
        _seconds("seconds", "wall time of the attempt"),
        _seconds("predicted_seconds", "wall time that the cost model predicted"),
        _seconds("seconds_features", "reading alignments and making features"),
        _seconds(
            "seconds_trunk",
            "embedding, templates, MSA module and Pairformer, all recyclings",
        ),
        _seconds("seconds_sampling", "diffusion sampling"),
        _seconds("seconds_confidence", "confidence module and scores"),
        _seconds("seconds_write", "writing the results"),
        _bytes("peak_bytes", "largest memory in use on any rank"),
        _bytes("predicted_bytes", "memory of one rank that the cost model predicted"),
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
        _count(
            "num_done",
            "complexes of the folder with a result, at the end",
            nullable=True,
        ),
        _count(
            "num_failed",
            "complexes of the folder that failed, at the end",
            nullable=True,
        ),
        _count(
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
    ),
)
TABLES = {table.name: table for table in (COMPLEXES, CHAINS, INTERFACES, ATTEMPTS, RUNS)}
