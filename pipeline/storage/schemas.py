"""The columns of every table: name, type, unit and meaning. Plain Python, so that anybody may
import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]  # by the names of columns
Type = Literal["text", "texts", "whole", "real", "seconds", "flag", "time"]


@dataclass(frozen=True, slots=True)
class Column:
    """`unit` is empty for what has none, such as a name; a column that is `optional` may be null.
    `default` is what a row without it has.
    """

    name: str
    type: Type
    description: str
    unit: str = ""
    optional: bool = False
    default: str | bool | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """`unit` is the column whose value names the piece of work that a row came from; rows of one
    piece appear together or not at all. `order` sorts the rows.
    """

    name: str
    description: str
    unit: str
    order: tuple[str, ...]
    columns: tuple[Column, ...]


def _score(name: str, description: str, unit: str = "0..1, higher is better") -> Column:
    return Column(name, "real", description, unit, optional=True)


KEY = Column(
    "key",
    "text",
    "content hash of the complex, its alignments, the settings and the weights",
)
NAME = Column("name", "text", "name of the complex in the input")
SAMPLE = Column(
    "sample",
    "whole",
    "number of the sampled structure, from 0; null without a result",
    "count",
    True,
)
CHECKPOINT = Column(
    "checkpoint",
    "text",
    "weights of the network; untrained:* are random and their scores mean nothing",
)
UNTRAINED = Column("untrained", "flag", "true when the weights are random")
STALE = Column(
    "stale",
    "flag",
    "true for a result of an earlier input or of other settings; such rows are left out unless "
    "run.stale is keep",
    default=False,
)

COMPLEXES = Table(
    "complexes",
    "One row per complex and sample; a complex without a result has one row with its reason.",
    "key",
    ("name", "key", "sample"),
    (
        KEY,
        NAME,
        Column("title", "text", "what the input calls the complex"),
        Column("organism", "text", "organism, as in the input"),
        Column("source", "text", "database or file that the complex comes from"),
        Column(
            "outcome",
            "text",
            "done, failed (no attempt succeeded) or invalid (the input is no complex)",
        ),
        Column("reason", "text", "why there is no result; empty when done"),
        Column(
            "notes",
            "texts",
            "what was assumed or left out where the input does not say, each as subject: text",
            default=(),
        ),
        Column("num_chains", "whole", "chains", "count", True),
        Column("num_residues", "whole", "residues of all polymers", "count", True),
        Column(
            "num_tokens",
            "whole",
            "tokens: residues, and heavy atoms of ligands and modified residues",
            "count",
            True,
        ),
        Column("msa_depth", "whole", "alignment rows that the network read", "count", True),
        SAMPLE,
        Column(
            "rank",
            "whole",
            "place of the sample by confidence_score, 0 is best",
            "count",
            True,
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
            "the same over pairs of different chains",
            "Å, lower is better",
        ),
        Column(
            "structure",
            "text",
            "file of the sample, relative to the run's folder",
            optional=True,
        ),
        Column(
            "group_size",
            "whole",
            "GPUs (or CPU ranks) that folded it together",
            "count",
            True,
        ),
        Column("precision", "text", "arithmetic: fp32, mixed or bf16", optional=True),
        Column("seed", "whole", "seed of the noise", optional=True),
        Column(
            "settings",
            "text",
            "digest of the settings that results hang on; runs has them all",
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
        Column("sample", "whole", "number of the sampled structure, from 0", "count"),
        Column("chain", "text", "name of the chain, as in the structure file"),
        Column("chain_index", "whole", "place of the chain in the complex, from 0", "count"),
        Column("kind", "text", "protein, dna, rna or ligand"),
        Column("accession", "text", "UniProt accession, where the input has one"),
        Column("num_residues", "whole", "residues; components of a ligand", "count"),
        Column("num_tokens", "whole", "tokens", "count"),
        Column(
            "sequence_sha256",
            "text",
            "SHA-256 of the sequence, to find equal chains and changed entries",
        ),
        Column(
            "msa_depth",
            "whole",
            "different rows of the chain's alignment that were used, the query among them",
            "count",
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
    "One row per directed pair of different chains and sample: errors of the tokens of chain_b, "
    "from the frames of "
    "chain_a. Both directions are there and differ; their minimum is the strict choice, their "
    "maximum the usual one.",
    "key",
    ("name", "key", "sample", "chain_a", "chain_b"),
    (
        KEY,
        NAME,
        Column("sample", "whole", "number of the sampled structure, from 0", "count"),
        Column("chain_a", "text", "name of the chain whose frames are used (aligned)"),
        Column("chain_b", "text", "name of the chain whose tokens are scored"),
        Column(
            "accession_a",
            "text",
            "UniProt accession of chain_a, where the input has one",
        ),
        Column(
            "accession_b",
            "text",
            "UniProt accession of chain_b, where the input has one",
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
        Column(
            "contacts",
            "whole",
            "token pairs with representative atoms within 8 Å; symmetric",
            "count",
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
    "One row per try of a complex, whatever came of it.",
    "attempt_id",
    ("started", "attempt_id"),
    (
        Column("attempt_id", "text", "name of the try, different in every row"),
        Column("run_id", "text", "invocation that it belongs to; see runs"),
        KEY,
        NAME,
        Column(
            "attempt",
            "whole",
            "number of the try of this complex in this invocation, from 1",
            "count",
        ),
        Column(
            "outcome",
            "text",
            "done; oom (out of memory), lost, hung, error or invalid (input)",
        ),
        Column("reason", "text", "what went wrong in a line; empty when done"),
        Column(
            "fallbacks",
            "text",
            "what was changed before this try, after failures of earlier ones",
        ),
        Column("started", "time", "start of the try", "UTC", True),
        Column("num_tokens", "whole", "tokens of the complex", "count", True),
        Column("msa_depth", "whole", "alignment rows that the network read", "count", True),
        Column("samples", "whole", "structures asked for", "count", True),
        Column("parallel_samples", "whole", "structures sampled at once", "count", True),
        Column(
            "group_size",
            "whole",
            "GPUs (or CPU ranks) that folded it together",
            "count",
            True,
        ),
        Column(
            "gpus",
            "text",
            "GPUs of the group, as node:index separated by commas; CPU ranks as node:count",
            optional=True,
        ),
        Column("precision", "text", "arithmetic: fp32, mixed or bf16", optional=True),
        Column("seconds", "seconds", "wall time of the try", "s", True),
        Column(
            "predicted_seconds",
            "seconds",
            "wall time that the cost model expected",
            "s",
            True,
        ),
        Column(
            "seconds_features",
            "seconds",
            "reading alignments and making features",
            "s",
            True,
        ),
        Column(
            "seconds_trunk",
            "seconds",
            "embedding, templates, alignment and pair blocks, all passes",
            "s",
            True,
        ),
        Column("seconds_sampling", "seconds", "diffusion", "s", True),
        Column("seconds_confidence", "seconds", "confidence heads and scores", "s", True),
        Column("seconds_write", "seconds", "writing the results", "s", True),
        Column("peak_bytes", "whole", "largest memory in use on one rank", "B", True),
        Column(
            "predicted_bytes",
            "whole",
            "memory of one rank that the cost model expected",
            "B",
            True,
        ),
    ),
)
RUNS = Table(
    "runs",
    "One row per invocation on this folder, once it is over; one that was killed has no end.",
    "run_id",
    ("started", "run_id"),
    (
        Column("run_id", "text", "name of the invocation"),
        Column("started", "time", "start", "UTC"),
        Column("ended", "time", "end; null when it was killed", "UTC", True),
        Column(
            "status",
            "text",
            "finished or interrupted; running only for read_table, while the run goes on",
        ),
        Column("command", "text", "command line"),
        Column("input", "text", "input file"),
        Column(
            "num_done",
            "whole",
            "complexes of the folder with a result, at the end",
            "count",
            True,
        ),
        Column(
            "num_failed",
            "whole",
            "complexes of the folder that failed, at the end",
            "count",
            True,
        ),
        Column(
            "num_invalid",
            "whole",
            "records of the input that are no complex, at the end",
            "count",
            True,
        ),
        CHECKPOINT,
        Column("checkpoint_sha256", "text", "identity of the weights", optional=True),
        UNTRAINED,
        Column("settings", "text", "every setting, as JSON"),
        Column("versions", "text", "versions of foldcp, Python and the libraries, as JSON"),
        Column("hardware", "text", "machines and accelerators", optional=True),
    ),
)
TABLES = {table.name: table for table in (COMPLEXES, CHAINS, INTERFACES, ATTEMPTS, RUNS)}
