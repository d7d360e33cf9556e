"""Attempts of a run over time: which GPU did what when, how busy they were, what it cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn
from foldcp.pipeline.reporting.embedding.loading import LoadedRun, number_array, text_list
from foldcp.pipeline.reporting.run_tables import DataFrame

MAX_ATTEMPTS = 20_000  # of the page, the longest ones
NUM_INTERVALS = 200  # of the curve of use
STAGES = ("features", "trunk", "sampling", "confidence", "write")


def attempt_columns(loaded: LoadedRun) -> dict[str, PackedColumn]:
    """The attempts, with seconds since the first one; `complex` is -1 for one without a row."""
    attempts = loaded.attempts.nlargest(MAX_ATTEMPTS, "seconds").sort_values("started")
    numbers = {key: number for number, key in enumerate(loaded.complexes["key"])}
    begin = attempts["started"].min()
    texts = ("outcome", "reason", "fallbacks", "gpus", "precision", "name")
    numeric = ("num_tokens", "attempt", "group_size", "batch")
    measured = ("seconds", "predicted_seconds", "peak_bytes", "predicted_peak_bytes")
    return {
        "complex": columns.integers(attempts["key"].map(numbers).fillna(-1).to_numpy(float)),
        "start": columns.floats(_seconds(attempts["started"] - begin), "<f4"),
        **{name: columns.texts(text_list(attempts[name])) for name in texts},
        **{name: columns.integers(number_array(attempts[name])) for name in numeric},
        **{name: columns.floats(number_array(attempts[name]), "<f4") for name in measured},
    }


def cost_summary(loaded: LoadedRun) -> dict[str, Any]:
    """Numbers and curves of the whole run."""
    attempts = loaded.attempts
    gpu_seconds = attempts["seconds"].fillna(0) * attempts["group_size"].fillna(1)
    done = attempts["outcome"] == "done"
    lost = float(gpu_seconds[~done].sum())
    total = float(gpu_seconds.sum())
    started = attempts["started"].dropna()
    return {
        "begin": started.min().isoformat() if len(started) else None,
        "gpu_seconds": total,
        "lost_gpu_seconds": lost,
        "num_attempts": len(attempts),
        "num_unsuccessful": int((~done).sum()),
        "num_with_fallbacks": int((attempts["fallbacks"] != "").sum()),
        "num_left_out": max(0, len(attempts) - MAX_ATTEMPTS),
        "stages": {stage: float(attempts[f"seconds_{stage}"].sum()) for stage in STAGES},
        "gpus": sorted({gpu for text in attempts["gpus"].dropna() for gpu in gpu_names(text)}),
        "use": _use(attempts),
    }


def gpu_names(text: str) -> list[str]:
    """The single GPUs of an attempt's `gpus`, such as node:0,1 or, of CPU ranks, node:4."""
    names: list[str] = []
    node = ""
    for part in text.split(","):
        if ":" in part:
            node, _, part = part.rpartition(":")
        names.append(f"{node}:{part}" if node else part)
    return names


def gpu_seconds_by_key(attempts: DataFrame) -> dict[str, float]:
    """Key of a complex -> GPU seconds of all its attempts."""
    spent = attempts["seconds"].fillna(0) * attempts["group_size"].fillna(1)
    return spent.groupby(attempts["key"]).sum().to_dict()


def _use(attempts: DataFrame) -> list[list[float]]:
    """(seconds since the first attempt, GPUs at work on average) of equal intervals."""
    rows = attempts.dropna(subset=["started", "seconds"])
    if rows.empty:
        return []
    starts = _seconds(rows["started"] - rows["started"].min())
    # `seconds` of a batch's complex are its share of those of all, in which it shares the GPU.
    batch = rows["batch"].fillna(1).to_numpy(float)
    ends = starts + batch * rows["seconds"].to_numpy(float)
    sizes = rows["group_size"].fillna(1).to_numpy(float) / batch
    edges = np.linspace(0, max(float(ends.max()), 1e-6), NUM_INTERVALS + 1)
    # GPU seconds until each edge; their differences are what fell into an interval.
    spent = np.zeros(len(edges))
    for start, end, size in zip(starts, ends, sizes, strict=True):
        spent += size * (np.clip(edges, start, end) - start)
    busy = np.diff(spent) / np.diff(edges)
    return [[float(edge), float(value)] for edge, value in zip(edges, busy, strict=False)]


def _seconds(durations: Any) -> np.ndarray:
    return durations.dt.total_seconds().to_numpy(float)
