"""JavaScript libraries of the page, as they were published: name, version, licence, SHA-256.

`python -m foldcp.pipeline.reporting.embedding.libraries` fetches them again from npm and writes
pipeline/reporting/libraries/; the versions are those of its manifest.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import tarfile
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

PACKAGE = "foldcp.pipeline.reporting.libraries"
MANIFEST = "manifest.json"


def embedded_libraries() -> list[dict[str, Any]]:
    """The entries of the manifest, each with the base64 of its compressed file as `content`.

    Raises ValueError when a file is not the one that the manifest names.
    """
    folder = resources.files(PACKAGE)
    found = []
    for entry in json.loads((folder / MANIFEST).read_text(encoding="utf-8")):
        data = (folder / entry["stored"]).read_bytes()
        digest = hashlib.sha256(gzip.decompress(data)).hexdigest()
        if digest != entry["sha256"]:
            raise ValueError(f"{entry['stored']}: damaged: its SHA-256 is {digest}")
        found.append({**entry, "content": base64.b64encode(data).decode()})
    return found


def fetch_libraries(folder: Path) -> None:
    """Fetch every library of the manifest in `folder` from npm, and write it and its licence."""
    manifest = folder / MANIFEST
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    for entry in entries:
        with tempfile.TemporaryDirectory() as scratch:
            package = f"{entry['package']}@{entry['version']}"
            command = ["npm", "pack", "--silent", "--pack-destination", scratch, package]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(scratch).glob("*.tgz")
            with tarfile.open(archive) as files:
                content = _member(files, entry["file"])
                licence = _member(files, entry["licence_file"])
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / entry["stored"]).write_bytes(gzip.compress(content, 9, mtime=0))
        (folder / f"{entry['package']}.LICENSE").write_bytes(licence)
    manifest.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def _member(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(f"package/{name}")
    assert file is not None, name
    return file.read()


if __name__ == "__main__":
    fetch_libraries(Path(__file__).parents[1] / "libraries")
