"""Content keys: hashes that identify a result by its complex, settings and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from foldcp.complex import Chain, Complex, Template
from foldcp.files import FileSource
from foldcp.pipeline.config import RunConfig

KEY_FORMAT = 3  # raised when the same content would give another result
BONDS_FORMAT = 1  # raised when that holds for complexes with bonds alone
KEY_LENGTH = 32  # hexadecimal digits of SHA-256
MAX_CHAINS = 1 << 16  # whose text is kept: those of a screen of 30,000 proteins
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


class ContentKeys:
    """Keys of the complexes of a run: SHA-256 over canonical JSON of the complex, the settings and
    the identity of the weights.

    The name counts, since results are found by it; title, organism and source do not. Alignments
    and templates count by their content (`Complex.digests`), so moving a file changes nothing and
    editing it does. The text of the settings is made once, and that of a chain for all complexes
    that share it.
    """

    def __init__(self, config: RunConfig, checkpoint: str) -> None:
        self._checkpoint = _json(checkpoint)
        self._settings = _json(result_settings(config))

    def key(self, complex: Complex) -> str:
        """The key of a complex whose files have been read."""
        digests = complex.digests
        chains = [
            _chain_text(
                chain,
                digests[chain.msa] if chain.msa else "",
                digests[chain.paired_msa] if chain.paired_msa else "",
            )
            for chain in complex.chains
        ]
        templates = [_template_content(template, digests) for template in complex.templates]
        # In the order of the keys, as `sort_keys` would have it.
        members = {
            "bonds": _json_list(complex.bonds),
            "chains": f"[{','.join(chains)}]",
            "checkpoint": self._checkpoint,
            "contacts": _json_list(complex.contacts),
            "format": str(KEY_FORMAT + (BONDS_FORMAT if complex.bonds else 0)),
            "method": _json(complex.method),
            "name": _json(complex.name),
            "pockets": _json_list(complex.pockets),
            "settings": self._settings,
            "templates": _json(templates) if templates else "[]",
        }
        text = ",".join([f'"{name}":{member}' for name, member in members.items()])
        return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:KEY_LENGTH]


def result_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that change what is stored, by section."""
    settings: dict[str, Any] = {
        "model": _result_values(config.model),
        "msa": _result_values(config.msa),
    }
    scores = _result_values(config.scores)
    if scores:  # added later, too
        settings["scores"] = scores
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


@lru_cache(maxsize=MAX_CHAINS)
def _chain_text(chain: Chain, msa: str, paired_msa: str) -> str:
    """The JSON of a chain, given the digests of its alignments."""
    content = {name: getattr(chain, name) for name in CHAIN_FIELDS}
    content["msa"] = msa
    if paired_msa:
        content["paired_msa"] = paired_msa
    return _json(content)


def _template_content(template: Template, digests: Mapping[FileSource, str]) -> dict[str, Any]:
    content = asdict(template)
    del content["path"]
    if not template.residues:
        del content["residues"]
    return {**content, "file": digests[template.path]}


def _json_list(items: Sequence[Any]) -> str:
    return _json([asdict(item) for item in items]) if items else "[]"


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
