"""Speed of triangle attention on a GPU: its exponentials per second with bias and mask, cold and
after a second of nothing else.

    python docs/scripts/bench_attention.py 1024 2048 4096
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from foldcp.kernels import triangle_attention
from foldcp.kernels.dispatch import choose_backend

HEADS = 4
WIDTH = 32


def attention(num_tokens: int) -> Callable[[], object]:
    """A call with random operands as projections give them, a bias and a mask."""
    N = num_tokens
    device = torch.device("cuda")
    qkv = torch.randn(N, N, 3, HEADS, WIDTH, dtype=torch.float16, device=device)
    bias = 2 * torch.randn(HEADS, N, N, dtype=torch.bfloat16, device=device)
    mask = (torch.rand(N, device=device) < 0.9).float()
    chosen = triangle_attention.choose(choose_backend("auto", device), torch.bfloat16)
    attend = chosen.under(bias, mask)
    q, k, v = qkv.unbind(2)
    return lambda: attend(q, k, v)


def seconds(call: Callable[[], object], times: int) -> float:
    """Of one call, as the GPU's clock has it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / times


def cold(call: Callable[[], object]) -> float:
    """The median of short runs after a pause, as in a block with other work between."""
    results = []
    for _ in range(9):
        time.sleep(0.05)
        call()
        results.append(seconds(call, times=3))
    return median(results)


@torch.inference_mode()
def main() -> None:
    """One line a size."""
    for num_tokens in map(int, sys.argv[1:]):
        call = attention(num_tokens)
        call()
        brief = cold(call)
        times = max(2, round(1 / brief))
        seconds(call, times)
        long = seconds(call, times)
        exponentials = HEADS * num_tokens**3
        rates = ", ".join(
            f"{1e3 * each:.3f} ms ({exponentials / each / 1e12:.2f} T/s) {what}"
            for each, what in ((brief, "cold"), (long, "in a long run"))
        )
        print(f"{num_tokens:,} tokens: {rates}", flush=True)


if __name__ == "__main__":
    main()
