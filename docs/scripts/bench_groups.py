"""Complexes per hour on one GPU: folded one after the other, and in groups that are sampled
together.

    python docs/scripts/bench_groups.py 150 256 384 512 --group 8 --samples 1

An untrained network of Boltz-2's sizes, 4 passes, 200 steps, alignments of 1,024 rows; complexes of
90 to 100% of the tokens named. "Alone, of a size" are as many complexes of one size, whose CUDA
graphs are captured once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from foldcp.checkpoint.load import load
from foldcp.model.boltz2 import Boltz2
from foldcp.pipeline.bench.measure import synthetic_features
from foldcp.predict import Prediction, Settings, fold
from foldcp.predict_group import fold_group


def timed(run: Callable[[], Sequence[Prediction]]) -> tuple[float, Sequence[Prediction]]:
    """Seconds for each complex, and the predictions."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    predictions = run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(predictions), predictions


def stages(predictions: Sequence[Prediction]) -> str:
    """The mean seconds of each stage."""
    names = predictions[0].seconds
    means = {name: np.mean([each.seconds[name] for each in predictions]) for name in names}
    return ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())


def compare(model: Boltz2, num_tokens: int, size: int, rows: int, settings: Settings) -> None:
    """One line for each way to fold the complexes."""
    lengths = [num_tokens - index * num_tokens // (10 * size) for index in range(size)]
    group = [synthetic_features(length, rows) for length in lengths]
    same = [group[0]] * size
    fold_group(model, group, settings)  # to warm up
    alone, separate = timed(lambda: [fold(model, each, settings) for each in group])
    of_a_size, repeated = timed(lambda: [fold(model, each, settings) for each in same])
    fold_group(model, group, settings)  # the graphs of this size
    together, grouped = timed(lambda: fold_group(model, group, settings))
    for name, seconds, predictions in (
        ("alone", alone, separate),
        ("alone, of a size", of_a_size, repeated),
        (f"in groups of {size}", together, grouped),
    ):
        print(
            f"{num_tokens} tokens, {name}: {3600 / seconds:,.0f} an hour, {seconds:.3f} s "
            f"({stages(predictions)}), {predictions[0].peak_bytes / 1e9:.1f} GB",
            flush=True,
        )
    moved = max(
        float(np.linalg.norm(got.coords - own.coords) / np.linalg.norm(own.coords))
        for got, own in zip(grouped, separate, strict=True)
    )
    print(f"  {alone / together:.2f} and {of_a_size / together:.2f} times; moved {moved:.2g}")


def main() -> None:
    """The sizes of the command line, each several ways."""
    parser = argparse.ArgumentParser(description="Complexes per hour on one GPU.")
    parser.add_argument("sizes", type=int, nargs="+", help="tokens")
    parser.add_argument("--group", type=int, default=8, help="complexes folded together")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1024, help="of the alignment")
    parser.add_argument("--precision", choices=["fp32", "mixed", "bf16"], default="bf16")
    options = parser.parse_args()
    settings = Settings(samples=options.samples, precision=options.precision)
    model = load("untrained:boltz2", device="cuda", precision=options.precision)
    for num_tokens in options.sizes:
        compare(model, num_tokens, options.group, options.rows, settings)


if __name__ == "__main__":
    main()
