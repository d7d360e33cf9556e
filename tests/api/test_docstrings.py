"""The examples in the docstrings of the public API run as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import foldcp

ROOT = Path(__file__).parents[2]
# `read_run` reads what `score_database` writes.
WITH_EXAMPLE = [
    "Chain",
    "Complex",
    "load_model",
    "featurize",
    "fold",
    "fold_group",
    "Prediction",
    "Scores",
    "score_database",
    "read_run",
    "connect",
    "PaeFile",
]
CLASSES_OF_RESULTS = ["Model", "RunTables"]  # explained by the functions that return them

RUN_EXAMPLES = """
import doctest, sys
import foldcp
failed = 0
for name in ["", *sys.argv[1:]]:
    item = getattr(foldcp, name) if name else foldcp
    examples = doctest.DocTestParser().get_doctest(item.__doc__, {}, name, None, 0)
    assert examples.examples, f"{name}: no example"
    failed += doctest.DocTestRunner().run(examples).failed
sys.exit(failed)
"""


def test_every_public_name_has_an_example() -> None:
    assert sorted([*WITH_EXAMPLE, *CLASSES_OF_RESULTS, "__version__"]) == foldcp.__all__


def test_examples_of_docstrings_run(tmp_path: Path) -> None:
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    done = subprocess.run(
        [sys.executable, "-c", RUN_EXAMPLES, *WITH_EXAMPLE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "ap1.cif").read_text().startswith("data_ap1")
