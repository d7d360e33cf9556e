"""Protenix's JSON: a list of jobs.

The form is that of https://github.com/bytedance/Protenix/blob/main/docs/infer_json_format.md, with
the `msa` folders and the `left_` and `right_` keys of its older versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from foldcp.complex import Chain, Complex, Record, chain_names
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.formats.json_jobs.entities import (
    CCD,
    POLYMERS,
    Entity,
    listed_jobs,
    polymer,
    read_entities,
    read_jobs,
)
from foldcp.datasets.formats.json_jobs.job import (
    JSON_SUFFIXES,
    JobFile,
    JobParts,
    make_complex,
    read_code,
    rna_msa_note,
    seeds_note,
)
from foldcp.datasets.formats.json_jobs.protenix_constraints import (
    Molecules,
    read_bonds,
    read_contacts,
    read_pockets,
)
from foldcp.datasets.parsing.strict_yaml import mapping, string
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.files import is_regular

_JOB_KEYS = ("modelSeeds", "covalent_bonds", "constraint")
_FILES = ("msa", "pairedMsaPath", "unpairedMsaPath", "templatesPath")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "proteinChain": ("id", "modifications", *_FILES),
    "dnaSequence": ("id", "modifications"),
    "rnaSequence": ("id", "modifications", "unpairedMsaPath"),
    "ligand": ("id",),
    "ion": ("id",),
}
_UNPAIRED = "non_pairing.a3m"
_PAIRED = "pairing.a3m"


def _recognises(file: InputFile) -> bool:
    """Whether it is a JSON list of jobs with what AlphaFold's server does not know."""
    return any(map(_is_own, listed_jobs(file)))


def _is_own(job: Node) -> bool:
    if not isinstance(job, dict) or "dialect" in job:
        return False
    sequences = job.get("sequences")
    entries = sequences if isinstance(sequences, list) else []
    return bool({"covalent_bonds", "constraint"} & job.keys()) or any(map(_is_own_entry, entries))


def _is_own_entry(item: Node) -> bool:
    entry = next(iter(item.values()), "") if isinstance(item, dict) else ""
    if not isinstance(entry, dict):
        return False
    ligand = entry.get("ligand", CCD)
    is_one_code = isinstance(ligand, str) and ligand.startswith(CCD) and ligand.count("_") == 1
    return bool({"id", *_FILES} & entry.keys()) or not is_one_code


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The complexes. Raises ValueError naming the file for one that is no list of jobs."""
    return read_jobs(file, JobFile(file.path, options, from_working_directory=True), _complex)


def _complex(node: Node, job: JobFile, number: int) -> Complex:
    top = mapping(node, f"job {number}", ["name", "sequences"], _JOB_KEYS)
    entities = read_entities(top["sequences"], _KEYS, chain_names())
    firsts = [_chain(entity, job) for entity in entities]
    molecules = Molecules(
        tuple(
            tuple(replace(first, name=name) for name in entity.names)
            for entity, first in zip(entities, firsts, strict=True)
        )
    )
    constraint = mapping(top.get("constraint", {}), "constraint", [], ["contact", "pocket"])
    parts = JobParts(
        bonds=read_bonds(top.get("covalent_bonds", []), molecules),
        contacts=read_contacts(constraint.get("contact", []), molecules),
        pockets=read_pockets(constraint["pocket"], molecules) if "pocket" in constraint else (),
        notes=(*seeds_note(top.get("modelSeeds", []), "modelSeeds"), *_notes(entities)),
    )
    chains = [chain for copies in molecules.copies for chain in copies]
    return make_complex(string(top["name"], "name"), chains, parts, job)


def _notes(entities: list[Entity]) -> tuple[str, ...]:
    """What of the entries is not used."""
    rna = [
        name
        for entity in entities
        if entity.key == "rnaSequence" and "unpairedMsaPath" in entity.entry
        for name in entity.names
    ]
    searched = [
        name for entity in entities if "templatesPath" in entity.entry for name in entity.names
    ]
    notes = rna_msa_note(rna)
    if searched:
        notes += (f"templates: templatesPath of chains {join_names(searched)} is not used",)
    return notes


def _chain(entity: Entity, job: JobFile) -> Chain:
    """The first copy of a molecule."""
    location = entity.location
    if entity.key in POLYMERS:
        chain = polymer(entity)
        return _with_alignments(chain, entity, job) if chain.kind == "protein" else chain
    written = string(entity.entry[entity.key], f"{location}, {entity.key}")
    if entity.key == "ion":
        return Chain(entity.names[0], "ligand", ccd=(read_code(written, f"{location}, ion"),))
    if written.startswith("FILE_"):
        raise ValueError(
            f"{location}, ligand: {describe(written)} is a file, which is not supported; give CCD "
            "codes or a SMILES"
        )
    if not written.startswith(CCD):
        return Chain(entity.names[0], "ligand", smiles=written.strip())
    codes = written.removeprefix(CCD).split("_")
    place = f"{location}, ligand"
    return Chain(entity.names[0], "ligand", ccd=tuple(read_code(code, place) for code in codes))


def _with_alignments(chain: Chain, entity: Entity, job: JobFile) -> Chain:
    """A protein with the alignments of its paths, or else of its `msa` folder."""
    entry = entity.entry
    location = entity.location
    unpaired: Path | None = None
    paired: Path | None = None
    if "msa" in entry:
        unpaired, paired = _folder_alignments(entry["msa"], f"{location}, msa", job)
    if "unpairedMsaPath" in entry:
        unpaired = job.alignment(entry["unpairedMsaPath"], f"{location}, unpairedMsaPath")
    if "pairedMsaPath" in entry:
        paired = job.alignment(entry["pairedMsaPath"], f"{location}, pairedMsaPath")
    return replace(chain, msa=unpaired, paired_msa=paired)


def _folder_alignments(node: Node, location: str, job: JobFile) -> tuple[Path | None, Path | None]:
    """The alignments in a folder, unpaired and paired."""
    entry = mapping(node, location, ["precomputed_msa_dir"], ["pairing_db"])
    place = f"{location}, precomputed_msa_dir"
    written = string(entry["precomputed_msa_dir"], place)
    folder = Path(written)
    there = [
        name
        for name in (_UNPAIRED, _PAIRED)
        if any(is_regular(base / folder / name) for base in (job.path.parent, Path.cwd()))
    ]
    if not there:
        raise ValueError(f"{place}: {describe(written)} has no {_UNPAIRED} and no {_PAIRED}")
    files = {name: job.alignment(str(folder / name), place) for name in there}
    return files.get(_UNPAIRED), files.get(_PAIRED)


FORMAT = Format("protenix", "Protenix JSON", _recognises, _read, suffixes=JSON_SUFFIXES)
