"""Cases with their scores: the rows of our tables, and the files that other programs read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from foldcp.complex import Chain, Complex
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.metrics.scores import Scores
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.storage.results.boltz_layout import boltz_files
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_rows import result_rows
from foldcp.predict import Prediction
from foldcp.structure.predicted import PredictedStructure
from tests.metrics.interface.generated_cases import CASES, generated_case
from tests.metrics.interface.scoring import score
from tests.support.metrics_reference import CENTERS, Case, softmax

# No other program reads a modified residue as one token: here it has the name of its parent.
PARENTS = {"SEP": "SER"}
PROVENANCE = Provenance(checkpoint="none", untrained=True)


@dataclass(frozen=True)
class ScoredCase:
    """A case under a name, with our scores of it."""

    name: str
    case: Case
    scores: Scores

    @cached_property
    def pae(self) -> np.ndarray:
        """Expected PAE in Å, [T, T]."""
        return (softmax(self.case.pae_logits) @ CENTERS).astype(np.float32)

    @property
    def task(self) -> Task:
        """What would be folded, by name and kind of its chains."""
        layout = self.case.layout
        chains = tuple(
            Chain(name, kind, smiles="C") if kind == "ligand" else Chain(name, kind, "A")  # type: ignore[arg-type]
            for name, kind in zip(layout.chain_names, layout.chain_kinds, strict=True)
        )
        return Task(Complex(self.name, chains), self.name, len(layout.token_chain), 1)

    @cached_property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of our tables."""
        return result_rows(self.task, self.case.layout, self.prediction, PROVENANCE)

    @property
    def pairs(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The rows of `interfaces` by (chain_a, chain_b), None for NaN as in the table."""
        return {
            (row["chain_a"], row["chain_b"]): {
                name: None if value != value else value for name, value in row.items()
            }
            for row in self.rows["interfaces"]
        }

    @property
    def prediction(self) -> Prediction:
        """The case as a prediction of one sample."""
        return Prediction(
            coords=self.case.coords[None].astype(np.float32),
            plddt=self.case.plddt[None].astype(np.float32),
            scores=[self.scores],
            pae=[self.pae],
            pde=[],
            layout=self.case.layout,
            seconds={},
            peak_bytes=0,
        )

    @property
    def with_parents(self) -> Prediction:
        """The prediction, in which modified residues have the names of their parents."""
        layout = self.case.layout
        names = [PARENTS.get(name, name) for name in layout.token_name]
        return replace(self.prediction, layout=replace(layout, token_name=names))

    @property
    def proteins(self) -> list[str]:
        """Names of the proteins."""
        layout = self.case.layout
        names = zip(layout.chain_names, layout.chain_kinds, strict=True)
        return [name for name, kind in names if kind == "protein"]

    def kind(self, chain: str) -> str:
        """The kind of a chain: protein, dna, rna or ligand."""
        layout = self.case.layout
        return layout.chain_kinds[layout.chain_names.index(chain)]

    def write(self, folder: Path) -> Path:
        """Write Boltz's files; returns the folder that has them. Modified residues have the names
        of their parents.
        """
        prediction = self.with_parents
        structure = PredictedStructure(
            layout=prediction.layout,
            coords=prediction.coords[0],
            plddt=prediction.plddt[0],
            name=self.name,
        )
        for path, content in boltz_files(self.name, [structure], prediction).items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                content(file)
        return folder / "predictions" / self.name


def write_proteins(case: ScoredCase, folder: Path, path: Path) -> None:
    """Write the proteins of the structure in `folder` as a PDB file."""
    structure = gemmi.read_structure(str(folder / f"{case.name}_model_0.cif"))
    for chain in [chain.name for chain in structure[0]]:
        if chain not in case.proteins:
            structure[0].remove_chain(chain)
    structure.write_pdb(str(path))


def scored(name: str, case: Case) -> ScoredCase:
    """A case with our scores of it."""
    num_tokens = len(case.rep_atom)
    return ScoredCase(name, case, score(ContextParallel(), case, num_tokens, num_tokens))


def generated() -> Iterator[ScoredCase]:
    """All generated cases, with their scores."""
    for mixture, kind in CASES:
        yield scored(f"case_{mixture}_{kind}", generated_case(mixture, kind))
