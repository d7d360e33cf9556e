"""The experimental structures that the samples of a run were compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gemmi

from foldcp.files import FileContent, read_file
from foldcp.pipeline.evaluation.structures.chain import Chain
from foldcp.pipeline.evaluation.structures.read import read_structure
from foldcp.pipeline.reporting.embedding.columns import pack
from foldcp.pipeline.reporting.embedding.loading import LoadedRun
from foldcp.pipeline.reporting.embedding.traces import trace_of_chains
from foldcp.pipeline.storage.tables import read_fresh

MAX_FILES = 500  # of references, as one takes a tenth of a second or more to read
MAX_READ_BYTES = 300_000_000  # of all of them, unpacked: half a minute
COLUMNS = ("sample", "reference", "reference_sha256", "matched_chains", "reference_superposition")


@dataclass(frozen=True, eq=False)
class _Beside:
    """The chains of a reference that a sample's were assigned to, and the superposition of these
    onto it, as `evaluation_complexes` has it.
    """

    chains: set[str]
    superposition: list[float]


@dataclass(frozen=True, eq=False)
class _Experiment:
    """A reference, and how it lies beside each sample: of equal chains, samples may have others."""

    path: Path
    sha256: str
    samples: dict[int, _Beside]

    def packed(self, content: FileContent) -> str | None:
        """The block of a file with this content: columns as those of a structure, whose
        `residue_chain` is a place in `chains`; by sample the places of its chains, and the
        superposition. None where the file has none of them.

        Raises ValueError naming the file where it was changed since it was compared.
        """
        if content.sha256 != self.sha256:
            raise ValueError(f"{self.path}: changed since `foldcp evaluate` compared it")
        assigned = set().union(*(beside.chains for beside in self.samples.values()))
        found = read_structure(self.path, "label", content).chains
        chains = [chain for chain in found if chain.name in assigned]
        if not chains:
            return None
        names = [chain.name for chain in chains]
        samples = {
            sample: {
                "chains": [place for place, name in enumerate(names) if name in beside.chains],
                "superposition": beside.superposition,
            }
            for sample, beside in self.samples.items()
        }
        trace = trace_of_chains(list(enumerate(map(_gemmi_chain, chains))))
        return pack(trace, {"chains": names, "samples": samples})


def pack_experiments(
    loaded: LoadedRun, order: list[int], unreadable: list[str]
) -> Iterator[tuple[int, str]]:
    """Experimental structures by the number of their complex, in this order, of those whose file is
    still there; adds to `unreadable` what is wrong with one.
    """
    try:
        experiments = _experiments(loaded)
    except ValueError as error:  # of a damaged table
        unreadable.append(str(error))
        return
    num_bytes = 0
    for number in [number for number in order if number in experiments][:MAX_FILES]:
        # Unlike Path.is_file, this is also False in another user's folder.
        if not os.path.isfile(experiments[number].path):
            continue
        try:
            content = read_file(experiments[number].path)
            num_bytes += len(content.data)
            if num_bytes > MAX_READ_BYTES:
                return
            block = experiments[number].packed(content)
        except ValueError as error:
            unreadable.append(str(error))
            continue
        if block is not None:
            yield number, block


def _experiments(loaded: LoadedRun) -> dict[int, _Experiment]:
    """By the number of a complex."""
    rows = read_fresh(loaded.out, "evaluation_complexes").to_pandas()
    rows = rows[rows["reference_superposition"].notna()]
    numbers = {key: number for number, key in enumerate(loaded.complexes["key"])}
    starts = loaded.first_chains()
    names = loaded.chains["chain"].tolist()
    found: dict[int, _Experiment] = {}
    for key, group in rows.groupby("key", sort=False):
        if key not in numbers:
            continue
        number = numbers[key]
        chains = names[starts[number] : starts[number + 1]]
        for values in zip(*(group[name] for name in COLUMNS), strict=True):
            sample, path, sha256, matched, superposition = values
            experiment = found.setdefault(number, _Experiment(Path(path), sha256, {}))
            experiment.samples[int(sample)] = _Beside(
                _assigned(chains, matched), [float(x) for x in superposition]
            )
    return found


def _assigned(chains: list[str], matched: list[str]) -> set[str]:
    """The chains of a reference that chains were assigned to, from texts such as chain=reference
    chain.
    """
    return {
        text.removeprefix(f"{name}=")
        for text in matched
        for name in chains
        if text.startswith(f"{name}=")
    }


def _gemmi_chain(chain: Chain) -> gemmi.Chain:
    """A chain of the evaluation, its residues numbered from 1 along its sequence."""
    found = gemmi.Chain(chain.name)
    residue: gemmi.Residue | None = None
    for place, name, symbol, xyz in zip(
        chain.atom_residue.tolist(),
        chain.atom_names.tolist(),
        chain.elements.tolist(),
        chain.coords.tolist(),
        strict=True,
    ):
        if residue is None or residue.seqid.num != place + 1:
            residue = gemmi.Residue()
            residue.name = chain.codes[place]
            residue.seqid = gemmi.SeqId(place + 1, " ")
            residue = found.add_residue(residue)
        atom = gemmi.Atom()
        atom.name = name
        atom.element = gemmi.Element(symbol)
        atom.pos = gemmi.Position(*xyz)
        residue.add_atom(atom)
    return found
