"""Settings of a run, and how they are read from a YAML file and `--set` options."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from foldcp.config import KernelSetting, Precision
from foldcp.datasets.parsing.text_files import read_text
from foldcp.datasets.parsing.yaml_tree import parse
from foldcp.files import reading

T = TypeVar("T")

MAX_YAML_BYTES = 1_000_000
MAX_VALUE_CHARACTERS = 10_000
WHOLE_NUMBER = "[1-9][0-9]{0,8}"

PrecisionSetting = Literal["auto", Precision]
SamplingPrecision = Literal["auto", "fp32", "bf16"]
ExtraFiles = Literal["boltz", "pde"]
Structures = Literal["cif.gz", "cif", "bcif", "none"]
WrittenSamples = Literal["all", "best"]
Pairing = Literal["key", "taxonomy"]
Compat = Literal["boltz", "community", "corrected"]
PaeCutoff = Literal[8, 10, 12, 15]
MissingAlignment = Literal["error", "single-sequence"]
Fallbacks = Literal["all", "exact", "none"]


# A section that is set as a whole stands for one of its settings.
SHORT_KEYS = {"write": "write.files"}


def setting(
    help: str,
    minimum: float | None = None,
    choices: tuple[str, ...] = (),
    changes_results: bool = True,
    in_key_by_default: bool = True,
) -> dict[str, Any]:
    """Metadata of a setting.

    `minimum` is the smallest value that `load` accepts, `choices` are the texts that it accepts, in
    which N stands for a whole number from 1. Settings that change results are part of
    the key of a result; without `in_key_by_default`, only where they differ from the default: the
    setting was added later, and its default is what was done before.
    """
    return {
        "help": help,
        "minimum": minimum,
        "choices": choices,
        "changes_results": changes_results,
        "in_key_by_default": in_key_by_default,
    }


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Settings of a fold. The defaults are those of Boltz 2.2.1."""

    recycling: int = field(
        default=3,
        metadata=setting("recycling steps: passes of the trunk after the first", minimum=0),
    )
    steps: int = field(default=200, metadata=setting("steps of the diffusion sampler", minimum=1))
    samples: int = field(
        default=1, metadata=setting("structures sampled for each complex", minimum=1)
    )
    parallel_samples: int = field(
        default=5,
        metadata=setting(
            "structures sampled at once; never changes the result; 1: all GPUs share each sample",
            minimum=1,
            changes_results=False,
        ),
    )
    precision: PrecisionSetting = field(
        default="auto",
        metadata=setting(
            "precision of the network; auto: mixed for complexes that one GPU holds in it, bf16 "
            "for larger ones, and fp32 without a GPU; bf16-int8 is bf16 with less memory for the "
            "largest complexes, and never chosen by auto"
        ),
    )
    sampling: SamplingPrecision = field(
        default="auto",
        metadata=setting(
            "precision of the sampler's network; auto: fp32 with precision fp32, else bf16"
        ),
    )
    potentials: bool = field(
        default=False,
        metadata=setting(
            "steer sampling towards plausible chemistry; pockets and contacts with `force` always "
            "steer"
        ),
    )
    seed: int = field(default=0, metadata=setting("seed of the diffusion noise", minimum=0))
    kernels: KernelSetting = field(
        default="auto",
        metadata=setting(
            "implementation of the network's operations; auto: triton on a GPU, torch elsewhere",
            changes_results=False,
        ),
    )
    chunk_bytes: int = field(
        default=0,
        metadata=setting(
            "memory of a layer's chunk in bytes; 0: what the free memory allows; changes results "
            "by rounding only",
            minimum=0,
            changes_results=False,
        ),
    )


