"""Shards of a database: every complex in exactly one, and as much work in each."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from foldcp.complex import Chain, Complex, InvalidComplex, Record
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.input_spec import InputSpec
from foldcp.pipeline.inputs.shard import Shard, parse_shard
from foldcp.pipeline.planning.partition import (
    assign_shards,
    chosen_records,
    predicted_work,
    shard_records,
)
from foldcp.pipeline.planning.run_plan import prepare

CONFIG = load()


def complex_of(name: str, length: int) -> Complex:
    return Complex(name, (Chain("A", "protein", "M" * length),))


def database(number: int, seed: int = 3) -> list[Record]:
    """Sizes like those of a database, a few of them huge; some records are invalid or repeated."""
    draw = random.Random(seed)
    sizes = [min(30_000, int(draw.paretovariate(0.9) * 200)) for _ in range(number)]
    records: list[Record] = [complex_of(f"c{i}", size) for i, size in enumerate(sizes)]
    records += [InvalidComplex(f"bad{i}", "no sequence") for i in range(number // 10)]
    records += [complex_of("c3", sizes[3]), complex_of("c4", 77), InvalidComplex("c5", "twice")]
    draw.shuffle(records)
    return records


def shards_of(records: list[Record], count: int) -> list[list[Record]]:
    shards = (Shard(number, count) for number in range(1, count + 1))
    return [list(shard_records(shard, records, CONFIG, set())) for shard in shards]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_every_record_is_in_exactly_one_shard_with_those_of_its_name(count: int) -> None:
    records = database(300)
    shards = shards_of(records, count)
    assert sorted(map(id, records)) == sorted(id(record) for shard in shards for record in shard)
    names = [{record.name for record in shard} for shard in shards]
    assert sum(map(len, names)) == len({record.name for record in records})
    left_out: set[str] = set()
    kept = {record.name for record in shard_records(Shard(1, count), records, CONFIG, left_out)}
    assert kept | left_out == {record.name for record in records} and not kept & left_out


def test_shards_do_not_depend_on_the_order_of_the_records() -> None:
    records = database(200)
    mixed = records[:]
    random.Random(9).shuffle(mixed)
    for first, second in zip(shards_of(records, 5), shards_of(mixed, 5), strict=True):
        assert {id(record) for record in first} == {id(record) for record in second}


def test_shards_are_balanced_by_work_and_not_by_number() -> None:
    records = database(2_000)
    work = predicted_work(records, CONFIG)
    shards = shards_of(records, 8)
    loads = [sum(work[name] for name in {r.name for r in shard}) for shard in shards]
    largest = max(max(work.values()), sum(work.values()) / 8)
    assert max(loads) <= 1.01 * largest
    numbers = sorted(map(len, shards))
    assert numbers[-1] > 1.2 * numbers[0]  # the shard of the largest complex has fewer


def test_work_counts_repeated_complexes_once_and_invalid_ones_not_at_all() -> None:
    once = [complex_of("a", 500), complex_of("b", 900)]
    records = [*once, complex_of("a", 500), InvalidComplex("bad", "a reason")]
    assert predicted_work(records, CONFIG) == predicted_work(once, CONFIG) | {"bad": 0.0}
    both = predicted_work([*once, complex_of("a", 900)], CONFIG)
    assert both["a"] == sum(predicted_work(once, CONFIG).values())


def test_work_does_not_depend_on_whether_alignments_are_there_yet(tmp_path: Path) -> None:
    without = complex_of("a", 500)
    chain = replace(without.chains[0], msa=tmp_path / "later.a3m")
    assert predicted_work([replace(without, chains=(chain,))], CONFIG) == predicted_work(
        [without], CONFIG
    )


def test_assign_shards_gives_the_largest_first_to_the_least_loaded() -> None:
    work = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 3.0, "e": 3.0}
    assert assign_shards(work, 2) == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 2}


def test_parse_shard() -> None:
    assert parse_shard("") is None
    assert parse_shard("3/8") == Shard(3, 8)
    assert str(Shard(3, 8)) == "3/8"
    for text in ("0/3", "4/3", "1/0", "1", "a/b", "-1/3", "1/3/5", "1/1000000", " 1/3", "1 / 3"):
        with pytest.raises(ValueError, match=f"--shard {text}: expected I/N"):
            parse_shard(text)


def fasta(path: Path, records: dict[str, int]) -> Path:
    path.write_text("".join(f">{name}\n{'M' * length}\n" for name, length in records.items()))
    return path


def test_plans_of_shards_are_parts_of_the_whole_plan(tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", {f"c{i}": 10 + i for i in range(9)})
    config = load(overrides=["msa.missing=single-sequence"])

    def plan(shard: str):  # noqa: ANN202
        spec = InputSpec(source, checkpoint="untrained:tiny", shard=parse_shard(shard))
        return prepare(spec, config, tmp_path / "run")

    whole = plan("")
    parts = [plan(f"{number}/20") for number in range(1, 21)]
    keys = [{task.key for task in part.task_list.tasks} for part in parts]
    assert sorted(map(len, keys)) == [0] * 11 + [1] * 9  # some shards are empty
    assert set.union(*keys) == {task.key for task in whole.task_list.tasks}
    assert {part.database for part in parts} == {whole.database}
    assert parts[1].identity == whole.identity | {"shard": "2/20"}
    assert parts[1].present.unselected == {f"c{i}" for i in range(9)} - {"c7"}
    fewer = InputSpec(
        fasta(tmp_path / "b.fasta", {"c0": 10, "c1": 11}), checkpoint="untrained:tiny"
    )
    assert prepare(fewer, config, tmp_path / "run").database != whole.database


def test_all_records_are_chosen_without_a_shard(tmp_path: Path) -> None:
    source = fasta(tmp_path / "in.fasta", {"a": 10, "b": 20})
    spec = InputSpec(source)
    assert [record.name for record in chosen_records(spec, CONFIG, set())] == ["a", "b"]
    indices = [record.index for record in chosen_records(spec, CONFIG, set())]
    assert all(one < other for one, other in pairwise(indices))
