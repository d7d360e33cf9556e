"""Out-of-memory fallbacks of a run: what they change, and what its rows say of that."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from foldcp.pipeline.storage.tables import read_table
from tests.support.runs import LETTERS, sequence, write_patch

# In every process of a run: there is memory for one sample at a time and for 200 rows of an
# alignment.
SMALL_MEMORY = """
def patch(module):
    fold = module.Worker.fold
    def greedy(self, complex, shape, *args, **kwargs):
        rows = 600 if complex.name == "deep" else 1
        if shape.parallel_samples > 1 or min(rows, shape.max_rows) > 200:
            return module.Failure("oom", f"rank {self.cp.rank}: no memory")
        return fold(self, complex, shape, *args, **kwargs)
    module.Worker.fold = greedy
"""
NO_FALLBACKS = "out of memory, and no fallback is left with run.fallbacks="


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two complexes, one of them with an alignment of 600 rows."""
    folder = tmp_path_factory.mktemp("input")
    draw = random.Random(5)
    query = sequence(20, 1)
    rows = [f">{i}\n{''.join(draw.choice(LETTERS) for _ in query)}\n" for i in range(599)]
    (folder / "deep.a3m").write_text(f">query\n{query}\n{''.join(rows)}")
    for name, msa in (("deep", "deep.a3m"), ("flat", "empty")):
        (folder / f"{name}.yaml").write_text(
            f"version: 1\nsequences:\n  - protein:\n      id: A\n      sequence: {query}\n"
            f"      msa: {msa}\n"
        )
    return folder


def score(source: Path, out: Path, fallbacks: str) -> int:
    path = out.with_name("path")
    path.mkdir()
    write_patch(path, "foldcp.pipeline.execution.worker", SMALL_MEMORY)
    settings = ["model.steps=3", "model.recycling=0", "model.samples=2", "run.cpu_ranks=2"]
    settings.append(f"run.fallbacks={fallbacks}")
    options = [word for setting in settings for word in ("--set", setting)]
    line = [sys.executable, "-m", "foldcp", "score", source, "--out", out]
    line += ["--checkpoint", "untrained:tiny", *options]
    return subprocess.run(line, env=os.environ | {"PYTHONPATH": str(path)}, timeout=400).returncode


def rows_of(out: Path, table: str) -> dict[str, pd.DataFrame]:
    return dict(list(read_table(out, table).to_pandas().groupby("name")))


# Each complex has a run of its own: what one learns of memory would change the ranks of the other.
@pytest.mark.parametrize(
    ("name", "ranks", "depths", "steps"),
    [
        (
            "deep",
            [1, 1, 2, 2],
            [600, 600, 600, 150],
            ["2 -> 1 samples at once", "1 -> 2 ranks", "600 -> 150 alignment rows"],
        ),
        ("flat", [1, 1], [1, 1], ["2 -> 1 samples at once"]),
    ],
)
def test_all_fallbacks_are_recorded_in_attempts_and_results(
    source: Path, tmp_path: Path, name: str, ranks: list[int], depths: list[int], steps: list[str]
) -> None:
    out = tmp_path / "run"
    assert score(source / f"{name}.yaml", out, "all") == 0
    attempts = rows_of(out, "attempts")[name]
    assert attempts["fallbacks"].tolist() == ["; ".join(steps[:n]) for n in range(len(ranks))]
    assert attempts["outcome"].tolist() == ["oom"] * len(steps) + ["done"]
    assert attempts["group_size"].tolist() == ranks
    assert attempts["parallel_samples"].tolist() == [2] + [1] * len(steps)
    assert attempts["msa_depth"].tolist() == depths
    made_with = ["group_size", "precision", "parallel_samples", "msa_depth", "fallbacks"]
    found = rows_of(out, "complexes")[name][made_with].drop_duplicates().values.tolist()
    assert found == [[ranks[-1], "fp32", 1, depths[-1], "; ".join(steps)]]


def test_exact_fallbacks_leave_alignments_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert score(source / "deep.yaml", out, "exact") == 1
    complexes = rows_of(out, "complexes")
    assert complexes["deep"]["outcome"].tolist() == ["failed"]
    assert complexes["deep"]["reason"][complexes["deep"].index[0]].startswith(
        f"{NO_FALLBACKS}exact: rank"
    )
    attempts = rows_of(out, "attempts")
    assert attempts["deep"]["msa_depth"].tolist() == [600] * 3
    assert attempts["deep"]["fallbacks"].tolist()[-1] == "2 -> 1 samples at once; 1 -> 2 ranks"
