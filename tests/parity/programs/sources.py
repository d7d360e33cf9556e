"""Programs that are no package: files on GitHub, at pinned commits."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 30  # seconds
MAX_BYTES = 10_000_000
FOLDER_VARIABLE = "FOLDCP_PROGRAMS"  # a folder with OWNER/NAME/PATH of each file


@dataclass(frozen=True)
class Source:
    """One file of a repository."""

    repository: str
    commit: str
    path: str
    sha256: str


IPSAE = ("DunbrackLab/IPSAE", "6174cf9e71cb1bd660cc805856a18c4871a6dec3")
EXAMPLE = "Example/fold_aurka_0_tpx2_0"
SOURCES = {
    "ipsae.py": Source(
        *IPSAE, "ipsae.py", "10cf9b08c68c91e06cb28526cf2026f47a3980c9048fd3226d13e3304eaf1c27"
    ),
    "ipsae.py example, PAE": Source(
        *IPSAE,
        f"{EXAMPLE}_full_data_0.json",
        "419dba4195671c4f710f12441a1bce09211adbb4196ed788c8146c2a6f06ed49",
    ),
    "ipsae.py example, structure": Source(
        *IPSAE,
        f"{EXAMPLE}_model_0.cif",
        "65d7aa6d739bad7dda4fa4ed48b2e95c7af2014ed43faa4300342c35725bd6ad",
    ),
    "ipsae.py example, scores": Source(
        *IPSAE,
        f"{EXAMPLE}_model_0_10_10.txt",
        "0351ddf95b8e8188244c0df7214c7c55d208a77cd8dae11d3f4acf9f65e8e187",
    ),
    "AFM-LIS": Source(
        "flyark/AFM-LIS",
        "a865edcc26766110256fb6a3252f1305d49448a2",
        "lis_analysis_colabfold.py",
        "3f6f01d4b358eb5731b0bee782d9edcbbb1be2a5ccdea2002c75c3f03e5b1070",
    ),
    "AlphaFold 3": Source(
        "google-deepmind/alphafold3",
        "c0f97eda2f1f482fd94d3a38bece18c7069b4a5c",
        "src/alphafold3/model/confidences.py",
        "9808451e417eef48ca1d13f29701d77a7d9e3ce8c47f359a4eeee23e4b83f6e2",
    ),
}


class UnavailableError(Exception):
    """A program that cannot be had here, and the reason."""


def program_file(name: str, cache: Path) -> Path:
    """The file of SOURCES, from the folder of FOLDCP_PROGRAMS, from `cache`, or fetched into that.

    Raises UnavailableError when it cannot be fetched, and ValueError for another version of it.
    """
    source = SOURCES[name]
    relative = Path(source.repository, source.path)
    given = os.environ.get(FOLDER_VARIABLE)
    path = Path(given) / relative if given else cache / relative
    if not path.is_file():
        if given:
            raise UnavailableError(f"{name}: {FOLDER_VARIABLE} has no {relative}")
        content = _fetch(name, source)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        raise ValueError(f"{path}: not the file of commit {source.commit}")
    return path


def _fetch(name: str, source: Source) -> bytes:
    url = f"https://raw.githubusercontent.com/{source.repository}/{source.commit}/{source.path}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.read(MAX_BYTES)
    except OSError as error:  # URLError is one
        raise UnavailableError(
            f"{name}: {url}: {error}; {FOLDER_VARIABLE} may name a folder"
        ) from error
