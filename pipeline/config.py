"""What may be set for a run, and how a YAML file and `--set` lines become it."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from foldcp.config import KernelSetting, Precision
from foldcp.datasets.parsing.text_files import read_text
from foldcp.datasets.parsing.yaml_tree import parse
from foldcp.files import reading

MAX_YAML_BYTES = 1_000_000

PrecisionSetting = Literal["auto", Precision]
Sampling = Literal["auto", "fp32", "bf16"]
Extra = Literal["boltz", "pae", "pde"]


def setting(default: Any, least: float) -> Any:
    """A number with a smallest legal value; `load` checks it."""
    return field(default=default, metadata={"least": least})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How a complex is folded. The defaults are those of Boltz 2.2.1."""

    recycling: int = setting(3, 0)  # passes of the trunk after the first
    steps: int = setting(200, 1)  # of the diffusion sampler
    samples: int = setting(1, 1)  # structures for each complex
    parallel_samples: int = setting(5, 1)  # structures sampled at once; never changes the answer
    precision: PrecisionSetting = "auto"  # auto: mixed where it fits, else bf16; fp32 without a GPU
    # arithmetic inside the sampler's transformers; auto: fp32 with fp32, else bf16
    sampling: Sampling = "auto"
    # steer towards plausible chemistry; forced pockets and contacts always steer
    potentials: bool = False
    seed: int = setting(0, 0)
    # implementation of the network's operations; auto: triton on a GPU, torch elsewhere
    kernels: KernelSetting = "auto"
    chunk_bytes: int = setting(0, 0)  # memory of a layer's chunk; 0: by what is free


# How the network is computed, not what: they are not part of a result's key.
EXECUTION_SETTINGS = frozenset({"parallel_samples", "kernels", "chunk_bytes"})


@dataclass(frozen=True, slots=True)
class MsaConfig:
    """How alignments become features."""

    max_rows: int = setting(8192, 1)  # rows read of each alignment file
    corrected: bool = (
        False  # false: as Boltz 2.2.1 reads alignments, true: without its known faults
    )
    subsample: int = setting(0, 0)  # rows drawn at random for each pass of the trunk; 0 takes all


@dataclass(frozen=True, slots=True)
class RunSection:
    """How the work is spread and watched; nothing here changes a result."""

    retries: int = setting(
        1, 0
    )  # fresh groups a complex gets after a group was lost while it folded it
    deadline_factor: float = setting(
        3.0, 1.0
    )  # a fold or a start may take so many times what was predicted and learnt
    deadline_floor: float = setting(30.0, 1.0)  # seconds that a fold may always take
    start_deadline: float = setting(30.0, 1.0)  # seconds that the start of a group may always take
    cpu_ranks: int = setting(0, 0)  # ranks on a machine without GPUs; 0: one per core, 4 at most
    max_group: int = setting(0, 0)  # largest number of ranks for one complex; 0: no limit
    stale: Literal["drop", "keep"] = (
        "drop"  # results of changed inputs or settings: left out of the tables, or marked
    )


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """How much is read of what a user names; more is refused in a line. Nothing here changes a
    result.
    """

    input_bytes: int = setting(1_000_000_000, 1)  # of an input, sequence or template file, unpacked
    msa_bytes: int = setting(1_000_000_000, 1)  # of an alignment, unpacked


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every setting of a run. `write` names what is stored beside the tables and the structures:
    `boltz` the files of Boltz in its own layout, `pae` and `pde` the whole matrices."""

    model: ModelConfig = field(default_factory=ModelConfig)
    msa: MsaConfig = field(default_factory=MsaConfig)
    run: RunSection = field(default_factory=RunSection)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    write: tuple[Extra, ...] = ()


def load(file: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The defaults, changed by the keys of a YAML file and then by `a.b=VALUE` lines.

    Raises ValueError that names the file (or `--set`), the key and the value for unknown keys,
    wrong types and values out of range.
    """
    config = RunConfig()
    if file is not None:
        for key, value in _leaves(read_yaml(file)):
            config = _set(config, key, value, where=str(file))
    for line in overrides:
        key, equals, text = line.partition("=")
        if not equals:
            raise ValueError(f"--set {line}: write it as KEY=VALUE, such as model.samples=5")
        try:
            value = _yaml(text, "--set")
        except ValueError:
            value = text
        config = _set(config, key.strip(), value, where="--set")
    return config


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ValueError with file and line when there is none."""
    content = _yaml(read_text(file, MAX_YAML_BYTES), str(file))
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{file}: holds {content!r}, not KEY: VALUE lines")
    return content


def _yaml(text: str, where: str) -> Any:
    """The value of a YAML text; ValueError with `where` and the line."""
    with reading(where):
        try:
            parse(text)  # which is strict and bounded; what follows knows numbers
            return yaml.safe_load(text)
        except (
            yaml.YAMLError,
            ValueError,
            AttributeError,
        ) as error:  # such as the date 2026-13-45
            raise ValueError(f"{where}: {' '.join(str(error).split())}") from error


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


def _set(config: Any, key: str, value: Any, where: str, path: str = "") -> Any:
    """A copy of the nested dataclass with one leaf replaced."""
    head, _, rest = key.partition(".")
    hints = get_type_hints(type(config))
    full = path + key
    if head not in hints or bool(rest) != is_dataclass(hints[head]):
        raise ValueError(f"{where}: {full}: unknown setting{nearest(full, list(keys()))}")
    if rest:
        changed = _set(getattr(config, head), rest, value, where, f"{path}{head}.")
    else:
        changed = checked(value, hints[head], f"{where}: {full}")
        least = next(f for f in fields(config) if f.name == head).metadata.get("least")
        if least is not None and changed < least:
            raise ValueError(f"{where}: {full}: {value!r} is too small; the least is {least}")
    return replace(config, **{head: changed})


def checked(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind` (int, float, bool, str, a Literal, a tuple of one of them, or None beside
    it); ValueError otherwise. Nothing is guessed: 1 is no bool and 1.0 no int.
    """
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return checked(value, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list):
            raise ValueError(f"{where}: {value!r} is not a list")
        parts = [item.strip() if isinstance(item, str) else item for item in items]
        return tuple(
            dict.fromkeys(checked(part, arguments[0], where) for part in parts if part != "")
        )
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if kind is float and type(value) is str:
        value = _number(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        words = {
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            str: "text",
        }
        raise ValueError(f"{where}: {value!r} is not {words[kind]}")
    return value


def _number(text: str) -> float | str:
    """YAML 1.1 reads 4e12 as text, as its numbers need a point and a sign."""
    try:
        return float(text)
    except ValueError:
        return text
