"""Complexes per hour on one GPU: folded one after the other, and in batches.

    python docs/scripts/bench_groups.py 150 256 384 512 --batch 4 8 16 --samples 1

An untrained network of Boltz-2's sizes, 4 passes, 200 steps, alignments of 1,024 rows; complexes of
90 to 100% of the tokens named.
"""

from __future__ import annotations

import argparse

from foldcp.checkpoint.load import load
from foldcp.pipeline.bench.throughput import measure_throughput
from foldcp.predict import Settings


def main() -> None:
    """The sizes of the command line, each alone and in batches."""
    parser = argparse.ArgumentParser(description="Complexes per hour on one GPU.")
    parser.add_argument("sizes", type=int, nargs="+", help="tokens")
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="complexes of a batch")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1024, help="of the alignment")
    parser.add_argument("--precision", choices=["fp32", "mixed", "bf16"], default="bf16")
    options = parser.parse_args()
    settings = Settings(samples=options.samples, precision=options.precision)
    model = load("untrained:boltz2", device="cuda", precision=options.precision)
    for num_tokens in options.sizes:
        results = measure_throughput(model, num_tokens, options.batch, options.rows, settings)
        for found in results:
            stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in found.stages.items())
            print(
                f"{num_tokens} tokens, batches of {found.batch}: {found.per_hour:,.0f} an hour, "
                f"{found.seconds:.3f} s ({stages}), {found.peak_bytes / 1e9:.1f} GB, "
                f"{results[0].seconds / found.seconds:.2f} times, moved {found.moved:.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
