"""Content keys: hashes that identify a result by its complex, settings and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from foldcp.complex import Chain, Complex, Template
from foldcp.files import FileSource
from foldcp.pipeline.config import RunConfig

KEY_FORMAT = 2  # raised when the same content would give another result
BONDS_FORMAT = 1  # raised when that holds for complexes with bonds alone
KEY_LENGTH = 32  # hexadecimal digits of SHA-256
# Fields of a chain that are hashed as they are; its alignment is hashed by content.
CHAIN_FIELDS = (
    "name",
    "kind",
    "sequence",
    "accession",
    "cyclic",
    "modifications",
    "ccd",
    "smiles",
)


def content_key(complex: Complex, settings: dict[str, Any], checkpoint: str) -> str:
    """SHA-256 over canonical JSON of the complex, the settings and the identity of the weights.

    The name counts, since results are found by it; title, organism and source do not. Alignments
    and templates count by their content (`Complex.digests`), so moving a file changes nothing and
    editing it does.
    """
    digests = complex.digests
    content = {
        "format": KEY_FORMAT + (BONDS_FORMAT if complex.bonds else 0),
        "name": complex.name,
        "chains": [_chain_content(chain, digests) for chain in complex.chains],
        "bonds": [asdict(bond) for bond in complex.bonds],
        "pockets": [asdict(pocket) for pocket in complex.pockets],
        "contacts": [asdict(contact) for contact in complex.contacts],
        "templates": [_template_content(template, digests) for template in complex.templates],
        "method": complex.method,
        "settings": settings,
        "checkpoint": checkpoint,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that change what is stored, by section."""
    settings: dict[str, Any] = {
        "model": _result_values(config.model),
        "msa": _result_values(config.msa),
        "write": sorted(config.write.files),
    }
    structures = _result_values(config.write)
    del structures["files"]
    if structures:
        settings["structures"] = structures
    if config.compat != RunConfig().compat:  # added later: keys of earlier results stay
        settings["compat"] = config.compat
    return settings


def _result_values(section: Any) -> dict[str, Any]:
    values = {
        setting.name: getattr(section, setting.name)
        for setting in fields(section)
        if setting.metadata["changes_results"]
    }
    for setting in fields(section):
        if not setting.metadata["in_key_by_default"] and values[setting.name] == setting.default:
            del values[setting.name]
    return values


def _chain_content(chain: Chain, digests: Mapping[FileSource, str]) -> dict[str, Any]:
    content = {name: getattr(chain, name) for name in CHAIN_FIELDS}
    content["msa"] = digests[chain.msa] if chain.msa else ""
    if chain.paired_msa:
        content["paired_msa"] = digests[chain.paired_msa]
    return content


def _template_content(template: Template, digests: Mapping[FileSource, str]) -> dict[str, Any]:
    content = asdict(template)
    del content["path"]
    if not template.residues:
        del content["residues"]
    return {**content, "file": digests[template.path]}
