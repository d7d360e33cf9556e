"""The JSON of AlphaFold's server: a list of jobs.

The form is that of https://github.com/google-deepmind/alphafold/tree/main/server. Copies are named
as AlphaFold 3 names those of its server's jobs: A to Z, then AA, BA, CA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

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
    seeds_note,
)
from foldcp.datasets.parsing.strict_yaml import boolean, items, mapping, string
from foldcp.datasets.parsing.yaml_tree import Node, describe

_KEYS: Mapping[str, tuple[str, ...]] = {
    "proteinChain": ("modifications", "glycans", "useStructureTemplate", "maxTemplateDate"),
    "dnaSequence": ("modifications",),
    "rnaSequence": ("modifications",),
    "ligand": (),
    "ion": (),
}


def _recognises(file: InputFile) -> bool:
    """Whether it is a JSON list of jobs; one of Protenix is recognised before."""
    return any(isinstance(job, dict) and "sequences" in job for job in listed_jobs(file))


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The complexes. Raises ValueError naming the file for one that is no list of jobs."""
    return read_jobs(file, JobFile(file.path, options), _complex)


def _complex(node: Node, job: JobFile, number: int) -> Complex:
    top = mapping(
        node, f"job {number}", ["name", "sequences"], ["modelSeeds", "dialect", "version"]
    )
    for key, expected in (("dialect", "alphafoldserver"), ("version", "1")):
        if top.get(key, expected) != expected:
            raise ValueError(f"{key}: expected {expected!r}, got {describe(top[key])}")
    names = (name[::-1] for name in chain_names())
    entities = read_entities(top["sequences"], _KEYS, names)
    chains = [
        replace(chain, name=name)
        for entity in entities
        for chain in [_chain(entity)]
        for name in entity.names
    ]
    searched = [name for entity in entities if _wants_templates(entity) for name in entity.names]
    notes = list(seeds_note(top.get("modelSeeds", []), "modelSeeds"))
    if searched:
        notes.append("templates: none are searched, though the job asks for them")
    name = string(top["name"], "name")
    return make_complex(name, chains, JobParts(notes=tuple(notes)), job)


def _chain(entity: Entity) -> Chain:
    """The first copy of a molecule."""
    location = entity.location
    if entity.key in POLYMERS:
        if items(entity.entry.get("glycans", []), f"{location}, glycans"):
            raise ValueError(
                f"{location}, glycans: not supported; list their components and bonds in a Boltz "
                "YAML or an AlphaFold 3 JSON"
            )
        return polymer(entity)
    prefix = CCD if entity.key == "ligand" else ""
    code = read_code(entity.entry[entity.key], f"{location}, {entity.key}", prefix)
    return Chain(entity.names[0], "ligand", ccd=(code,))


def _wants_templates(entity: Entity) -> bool:
    entry = entity.entry
    place = f"{entity.location}, useStructureTemplate"
    if "useStructureTemplate" in entry and not boolean(entry["useStructureTemplate"], place):
        return False
    return "useStructureTemplate" in entry or "maxTemplateDate" in entry


FORMAT = Format(
    "alphafold-server", "AlphaFold server JSON", _recognises, _read, suffixes=JSON_SUFFIXES
)
