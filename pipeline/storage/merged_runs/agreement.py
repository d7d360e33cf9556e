"""Agreement of runs that are to be merged: weights, database, shards and settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.storage.merged_runs.sources import Source


def check_agreement(sources: Sequence[Source]) -> None:
    """Raise ValueError, naming two folders, unless all runs have the same weights, are of one
    database, and their shards are of one partition of it.
    """
    first = sources[0]
    for other in sources[1:]:
        both = f"{first.root} and {other.root}"
        weights = [source.run["identity"].get("checkpoint") for source in (first, other)]
        if weights[0] != weights[1]:
            raise ValueError(f"{both}: of different weights, {weights[0]} and {weights[1]}")
        if first.run.get("database", "") != other.run.get("database", ""):
            raise ValueError(
                f"{both}: of different databases: the names of the complexes in "
                f"{first.run['input']} and {other.run['input']} are not the same"
            )
    shards = [source for source in sources if source.run.get("shard")]
    for source in shards[1:]:
        shard = source.run["shard"]
        first_shard = shards[0].run["shard"]
        if num_shards(shard) != num_shards(first_shard):
            raise ValueError(
                f"{shards[0].root} and {source.root}: of different partitions, as shards "
                f"{first_shard} and {shard}"
            )


def check_settings(first: Source, first_hash: str, other: Source, other_hash: str) -> None:
    """Raise ValueError, naming both folders, if the settings that change results differ."""
    if first_hash == other_hash:
        return
    settings = dict(_leaves(first.run["settings"]))
    others = dict(_leaves(other.run["settings"]))
    differing = [
        f"{name} is {settings.get(name)!r} and {others.get(name)!r}"
        for name in sorted(settings.keys() | others.keys())
        if settings.get(name) != others.get(name) and _changes_results(name)
    ]
    reason = f": {', '.join(differing)}" if differing else f", {first_hash} and {other_hash}"
    raise ValueError(f"{first.root} and {other.root}: results of different settings{reason}")


def num_shards(shard: str) -> int:
    """N of a shard I/N."""
    return int(shard.partition("/")[2])


def missing_shards(sources: Sequence[Source]) -> list[str]:
    """The shards of the runs' partition that none of them is."""
    shards = {source.run["shard"] for source in sources if source.run.get("shard")}
    if not shards:
        return []
    count = num_shards(min(shards))
    wanted = (f"{number}/{count}" for number in range(1, count + 1))
    return [shard for shard in wanted if shard not in shards]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _changes_results(key: str) -> bool:
    section, _, name = key.rpartition(".")
    settings = getattr(RunConfig(), section, None) if section else RunConfig()
    return settings is not None and any(
        setting.name == name and setting.metadata.get("changes_results")
        for setting in fields(settings)
    )