@dataclass(frozen=True, slots=True)
class MsaConfig:
    """Settings of reading alignments."""

    missing: MissingAlignment = field(
        default="error",
        metadata=setting(
            "a protein without an alignment is an error of its complex, or is folded from its "
            "sequence alone, as one with `msa: empty` always is",
            changes_results=False,
        ),
    )
    max_rows: int = field(
        default=8192,
        metadata=setting("MSA rows read of each alignment file", minimum=1),
    )
    corrected: bool = field(
        default=False,
        metadata=setting(
            "false: read alignments as Boltz 2.2.1 does; true: without its known faults"
        ),
    )
    pairing: Pairing = field(
        default="key",
        metadata=setting(
            "keys by which rows of several chains are paired; key: those of CSV files, as in "
            "Boltz; taxonomy: also the taxa in the headers of a3m files",
            in_key_by_default=False,
        ),
    )
    cut_to_range: bool = field(
        default=False,
        metadata=setting(
            "cut the alignment of a longer sequence to the chain, which it must hold exactly once; "
            "false: an error",
            in_key_by_default=False,
        ),
    )
    subsample: int = field(
        default=0,
        metadata=setting(
            "MSA rows drawn at random for each pass of the trunk; 0 takes all",
            minimum=0,
        ),
    )


@dataclass(frozen=True, slots=True)
class ScoresConfig:
    """Settings of the scores."""

    pae_cutoffs: tuple[PaeCutoff, ...] = field(
        default=(10, 12),
        metadata=setting(
            "cutoffs of PAE in Å at which ipSAE and LIS are computed: `ipsae_d0res_12` is ipSAE at "
            "12 Å; the columns without a number, ipSAE at 10 and LIS at 12, are always filled",
            in_key_by_default=False,
        ),
    )


@dataclass(frozen=True, slots=True)
class RunSection:
    """Settings of scheduling and supervision; nothing here changes a result, but for `fallbacks`
    where memory runs out, which the result says.
    """

    retries: int = field(
        default=1,
        metadata=setting(
            "new worker groups for a complex after its group was lost while folding it",
            minimum=0,
            changes_results=False,
        ),
    )
    fallbacks: Fallbacks = field(
        default="all",
        metadata=setting(
            "what may be changed after an attempt ran out of memory; exact: more ranks and fewer "
            "samples at once, which change numbers by rounding only; all: then also bf16 and fewer "
            "alignment rows, which change them (`complexes.fallbacks` says so); none: the complex "
            "fails",
            changes_results=False,
        ),
    )
    deadline_factor: float = field(
        default=3.0,
        metadata=setting(
            "deadline of a fold or of the start of a worker group, in multiples of its predicted "
            "time",
            minimum=1.0,
            changes_results=False,
        ),
    )
    deadline_floor: float = field(
        default=30.0,
        metadata=setting("seconds that a fold may always take", minimum=1.0, changes_results=False),
    )
    stall_floor: float = field(
        default=60.0,
        metadata=setting(
            "seconds that a fold may always go on without a further block of the network or step "
            "of the sampler; `run.deadline_factor` times the predicted time of one where that is "
            "longer",
            minimum=1.0,
            changes_results=False,
        ),
    )
    trunk_checkpoint_seconds: float = field(
        default=900.0,
        metadata=setting(
            "folds that are predicted to take so long keep the state of the trunk in the run's "
            "folder after every pass but the last, and a lost one goes on from there; 0: never",
            minimum=0.0,
            changes_results=False,
        ),
    )
    start_deadline: float = field(
        default=30.0,
        metadata=setting(
            "seconds that the start of a worker group may always take, of which Ray may take half "
            "to give it its GPUs",
            minimum=1.0,
            changes_results=False,
        ),
    )
    cpu_ranks: int = field(
        default=0,
        metadata=setting(
            "ranks on a machine without GPUs; 0: one per core, at most 4; each computes in "
            "OMP_NUM_THREADS threads where that is set, otherwise in its share of the cores",
            minimum=0,
            changes_results=False,
        ),
    )
    max_group: int = field(
        default=0,
        metadata=setting(
            "largest number of ranks for one complex; 0: no limit",
            minimum=0,
            changes_results=False,
        ),
    )
    batch: int = field(
        default=0,
        metadata=setting(
            "largest number of small complexes that are folded together on one GPU, which changes "
            "numbers by rounding only; 0: as many as the cost model says pay off, on GPUs; 1: each "
            "alone",
            minimum=0,
            changes_results=False,
        ),
    )
    efficiency: float = field(
        default=0.4,
        metadata=setting(
            "least parallel efficiency of a group that is larger than it must be: the GPU-seconds "
            "of the cheapest group over its own, by the cost model",
            minimum=0.0,
            changes_results=False,
        ),
    )
    node_wait: float = field(
        default=600.0,
        metadata=setting(
            "seconds that a complex waits for nodes when those that are left are too few for it, "
            "and a run when none is left or Ray gives it no GPUs",
            minimum=0.0,
            changes_results=False,
        ),
    )
    stale: Literal["drop", "keep"] = field(
        default="drop",
        metadata=setting(
            "results of an earlier input or of other settings: drop leaves them out of the tables, "
            "keep marks them there",
            changes_results=False,
        ),
    )


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Limits on the size of input files; a larger one is an error. Nothing here changes a
    result.
    """

    input_bytes: int = field(
        default=1_000_000_000,
        metadata=setting(
            "bytes of an input, sequence or template file, unpacked",
            minimum=1,
            changes_results=False,
        ),
    )
    msa_bytes: int = field(
        default=1_000_000_000,
        metadata=setting("bytes of an alignment, unpacked", minimum=1, changes_results=False),
    )


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """Settings of the files of a result; none changes a number. What is asked for now and was not
    stored with an earlier result is made by folding that complex again, as nothing that it is made
    from is stored. Nothing that a result has is removed.
    """

    files: tuple[ExtraFiles, ...] = field(
        default=(),
        metadata=setting(
            "files beside tables and structures: boltz, those of Boltz in its layout; pde, the "
            "whole matrices; `write=boltz` is short for `write.files=boltz`",
            changes_results=False,
        ),
    )
    structures: Structures = field(
        default="cif.gz",
        metadata=setting(
            "files of structures: ModelCIF as text, gzipped or not, as BinaryCIF, or none; those "
            "that an earlier result has keep their format",
            changes_results=False,
        ),
    )
    structure_samples: WrittenSamples = field(
        default="all",
        metadata=setting(
            "samples whose structures and matrices are written: all, or the best of each complex "
            "by its confidence score; the tables have all",
            changes_results=False,
        ),
    )
    pae: str = field(
        default="none",
        metadata=setting(
            "PAE that is kept, to the nearest 0.25 Å: none, that of the N best pairs of chains by "
            "ipSAE, or all; a byte for each pair of tokens before compression",
            choices=("none", "best:N", "all"),
            changes_results=False,
        ),
    )

    @property
    def num_pae_pairs(self) -> float:
        """Number of best pairs of chains whose PAE is kept; infinity for all."""
        if self.pae == "all":
            return math.inf
        return float(self.pae.removeprefix("best:")) if self.pae != "none" else 0.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every setting of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    msa: MsaConfig = field(default_factory=MsaConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    run: RunSection = field(default_factory=RunSection)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    compat: Compat = field(
        default="boltz",
        metadata=setting(
            "known faults of Boltz 2.2.1 in alignments that are followed; boltz: all; community: "
            "those that its community's fork has, too; corrected: none, as with msa.corrected",
            in_key_by_default=False,
        ),
    )


def load(file: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The defaults, changed by the keys of a YAML file and then by `a.b=VALUE` options.

    Raises:
        ValueError: naming the file (or `--set`), the key and the value, for unknown keys, wrong
            types and values out of range.
    """
    return load_tree(RunConfig(), file, overrides)


