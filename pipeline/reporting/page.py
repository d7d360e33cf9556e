"""One HTML file from a template, our scripts, the libraries and packed data."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2

from foldcp.pipeline.reporting.embedding.libraries import embedded_libraries
from foldcp.pipeline.reporting.formatting import (
    format_bytes,
    format_duration,
    format_number,
    format_time,
)
from foldcp.pipeline.storage.run_folder import TEMPORARY

PACKAGE = "foldcp.pipeline.reporting.html"
# In this order: a script uses those before it.
SCRIPTS = (
    "data.js",
    "run.js",
    "elements.js",
    "charts.js",
    "tables.js",
    "overview.js",
    "evaluation.js",
    "interfaces.js",
    "structure.js",
    "complex/samples.js",
    "complex/pairs.js",
    "complex/curves.js",
    "complex/page.js",
    "cost.js",
    "comparison.js",
    "main.js",
)
FILTERS = {
    "number": format_number,
    "duration": format_duration,
    "size": format_bytes,
    "when": format_time,
}


def write_page(
    path: Path,
    template: str,
    content: Mapping[str, Any],
    facts: Mapping[str, Any],
    blocks: Mapping[str, str],
) -> None:
    """Write a page by one rename.

    `content` are variables of the template, `facts` is JSON for the scripts, `blocks` are packed
    columns by name (embedding/columns.py). The folder of `path` is that of a run. Raises OSError
    when the page cannot be written.
    """
    libraries = embedded_libraries()
    styles = [entry for entry in libraries if entry["kind"] == "style"]
    text = (
        _environment()
        .get_template(template)
        .render(
            **content,
            facts=safe_json(facts),
            blocks=blocks,
            styles=[*map(_style, styles), _resource("style.css")],
            libraries_embedded=[entry for entry in libraries if entry["kind"] == "script"],
            libraries=_credits(libraries),
            script="\n".join(_resource(f"js/{name}") for name in SCRIPTS),
            version=metadata.version("foldcp"),
            created=format_time(datetime.now(UTC)),
        )
    )
    temporary = path.parent / TEMPORARY / path.name
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)


def safe_json(facts: Mapping[str, Any]) -> str:
    """JSON that can stand inside a <script> of a page, whatever its texts are."""
    text = json.dumps(facts, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


def _resource(name: str) -> str:
    return (resources.files(PACKAGE) / name).read_text(encoding="utf-8")


def _style(entry: dict[str, Any]) -> str:
    return gzip.decompress(base64.b64decode(entry["content"])).decode()


def _credits(libraries: list[dict[str, Any]]) -> str:
    """Names, versions and licences of the libraries."""
    named = {f"{e['package']} {e['version']} ({e['licence']})": None for e in libraries}
    return "With " + ", ".join(named)
