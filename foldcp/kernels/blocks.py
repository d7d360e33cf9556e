"""Arrays that come in blocks."""

from __future__ import annotations

import torch
from torch import Tensor


def cat_blocks(blocks: list[Tensor], dim: int = 0) -> Tensor:
    """The blocks of an array joined along `dim`; a single one is not copied."""
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim)
