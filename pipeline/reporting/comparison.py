"""The HTML comparison of two runs, pair of chains by pair of chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foldcp.pipeline.output_paths import check_file_writable
from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import pack
from foldcp.pipeline.reporting.embedding.loading import LoadedRun, load_run
from foldcp.pipeline.reporting.page import write_page
from foldcp.pipeline.reporting.run_tables import DataFrame, checkpoint_warning
from foldcp.pipeline.storage.run_folder import read_run

COMPARISON = "comparison.html"
TEMPLATE = "comparison.html.j2"
# A pair of chains is the same in both runs when these are; `repeat` numbers equal names.
IDENTITY = ["name", "repeat", "chain_a", "chain_b"]
TEXTS = ("title", "molecule_a", "molecule_b")
PARTS = (("comparison", "Comparison"), ("reading", "How to read it"))


def write_comparison(first: Path | str, second: Path | str) -> Path:
    """Write SECOND/comparison.html, a page that needs no other file, and return its path.

    Scores are means over samples and directions. Complexes are matched by their names in the
    inputs, chains by theirs.

    Raises:
        ValueError: one of them is not the folder of a run, both are the same one, or the page
            cannot be written, as can be told before.
        OSError: the page cannot be written there.
    """
    if Path(first).resolve() == Path(second).resolve():
        raise ValueError(f"{second}: the same run twice; give two runs to be compared")
    read_run(second)  # an error about the run comes before any about its page
    path = Path(second) / COMPARISON
    check_file_writable(path)
    runs = [load_run(first), load_run(second)]
    known = [{score["name"] for score in run.scores["interfaces"]} for run in runs]
    scores = [s for s in runs[1].scores["interfaces"] if s["name"] in known[0]]
    means = [f"{score['name']}_mean" for score in scores]
    pairs = [_named_pairs(run)[[*IDENTITY, *TEXTS, *means]] for run in runs]
    matched = pairs[0].merge(pairs[1], on=IDENTITY, suffixes=("_first", "_second"))
    warnings = [line for line in map(checkpoint_warning, (first, second)) if line]
    content = {
        "title": f"{_name(runs[0])} and {_name(runs[1])}",
        "heading": f"{_name(runs[0])} and {_name(runs[1])}",
        "subheading": "two runs, pair by pair",
        "parts": [{"id": id, "name": title} for id, title in PARTS],
        "warnings": list(dict.fromkeys(warnings)),
        "runs": [_about(run, len(frame)) for run, frame in zip(runs, pairs, strict=True)],
        "num_matched": len(matched),
        "described": {"interfaces": scores},
    }
    facts = {"page": "comparison", "scores": {"interfaces": scores}}
    write_page(path, TEMPLATE, content, facts, {"pairs": pack(_columns(matched, scores))})
    return path


def _named_pairs(loaded: LoadedRun) -> DataFrame:
    """The pairs of a run with their identity, what their molecules are called, and mean scores."""
    pairs = loaded.pairs.copy()
    complexes = loaded.complexes
    repeats = complexes.groupby("name").cumcount()
    names = complexes["name"].to_numpy(object)
    titles = complexes["title"].to_numpy(object)
    numbers = pairs["complex"].to_numpy(int)
    pairs["name"] = names[numbers]
    pairs["title"] = titles[numbers]
    pairs["repeat"] = repeats.to_numpy(int)[numbers]
    for end in "ab":
        chains = loaded.chains.iloc[pairs[f"row_{end}"].to_numpy(int)]
        pairs[f"chain_{end}"] = chains["chain"].to_numpy(object)
        pairs[f"molecule_{end}"] = [
            f"{chain} {gene or accession}".strip()
            for chain, gene, accession in zip(
                chains["chain"], chains["gene"], chains["accession"], strict=True
            )
        ]
    return pairs


def _columns(matched: DataFrame, scores: list[dict[str, Any]]) -> dict[str, columns.PackedColumn]:
    texts = {"name": "name"} | {name: f"{name}_second" for name in TEXTS}
    packed = {name: columns.texts(matched[column].tolist()) for name, column in texts.items()}
    for score in scores:
        for which in ("first", "second"):
            values = matched[f"{score['name']}_mean_{which}"].to_numpy(float)
            packed[f"{score['name']}_{which}"] = columns.decimals(values)
    return packed


def _about(loaded: LoadedRun, num_pairs: int) -> dict[str, Any]:
    return {
        "name": _name(loaded),
        "folder": str(loaded.out),
        "run": loaded.run,
        "num_done": int((loaded.complexes["outcome"] == "done").sum()),
        "num_pairs": num_pairs,
    }


def _name(loaded: LoadedRun) -> str:
    return loaded.out.resolve().name
