"""The command `foldcp fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=(
                "Weights: boltz2 (2.3 GB). Databases: corum, corum-human, complexportal, "
                "uniprot-human (sequences)."
            ),
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the file; by default $FOLDCP_CACHE, or ~/.foldcp.",
        ),
    ] = None,
) -> None:
    """Download released weights, whose SHA-256 is checked, or the current release of a database,
    with a record of where it came from. The same command resumes an interrupted download of
    weights, and checks a file that is already there.

    \b
    foldcp fetch boltz2
    foldcp fetch boltz2 --to /data/weights
    foldcp fetch corum --to /data
    """
    from foldcp.pipeline.fetch import INCLUDED, WEIGHTS, cache_folder
    from foldcp.pipeline.fetch import fetch as download
    from foldcp.pipeline.fetch_data import DATABASES, fetch_database

    folder = to or cache_folder()
    if name in INCLUDED:
        print(f"{name}: comes with foldcp and needs no download")
        print(f"foldcp score INPUT --checkpoint {name} --out RUN")
    elif name in DATABASES:
        path, source = fetch_database(name, folder)
        print(f"{path}: {source.size:,} bytes, downloaded {source.date} from {source.url}")
        print(f"licence: {DATABASES[name].licence}")
        print(DATABASES[name].command.format(path=path))
    elif name in WEIGHTS:
        path = download(name, folder)
        print(f"{path}: SHA-256 is right\nlicence: Boltz-2: MIT")
        print(f"foldcp score INPUT --checkpoint {path} --out RUN")
    else:
        raise ValueError(f"{name}: not known; known: {', '.join((*WEIGHTS, *DATABASES))}")
