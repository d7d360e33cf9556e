"""Generated predictions and references, for which dockq_values.json has what DockQ 2.1.3 gives.

DockQ needs numpy below 2, so it runs in an environment of its own:

    python -m venv .venv-dockq && .venv-dockq/bin/pip install DockQ==2.1.3 "numpy<2"
    python -m tests.evaluation.dockq_cases .venv-dockq/bin/python
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from foldcp.pipeline.evaluation.structures.chain import Chain
from tests.evaluation.synthetic import noisy, polymer, turned, without, write_cif

VALUES = Path(__file__).with_name("dockq_values.json")
PROGRAM = Path(__file__).with_name("run_dockq.py")
FIRST = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"
SECOND = "GSHMSDEIVCWKPTLNAYRMEQHDFGIVKLPSTNWCYRAQEM"
BASES = "ACGTTGCAAGCTTACGGA"
SEEDS = (1, 5)  # of chains that touch
Case = tuple[list[Chain], list[Chain]]  # prediction, reference


def _dimer(seed: int, distance: float = 15.0) -> list[Chain]:
    return [polymer("A", FIRST, seed), polymer("B", SECOND, seed + 50, center=(distance, 0, 0))]


def _moved(chains: Sequence[Chain], seed: int, angle: float, shift: float, noise: float) -> Case:
    rng = np.random.default_rng(seed)
    model = [noisy(chain, rng, noise) for chain in chains]
    return [model[0], *(turned(chain, rng, angle, shift) for chain in model[1:])], list(chains)


def _identical(seed: int) -> Case:
    return _moved(_dimer(seed), seed, 0, 0, 0)


def _near(seed: int) -> Case:
    return _moved(_dimer(seed), seed, 0.1, 0.8, 0.3)


def _medium(seed: int) -> Case:
    return _moved(_dimer(seed), seed, 0.25, 3.0, 0.8)


def _far(seed: int) -> Case:
    return _moved(_dimer(seed), seed, 0.9, 6.0, 0.8)


def _apart(seed: int) -> Case:
    return _moved(_dimer(seed), seed, 1.0, 60.0, 0.5)


def _missing(seed: int) -> Case:
    model, reference = _medium(seed)
    return model, [without(reference[0], range(10, 22)), without(reference[1], [0, 1, 2, 40])]


def _mutated(seed: int) -> Case:
    """Residues of the prediction that the reference has others for."""
    model, reference = _near(seed)
    letters = SECOND[:7] + "AAA" + SECOND[10:]
    mutant = polymer("B", letters, seed + 50, center=(15, 0, 0))
    return [model[0], mutant], reference


def _with_dna(seed: int) -> Case:
    chains = [
        polymer("A", FIRST, seed),
        polymer("D", BASES, seed + 1, "dna", (10, 8, 0)),
        polymer("R", BASES.replace("T", "U"), seed + 2, "rna", (10, -8, 0)),
    ]
    return _moved(chains, seed, 0.2, 1.5, 0.4)


def _trimer(seed: int) -> Case:
    return _moved([*_dimer(seed), polymer("C", FIRST[::-1], seed + 3, center=(7, 12, 0))],
                  seed, 0.15, 1.0, 0.4)  # fmt: skip


def _equal_lengths(seed: int) -> Case:
    chains = [polymer("A", FIRST, seed), polymer("B", FIRST, seed + 9, center=(14, 0, 0))]
    return _moved(chains, seed, 0.2, 2.0, 0.4)


def _incomplete(seed: int) -> Case:
    """A prediction without some residues that the reference has."""
    model, reference = _near(seed)
    shorter = polymer("A", FIRST[8:], seed)
    part = without(model[0], range(8))
    shorter = replace(
        part, codes=part.codes[8:], letters=part.letters[8:], atom_residue=part.atom_residue - 8
    )
    return [shorter, model[1]], reference


MAKERS: dict[str, Callable[[int], Case]] = {
    "identical": _identical,
    "near": _near,
    "medium": _medium,
    "far": _far,
    "apart": _apart,
    "missing": _missing,
    "mutated": _mutated,
    "with_dna": _with_dna,
    "trimer": _trimer,
    "equal_lengths": _equal_lengths,
    "incomplete": _incomplete,
}
CASES = {f"{name}-{seed}": (maker, seed) for name, maker in MAKERS.items() for seed in SEEDS}


def make(case: str) -> Case:
    """The prediction and the reference of a case, whose chains have equal names."""
    maker, seed = CASES[case]
    return maker(seed)


def run_dockq(python: str) -> dict[str, dict[str, dict[str, float]]]:
    """Case -> names of two chains -> measure -> value, by the DockQ that an interpreter has."""
    with TemporaryDirectory() as folder:
        for case in CASES:
            for name, chains in zip(("model", "native"), make(case), strict=True):
                write_cif(Path(folder) / f"{case}.{name}.cif", chains, with_sequences=False)
        done = subprocess.run([python, PROGRAM, folder], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    values = run_dockq(sys.argv[1])
    VALUES.write_text(json.dumps(values, indent=1) + "\n")
    print(f"{len(values)} cases in {VALUES}", file=sys.stderr)