def load_tree(config: T, file: Path | None, overrides: Sequence[str]) -> T:
    """Any tree of settings, changed in the same way; raises what `load` does."""
    if file is not None:
        for key, value in _leaves(read_yaml(file)):
            config = _set(config, key, value, location=str(file))
    for line in overrides:
        key, equals, text = line.partition("=")
        if not equals:
            raise ValueError(f"--set {line}: expected KEY=VALUE, such as model.samples=5")
        try:
            value = _yaml(text, "--set")
        except ValueError:
            value = text
        config = _set(config, key.strip(), value, location="--set")
    return config


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError naming file and line if it is something else."""
    content = _yaml(read_text(file, MAX_YAML_BYTES), str(file))
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{file}: expected KEY: VALUE lines, got {str(content)[:200]!r}")
    return content


def _yaml(text: str, location: str) -> Any:
    """The value of a YAML text; ValueError naming `location` and the line."""
    with reading(location):
        try:
            _check_values(parse(text))  # strict and bounded, but without numbers
            content = yaml.safe_load(text)
            _check_values(content)
            return content
        except (
            yaml.YAMLError,
            ValueError,
            AttributeError,
        ) as error:  # such as 2026-13-45
            raise ValueError(f"{location}: {' '.join(str(error).split())}") from error


def _check_values(node: Any) -> None:
    """Raise ValueError for texts and numbers that no setting has, and that take long to convert."""
    if isinstance(node, str) and len(node) > MAX_VALUE_CHARACTERS:
        raise ValueError(f"a value of more than {MAX_VALUE_CHARACTERS:,} characters")
    if isinstance(node, int) and abs(node) >= 2**63:
        raise ValueError("an integer of more than 64 bits")
    if isinstance(node, dict):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list | tuple | set):
        for value in node:
            _check_values(value)


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def keys(config: Any = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key that can be set."""
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def nearest(key: str, known: Sequence[str]) -> str:
    """`; did you mean X?` for the closest known key, or every known key when none is close."""
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(key, [*known, *by_leaf], n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_leaf.get(close[0], close[0])}?"
    return f"; known: {', '.join(known)}"


def _set(config: Any, key: str, value: Any, location: str, path: str = "", root: Any = None) -> Any:
    """A copy of the nested dataclass with one leaf replaced."""
    root = root or type(config)
    if root is RunConfig:
        key = SHORT_KEYS.get(path + key, key)
    head, _, rest = key.partition(".")
    hints = get_type_hints(type(config))
    full = path + key
    if head not in hints or bool(rest) != is_dataclass(hints[head]):
        name = " ".join(full.split())
        raise ValueError(f"{location}: {name}: unknown setting{nearest(name, list(keys(root)))}")
    if rest:
        changed = _set(getattr(config, head), rest, value, location, f"{path}{head}.", root)
    else:
        changed = checked(value, hints[head], f"{location}: {full}")
        metadata = _field(config, head).metadata
        minimum = metadata.get("minimum")
        if minimum is not None and changed < minimum:
            raise ValueError(
                f"{location}: {full}: {value!r} is too small; the minimum is {minimum}"
            )
        choices = metadata.get("choices")
        if choices and not _is_choice(changed, choices):
            known = ", ".join(choices)
            raise ValueError(f"{location}: {full}: expected one of {known}, got {value!r}")
    if rest:
        return replace(config, **{head: changed})
    try:
        return replace(config, **{head: changed})
    except ValueError as error:  # of the dataclass itself
        raise ValueError(f"{location}: {full}: {error}") from None


def _is_choice(text: str, choices: Sequence[str]) -> bool:
    """Whether a text is one of the choices, in which N stands for a whole number from 1."""
    patterns = (re.escape(choice).replace("N", WHOLE_NUMBER) for choice in choices)
    return any(re.fullmatch(pattern, text) for pattern in patterns)


def _field(config: Any, name: str) -> Field[Any]:
    return next(known for known in fields(config) if known.name == name)


def checked(value: Any, kind: Any, location: str) -> Any:
    """The value as `kind`: int, float, bool, str, a Literal, a tuple of one of them, or a union of
    one with None.

    Raises ValueError otherwise. Nothing is guessed: 1 is not a bool and 1.0 not an int.
    """
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return checked(value, next(a for a in arguments if a is not type(None)), location)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if type(items) is int and int in map(type, get_args(arguments[0])):
            items = [items]
        if not isinstance(items, list):
            raise ValueError(f"{location}: expected a list, got {value!r}")
        elements = [item.strip() if isinstance(item, str) else item for item in items]
        return tuple(
            dict.fromkeys(checked(part, arguments[0], location) for part in elements if part != "")
        )
    if origin is Literal:
        if isinstance(value, str) and value.isdecimal() and value not in arguments:
            value = int(value)  # one of several numbers after --set
        if not any(type(choice) is type(value) and choice == value for choice in arguments):
            choices = ", ".join(map(str, arguments))
            raise ValueError(f"{location}: expected one of {choices}, got {value!r}")
        return value
    if kind is float and type(value) is str:
        value = _number(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        words = {
            int: "an integer",
            float: "a number",
            bool: "true or false",
            str: "a string",
        }
        raise ValueError(f"{location}: expected {words[kind]}, got {value!r}")
    return value


def _number(text: str) -> float | str:
    """The number that a text is; YAML 1.1 reads 4e12 as text, as it lacks a point and a sign."""
    try:
        return float(text)
    except ValueError:
        return text
